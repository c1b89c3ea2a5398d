"""The browser that tests of pages use notices what must not happen, and does what a user does."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.chromium import chromium, needs_chromium

BAD = """<!doctype html><meta http-equiv="Content-Security-Policy" content="script-src 'unsafe-inline'; img-src data:">
<input type="range" id="slider" min="0" max="100"><img src="https://example.org/a.png"><img src="http://127.0.0.1:9/b.png">
<script>console.warn("careful"); addEventListener("wheel", e => { window.turned = e.deltaY; });
throw new Error("broken")</script>"""


@pytest.mark.long
@needs_chromium
def test_problems_are_noticed_and_a_page_can_be_used(tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text(BAD)
    with chromium(390, 800) as browser:
        browser.goto(page.as_uri())
        assert browser.evaluate("innerWidth") == 390
        told = "\n".join(browser.problems)
        assert "warning: careful" in told
        assert "Error: broken" in told
        assert told.count("Content Security Policy") == 2
        x, y = browser.centre("#slider")
        browser.drag((x, y), (x + 30, y))
        assert 60 < int(browser.evaluate("document.querySelector('#slider').value")) < 95
        browser.press("ArrowLeft")
        browser.wheel((100, 300), 120)
        assert browser.wait_for("window.turned") == 120
        browser.dark()
        assert browser.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
        browser.screenshot(tmp_path / "seen.png")
        assert (tmp_path / "seen.png").read_bytes().startswith(b"\x89PNG")
