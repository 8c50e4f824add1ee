"""Two of Debian's Chromium, each in a network namespace of its own, call each other by relayed candidates only.

usage: chromium_call.py USERNAME PASSWORD FRAMES SECONDS END END
END is NAMESPACE,URL,ADDRESS: the file of a network namespace, the TURN server as seen from there, and the relayed
address that its allocation has to have (or several, joined by +).
Prints what both saw as JSON; exits 0 when each decoded at least FRAMES frames, between these two addresses.
"""

import json
import pathlib
import sys
import tempfile
import time

from playwright.sync_api import sync_playwright

CHROMIUM = "/usr/bin/chromium"
# A secure context is needed for the camera; the page is served by the test itself.
PAGE = "https://page.test/"
FLAGS = [
    # Root has no other way in a container or a gate.
    "--no-sandbox",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
LOOK_MS = 250


def program_inside(folder, number, namespace):
    """A program that starts Chromium in a namespace; playwright speaks to it by pipes, which cross over."""
    program = pathlib.Path(folder) / f"chromium-{number}"
    program.write_text(f'#!/bin/sh\nexec nsenter --net={namespace} -- {CHROMIUM} "$@"\n')
    program.chmod(0o700)
    return str(program)


def open_page(playwright, program, url, username, credential):
    script = (pathlib.Path(__file__).parent / "call_page.js").read_text()
    browser = playwright.chromium.launch(executable_path=program, headless=True, args=FLAGS)
    page = browser.new_page()
    page.route(PAGE, lambda route: route.fulfill(content_type="text/html", body="<!doctype html><body>"))
    page.goto(PAGE)
    # Playwright takes an expression: the function alone, without the comment before it.
    page.evaluate(
        script[script.index("async (") :].rstrip().rstrip(";"),
        {"url": url, "username": username, "credential": credential},
    )
    return page


def is_done(seen, frames, own, other):
    pair = ((seen["local"], own), (seen["remote"], other))
    relayed = all(end["type"] == "relay" and end["address"] in addresses for end, addresses in pair)
    return seen["frames"] >= frames and relayed


def run(username, credential, frames, seconds, ends):
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        pages = [
            open_page(playwright, program_inside(folder, number, namespace), url, username, credential)
            for number, (namespace, url, _) in enumerate(ends)
        ]
        caller, callee = pages
        offer = caller.evaluate("end.offer()")
        caller.evaluate("answer => end.accept(answer)", callee.evaluate("offer => end.answer(offer)", offer))
        addresses = [addresses.split("+") for (_, _, addresses) in ends]
        deadline = time.monotonic() + seconds
        while True:
            seen = [page.evaluate("end.look()") for page in pages]
            done = [is_done(s, frames, *pair) for s, pair in zip(seen, (addresses, addresses[::-1]))]
            failed = any(s["state"] == "failed" for s in seen)
            if all(done) or failed or time.monotonic() > deadline:
                break
            # Frames of a page that nobody looks at are no event outside of it.
            caller.wait_for_timeout(LOOK_MS)
    print(json.dumps(seen))
    return all(done)


if __name__ == "__main__":
    _, username, credential, frames, seconds, *ends = sys.argv
    ends = [end.split(",") for end in ends]
    sys.exit(0 if len(ends) == 2 and run(username, credential, int(frames), int(seconds), ends) else 1)
