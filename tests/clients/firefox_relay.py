"""Debian's Firefox ESR sends video to itself through a TURN server, by relayed candidates only.

usage: firefox_relay.py URL USERNAME PASSWORD FRAMES SECONDS
Prints what was seen as JSON; exits 0 when at least FRAMES frames were decoded. Firefox is driven by Marionette, its
own remote protocol, without a driver in between.
"""

import functools
import http.server
import json
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import threading

FIREFOX = "firefox-esr"
PREFERENCES = {
    # Any free port; Firefox says which.
    "marionette.port": 0,
    "media.navigator.streams.fake": True,
    "media.navigator.permission.disabled": True,
    "media.autoplay.default": 0,
    # Nothing is to be asked of anybody but the relay.
    "media.gmp-manager.updateEnabled": False,
    "app.update.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "browser.safebrowsing.malware.enabled": False,
    "browser.safebrowsing.phishing.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "services.settings.server": "http://127.0.0.1:9/",
}
LISTENING = re.compile(r"Marionette\s+INFO\s+Listening on port (\d+)")
STOP_SECONDS = 10


class Page(http.server.BaseHTTPRequestHandler):
    """An empty page; a camera is given to pages of 127.0.0.1 as to those of https."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><body>")

    def log_message(self, *_):
        pass


class Marionette:
    """Firefox's remote protocol: `length:[type, id, command or error, parameters or result]`."""

    def __init__(self, port, seconds):
        self.socket = socket.create_connection(("127.0.0.1", port), seconds)
        self.stream = self.socket.makefile("rb")
        self.sent = 0
        self.receive()

    def receive(self):
        digits = b"".join(iter(functools.partial(self.stream.read, 1), b":"))
        return json.loads(self.stream.read(int(digits)))

    def call(self, command, **parameters):
        self.sent += 1
        message = json.dumps([0, self.sent, command, parameters]).encode()
        self.socket.sendall(b"%d:%b" % (len(message), message))
        _, _, error, result = self.receive()
        if error:
            raise RuntimeError(f"{command}: {error.get('message')}")
        return result


def start(profile):
    """Starts Firefox; resolves to the process and its port. All that it says later is read and thrown away."""
    lines = (f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in PREFERENCES.items())
    (pathlib.Path(profile) / "user.js").write_text("".join(lines))
    command = [FIREFOX, "--headless", "--no-remote", "--marionette", "--profile", profile]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = []
    for line in process.stdout:
        said.append(line)
        if listening := LISTENING.search(line):
            threading.Thread(target=process.stdout.read, daemon=True).start()
            return process, int(listening[1])
    raise RuntimeError("Firefox ended at its start:\n" + "".join(said[-15:]))


def call_oneself(marionette, page, seconds, settings):
    script = (pathlib.Path(__file__).parent / "relay_page.js").read_text()
    function = script[script.index("async (") :].rstrip().rstrip(";")
    marionette.call("WebDriver:NewSession")
    marionette.call("WebDriver:SetTimeouts", script=1000 * (seconds + STOP_SECONDS))
    marionette.call("WebDriver:Navigate", url=page)
    body = f"const [settings, done] = arguments; ({function})(settings).then(done, e => done({{ error: String(e) }}));"
    return marionette.call("WebDriver:ExecuteAsyncScript", script=body, args=[settings])["value"]


def run(url, username, credential, frames, seconds):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = f"http://127.0.0.1:{server.server_port}/"
    settings = {"url": url, "username": username, "credential": credential, "frames": frames, "seconds": seconds}
    # Firefox writes into its profile until its last moment.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process, port = start(profile)
        try:
            marionette = Marionette(port, seconds + 2 * STOP_SECONDS)
            seen = call_oneself(marionette, page, seconds, settings)
            marionette.call("Marionette:Quit")
            process.wait(STOP_SECONDS)
        finally:
            process.kill()
            process.wait()
    print(json.dumps(seen))
    return seen.get("frames", 0) >= frames and seen["local"] == seen["remote"] == "relay"


if __name__ == "__main__":
    _, url, username, credential, frames, seconds = sys.argv
    sys.exit(0 if run(url, username, credential, int(frames), int(seconds)) else 1)
