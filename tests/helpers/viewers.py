"""A viewer and a plain client for its tests."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

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
