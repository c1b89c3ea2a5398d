"""The web server of a viewer: on this machine only, in a thread of its own, GET of known pages and tiles only."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from tilepipe.errors import StorageError, TilepipeError, ordinary
from tilepipe.text import JSON, clean_line
from tilepipe.view.access import HEADERS, HOST, Access, is_of_another_user

THREADS = min(8, 2 * (os.cpu_count() or 1))
"""Number of tiles that are made at once."""
FORWARD = (
    '<!doctype html><meta http-equiv="refresh" content="0;url=/"><title>tilepipe</title>'
    '<link rel="icon" href="/icon.svg">'
)
"""Page that leads from the address with the token to the viewer. A redirect would not bring the cookie along if another
page led to the address: the cookie is for requests of the viewer's own pages only."""
KINDS = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}


class Content(Protocol):
    """What a server shows."""

    def about(self) -> JSON:
        """Return the facts of everything shown, as JSON types."""

    def state(self) -> JSON:
        """Return what changes while the page is open, as JSON types."""

    def tile(self, layer: str, level: int, row: int, column: int) -> bytes | None:
        """Return a tile of a layer; None if there is none."""

    def at(self, y: int, x: int) -> JSON | None:
        """Return what lies at a pixel of the image; None outside the image."""

    def places(self) -> JSON:
        """Return the least certain places."""


@dataclass(frozen=True)
class _Shared:
    """What all answers of one server have in common."""

    access: Access
    content: Content
    files: Mapping[str, bytes]
    """Files of the page by name. They were read when the server started: no path reaches the file system."""
    pool: ThreadPoolExecutor


class _Page(RequestHandler):
    """A request; it is answered only if `Access` has nothing against it."""

    def initialize(self, shared: _Shared) -> None:
        self.shared, self.access, self.gone = shared, shared.access, threading.Event()

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        for name, value in HEADERS.items():
            self.set_header(name, value)

    def prepare(self) -> None:
        if said := self.refused():
            self.say(403, said)

    def refused(self) -> str:
        return self.access.refusal(self.request.headers, self.cookie)

    @property
    def cookie(self) -> str | None:
        found: str | None = self.get_cookie(self.access.cookie_name)
        return found

    def say(self, status: int, text: str) -> None:
        """End the answer with a sentence."""
        self.set_status(status)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(clean_line(text))

    def write_error(self, status_code: int, **_: object) -> None:
        self.say(status_code, {404: "there is no such page", 405: "only GET is answered"}.get(status_code, "failed"))

    def log_exception(self, *_: object) -> None:
        """Log nothing here: `_Made` says what has gone wrong."""


class _Nowhere(_Page):
    """An address that leads nowhere, whoever asks."""

    def prepare(self) -> None:
        super().prepare()
        if not self._finished:
            self.say(404, "there is no such page")


class _Open(_Page):
    """The address that carries the token."""

    def refused(self) -> str:
        return self.access.foreign(self.request.headers)

    def get(self, token: str) -> None:
        cookie = self.access.exchange(token, self.cookie)
        if cookie is None:
            self.say(403, "this address was opened before, or is wrong; start tilepipe view again")
            return
        self.set_cookie(self.access.cookie_name, cookie, path="/", httponly=True, samesite="Strict")
        self.finish(FORWARD)


class _File(_Page):
    """A file of the page."""

    def get(self, name: str = "") -> None:
        name = name or "index.html"
        if name not in self.shared.files:
            self.say(404, "there is no such page")
            return
        self.set_header("Content-Type", f"{KINDS[name.rpartition('.')[2]]}; charset=utf-8")
        self.finish(self.shared.files[name])


class _Made(_Page):
    """An answer that is made in another thread, so that others do not wait for it."""

    def on_connection_close(self) -> None:
        self.gone.set()

    async def get(self, *words: str) -> None:
        try:
            found = await asyncio.get_running_loop().run_in_executor(self.shared.pool, self._unless_gone, words)
        except Exception as error:
            known = ordinary(error) or error
            self.say(500, str(known) if isinstance(known, TilepipeError) else f"unexpected {type(known).__name__}")
            return
        if self.gone.is_set():
            return
        if found is None:
            self.set_status(204)
            self.finish()
        elif isinstance(found, bytes):
            self.set_header("Content-Type", "application/octet-stream")
            self.finish(found)
        else:
            self.set_header("Content-Type", "application/json; charset=utf-8")
            self.finish(json.dumps(found))

    def _unless_gone(self, words: tuple[str, ...]) -> bytes | JSON | None:
        # A browser that moves on closes its connection: what it asked for need not be made any more.
        return None if self.gone.is_set() else self.made(*words)

    def made(self, *words: str) -> bytes | JSON | None:
        raise NotImplementedError


class _Tile(_Made):
    def made(self, *words: str) -> bytes | JSON | None:
        layer, *numbers = words
        level, row, column = map(int, numbers)
        return self.shared.content.tile(layer, level, row, column)


class _At(_Made):
    def made(self, *words: str) -> bytes | JSON | None:
        y, x = map(int, words)
        return self.shared.content.at(y, x)


class _About(_Made):
    def made(self, *words: str) -> bytes | JSON | None:
        return self.shared.content.about()


class _State(_Made):
    def made(self, *words: str) -> bytes | JSON | None:
        return self.shared.content.state()


class _Places(_Made):
    def made(self, *words: str) -> bytes | JSON | None:
        return self.shared.content.places()


class _OwnConnections(HTTPServer):
    """A server that closes connections of other users of the machine."""

    def handle_stream(self, stream: IOStream, address: tuple[str, int]) -> None:
        if is_of_another_user(address[:2], stream.socket.getsockname()[:2]):
            stream.close()
            return
        super().handle_stream(stream, address)


def _application(shared: _Shared) -> Application:
    number, given = r"(\d{1,9})", {"shared": shared}
    return Application(
        [
            (r"/open/([A-Za-z0-9_-]{1,100})", _Open, given),
            (rf"/tiles/([a-z]{{1,20}})/(\d{{1,2}})/{number}/{number}", _Tile, given),
            (rf"/at/{number}/{number}", _At, given),
            (r"/about", _About, given),
            (r"/state", _State, given),
            (r"/places", _Places, given),
            (r"/([a-z]{0,20}(?:\.[a-z]{1,4})?)", _File, given),
        ],
        default_handler_class=_Nowhere,
        default_handler_args=given,
        log_function=lambda handler: None,
    )


class Server:
    """A running server; `close` ends it."""

    def __init__(self, content: Content, files: Mapping[str, bytes]) -> None:
        """Listen on a free port of this machine's loopback, and answer from a thread of its own.

        Raises `StorageError` if there is no port.
        """
        try:
            sockets = bind_sockets(0, HOST)
        except OSError as error:
            raise StorageError(f"the viewer cannot listen on {HOST}: {error.strerror or error}") from error
        self.access = Access(sockets[0].getsockname()[1])
        self._pool = ThreadPoolExecutor(THREADS, "tilepipe-view")
        self._loop = asyncio.new_event_loop()
        self._application = _application(_Shared(self.access, content, files, self._pool))
        self._sockets = sockets
        self._thread = threading.Thread(target=self._serve, name="tilepipe-view", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening; answers on their way are dropped."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._pool.shutdown(cancel_futures=True)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        # No request has a body.
        server = _OwnConnections(self._application, max_body_size=0, idle_connection_timeout=60)
        self._loop.call_soon(partial(server.add_sockets, self._sockets))
        self._loop.run_forever()
        server.stop()
        self._loop.run_until_complete(server.close_all_connections())
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()
