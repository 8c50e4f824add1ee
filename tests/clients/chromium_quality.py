"""Debian's Chromium sends audio and video to itself through a TURN server for a while, by relayed candidates only.

usage: chromium_quality.py URL USERNAME PASSWORD SECONDS
Prints what both ends have counted as one line of JSON; exits 0 when anything was decoded.
"""

import json
import pathlib
import sys

from chromium_relay import CHROMIUM, FLAGS, PAGE
from playwright.sync_api import sync_playwright


def run(url, username, credential, seconds):
    script = (pathlib.Path(__file__).parent / "quality_page.js").read_text()
    # Playwright takes an expression: the function alone, without the comment before it.
    function = script[script.index("async (") :].rstrip().rstrip(";")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        page = browser.new_page()
        page.route(PAGE, lambda route: route.fulfill(content_type="text/html", body="<!doctype html><body>"))
        page.goto(PAGE)
        seen = page.evaluate(
            function, {"url": url, "username": username, "credential": credential, "seconds": seconds}
        )
        browser.close()
    print(json.dumps(seen))
    return seen["frames"] > 0


if __name__ == "__main__":
    _, url, username, credential, seconds = sys.argv
    sys.exit(0 if run(url, username, credential, float(seconds)) else 1)
