"""A headless Chromium that tests drive over two pipes with the DevTools protocol: no port, no package, its own profile.

    with chromium(width=390, height=800) as page:
        page.goto(path.as_uri())
        assert page.evaluate("document.title") == "Report"
        page.screenshot(tmp_path / "narrow.png")
        assert page.problems == []

Names of other machines are not resolved, so that a page can reach nothing but this machine.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
PATH = next((found for name in NAMES if (found := shutil.which(name))), None)
needs_chromium = pytest.mark.skipif(PATH is None, reason="Chromium is not installed (Debian: apt-get install chromium)")

PATIENCE = 60.0
"""Seconds after which a command that Chromium has not answered is an error."""
OPTIONS = (
    "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
    "--hide-scrollbars", "--no-first-run", "--no-default-browser-check", "--disable-background-networking",
    "--disable-component-update", "--disable-default-apps", "--disable-extensions", "--disable-sync", "--mute-audio",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost", "--force-color-profile=srgb",
)  # fmt: skip
# Chromium reads commands from descriptor 3 and answers on descriptor 4.
LAUNCH = "import os, sys; os.dup2(r := int(sys.argv[1]), 10); os.dup2(int(sys.argv[2]), 11); "
LAUNCH += "os.dup2(10, 3); os.dup2(11, 4); os.execv(sys.argv[3], sys.argv[3:])"


@dataclass
class Page:
    """One tab of a running Chromium."""

    commands: int
    answers: int
    session: str = ""
    console: list[str] = field(default_factory=list)
    """Messages of the console, each "kind: text"; kinds are log, warning, error and Chromium's own."""
    problems: list[str] = field(default_factory=list)
    """Errors and warnings of the console, uncaught errors, and what a content security policy has refused."""
    requests: list[str] = field(default_factory=list)
    """URLs that pages asked for, those of the pages themselves included; data: URLs are left out."""
    _events: list[dict[str, Any]] = field(default_factory=list)
    _rest: bytes = b""
    _number: int = 0

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command of the protocol and return its result. Raises `RuntimeError` with Chromium's message."""
        self._number += 1
        told = {"id": self._number, "method": method, "params": parameters}
        if self.session:
            told["sessionId"] = self.session
        os.write(self.commands, json.dumps(told).encode() + b"\0")
        end = time.monotonic() + PATIENCE
        while True:
            answer = self._next(end)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result

    def goto(self, url: str) -> None:
        """Open a page and wait until it is loaded."""
        self._events.clear()
        found = self.send("Page.navigate", url=url)
        if "errorText" in found:
            raise RuntimeError(f"{url}: {found['errorText']}")
        self.wait_for_event("Page.loadEventFired")

    def evaluate(self, script: str) -> Any:
        """Return the value of a JavaScript expression, which may be a promise. Raises `RuntimeError` if it fails."""
        found = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"].get("exception", {}).get("description", "script failed"))
        return found["result"].get("value")

    def wait_for(self, script: str, seconds: float = 20.0) -> Any:
        """Return the value of a JavaScript expression as soon as it is true. Raises `TimeoutError`."""
        end = time.monotonic() + seconds
        while not (value := self.evaluate(script)):
            if time.monotonic() > end:
                raise TimeoutError(f"{script} is still {value!r}; the console says {self.console}")
            time.sleep(0.02)
        return value

    def wait_for_event(self, method: str) -> None:
        """Wait for an event of the protocol that has come since the last `goto`. Raises `TimeoutError`."""
        end = time.monotonic() + PATIENCE
        while not any(event["method"] == method for event in self._events):
            self._next(end)

    def resize(self, width: int, height: int, *, touch: bool = False) -> None:
        """Give the page another size in CSS pixels; `touch` makes it a telephone."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=touch)

    def dark(self, dark: bool = True) -> None:
        """Say that the user prefers dark colours, or light ones."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Write a PNG of what is seen, or of the whole page."""
        picture = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole, **self._clip(whole))
        path.write_bytes(base64.b64decode(picture["data"]))

    def _clip(self, whole: bool) -> dict[str, Any]:
        if not whole:
            return {}
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}

    def centre(self, selector: str) -> tuple[float, float]:
        """Return the middle (x, y) of the first element of a CSS selector, scrolled into view."""
        quoted = json.dumps(selector)
        found = self.evaluate(
            f"(() => {{ const e = document.querySelector({quoted}); e.scrollIntoView({{block: 'center'}});"
            "const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        return float(found[0]), float(found[1])

    def mouse(self, kind: str, x: float, y: float, **fields: Any) -> None:
        """Send one event of the mouse: mousePressed, mouseReleased, mouseMoved or mouseWheel."""
        self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **fields)

    def click(self, selector: str) -> None:
        """Click the middle of an element."""
        self.drag(self.centre(selector), self.centre(selector))

    def drag(self, start: tuple[float, float], end: tuple[float, float], steps: int = 4) -> None:
        """Press the left button at `start`, move to `end` in a few steps, release it."""
        held = {"button": "left", "buttons": 1, "clickCount": 1}
        self.mouse("mouseMoved", *start)
        self.mouse("mousePressed", *start, **held)
        for step in range(1, steps + 1) if start != end else ():
            part = step / steps
            x, y = (a + (b - a) * part for a, b in zip(start, end, strict=True))
            self.mouse("mouseMoved", x, y, button="left", buttons=1)
        self.mouse("mouseReleased", *end, **{**held, "buttons": 0})

    def wheel(self, at: tuple[float, float], delta: float, *, ctrl: bool = False) -> None:
        """Turn the wheel at a point; a positive `delta` scrolls down."""
        self.mouse("mouseWheel", *at, deltaX=0, deltaY=delta, modifiers=2 if ctrl else 0)

    def press(self, key: str) -> None:
        """Press and release a key by its name: Tab, ArrowLeft, Enter, a."""
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, windowsVirtualKeyCode=KEYS.get(key, 0))
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=KEYS.get(key, 0))

    def _next(self, end: float) -> dict[str, Any]:
        """Return the next message; events are kept."""
        while b"\0" not in self._rest:
            if not select.select([self.answers], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError(f"Chromium has not answered; the console says {self.console}")
            if not (more := os.read(self.answers, 1 << 20)):
                raise RuntimeError("Chromium has ended")
            self._rest += more
        text, _, self._rest = self._rest.partition(b"\0")
        told: dict[str, Any] = json.loads(text)
        if "method" in told:
            self._events.append(told)
            self._note(told["method"], told["params"])
        return told

    def _note(self, method: str, told: dict[str, Any]) -> None:
        said = ""
        if method == "Runtime.consoleAPICalled":
            words = [str(one.get("value", one.get("description", ""))) for one in told["args"]]
            said = f"{told['type']}: {' '.join(words)}"
        elif method == "Log.entryAdded":
            said = f"{told['entry']['level']}: {told['entry']['text']} {told['entry'].get('url', '')}".rstrip()
        elif method == "Runtime.exceptionThrown":
            details = told["exceptionDetails"]
            said = f"error: {details.get('exception', {}).get('description', details['text'])}"
        elif method == "Network.requestWillBeSent" and not told["request"]["url"].startswith("data:"):
            self.requests.append(told["request"]["url"])
        if said:
            self.console.append(said)
        if said.startswith(("error", "warning", "assert")):
            self.problems.append(said)


KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}


@contextmanager
def chromium(width: int = 1280, height: int = 900) -> Iterator[Page]:
    """Start Chromium and yield its page; at the end it is stopped and its profile removed."""
    assert PATH, "Chromium is not installed"
    to_child, commands = os.pipe()
    answers, from_child = os.pipe()
    with TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        words = [PATH, *OPTIONS, f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, str(to_child), str(from_child), *words],
            pass_fds=(to_child, from_child), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": profile},
        )  # fmt: skip
        os.close(to_child)
        os.close(from_child)
        page = Page(commands, answers)
        try:
            tab = page.send("Target.createTarget", url="about:blank")["targetId"]
            session = page.send("Target.attachToTarget", targetId=tab, flatten=True)["sessionId"]
            page.session = session
            for domain in ("Page", "Runtime", "Network", "Log"):
                page.send(f"{domain}.enable")
            page.resize(width, height)
            yield page
        finally:
            page.session = ""
            try:
                page.send("Browser.close")
                process.wait(20)
            except (RuntimeError, TimeoutError, OSError, subprocess.TimeoutExpired):
                process.kill()
                process.wait()
            os.close(commands)
            os.close(answers)
