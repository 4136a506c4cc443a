"""What tests in a real browser share: the system's chromium, driven by playwright (extra `review-test`)."""

import shutil
import time

import pytest

PATIENCE_S = 60


def chromium():
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def launched():
    """A generator that gives a browser; the test is skipped where there is none."""
    reason = "no playwright: pip install -e '.[review-test]'"
    sync_api = pytest.importorskip("playwright.sync_api", reason=reason)
    if chromium() is None:
        pytest.skip("no chromium on this machine")
    flags = ["--no-sandbox", "--mute-audio", "--autoplay-policy=no-user-gesture-required"]
    with sync_api.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium(), args=flags)
        yield browser
        browser.close()


def until(page, expression):
    """Waits for a JavaScript expression to be true. Not by playwright's own waiting, which needs eval() in
    the page: our pages forbid that."""
    end = time.monotonic() + PATIENCE_S
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"never true: {expression}"
        time.sleep(0.02)
