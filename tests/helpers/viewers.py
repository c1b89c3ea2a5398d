"""A viewer, a plain client for its tests, and the way into its page in Chromium."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from helpers.chromium import Page

from tilepipe.view.viewer import Viewer, view


@dataclass
class Client:
    """A client that sends exactly what a test says, and the cookie once it has `entered`."""

    viewer: Viewer
    cookie: str = ""

    @property
    def host(self) -> str:
        return self.viewer.url.split("/")[2]

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes, dict[str, str]]:
        """Return status, body and headers; `Host` and other headers may be given, with _ for -."""
        sent = {"Host": self.host, **({"Cookie": self.cookie} if self.cookie else {})}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection(self.host, timeout=30)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in sent.items():
                connection.putheader(name, value)
            connection.endheaders()
            answer = connection.getresponse()
            return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
        finally:
            connection.close()

    def enter(self) -> None:
        status, _, headers = self.ask("/" + self.viewer.url.split("/", 3)[3])
        assert status == 200
        self.cookie = headers["set-cookie"].partition(";")[0]

    def json(self, path: str) -> Any:
        status, body, _ = self.ask(path)
        assert status == 200, body
        return json.loads(body)


@contextmanager
def viewing(*what: Any, **options: Any) -> Iterator[Client]:
    """Show something, and yield a client that has opened the address."""
    with view(*what, browser=False, **options) as viewer:
        client = Client(viewer)
        client.enter()
        yield client


IDLE = "Object.values(viewer.layers).every((layer) => Object.values(layer._tiles).every((tile) => tile.loaded))"


def enter(page: Page, url: str) -> None:
    """Open the address, which leads on to the viewer's page, and wait until that is drawn."""
    page.goto(url)
    with suppress(RuntimeError):  # what is asked while the page changes fails
        page.wait_for("location.pathname === '/'")
    time.sleep(0.2)
    page.wait_for("document.body?.dataset.ready")
    settle(page)


def settle(page: Page) -> None:
    """Wait until every tile is drawn, and a frame more."""
    time.sleep(0.2)
    page.wait_for(IDLE)
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")
