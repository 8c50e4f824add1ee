"""Debian's Chromium sends video to itself through a TURN server, by relayed candidates only.

usage: chromium_relay.py URL USERNAME PASSWORD FRAMES SECONDS
Prints what was seen as JSON; exits 0 when at least FRAMES frames were decoded.
"""

import json
import pathlib
import sys

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
    # The namespace has a loopback interface only.
    "--allow-loopback-in-peer-connection",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


def run(url, username, credential, frames, seconds):
    script = (pathlib.Path(__file__).parent / "relay_page.js").read_text()
    # Playwright takes an expression: the function alone, without the comment before it.
    function = script[script.index("async (") :].rstrip().rstrip(";")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        page = browser.new_page()
        page.route(PAGE, lambda route: route.fulfill(content_type="text/html", body="<!doctype html><body>"))
        page.goto(PAGE)
        seen = page.evaluate(
            function,
            {"url": url, "username": username, "credential": credential, "frames": frames, "seconds": seconds},
        )
        browser.close()
    print(json.dumps(seen))
    return seen["frames"] >= frames and seen["local"] == seen["remote"] == "relay"


if __name__ == "__main__":
    _, url, username, credential, frames, seconds = sys.argv
    sys.exit(0 if run(url, username, credential, int(frames), int(seconds)) else 1)
