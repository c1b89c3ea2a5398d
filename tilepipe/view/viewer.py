"""view: opens an image in the browser, with a server on this machine alone."""

from __future__ import annotations

import threading
import webbrowser
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tilepipe.arrays import Array
from tilepipe.errors import UsageError, public
from tilepipe.sources.base import Source
from tilepipe.sources.open import open_source
from tilepipe.view.content import Shown
from tilepipe.view.server import Server

LEAFLET = "js_lib_leaflet"
"""Package that ships Leaflet, the part of the page that moves the tiles."""


class Viewer:
    """A viewer that runs. `url` opens it in the first browser that it is given to; `close` ends it."""

    def __init__(self, content: Shown) -> None:
        """Serve `content` until `close` is called."""
        self._content = content
        self._server = Server(content, page_files())
        self._closed = threading.Event()
        content.start()

    @property
    def url(self) -> str:
        """Address of the viewer on this machine; it works in the first browser that opens it."""
        return self._server.access.url

    def wait(self) -> None:
        """Return when the viewer is closed."""
        self._closed.wait()

    def close(self) -> None:
        """End the viewer; its page shows nothing new then."""
        self._content.stop()
        self._server.close()
        self._closed.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Viewer {'closed' if self._closed.is_set() else self.url}>"


@public
def view(image: str | Path | Source | Array, *, browser: bool = True, **options: Any) -> Viewer:
    """Show an image in the browser: a page on this machine, which nobody else can open."""
    shown = Shown(open_source(image, **options))
    viewer = Viewer(shown)
    if browser:
        webbrowser.open(viewer.url)
    return viewer


def page_files() -> dict[str, bytes]:
    """Return the files of the page by their names. Raises `UsageError` if the package with Leaflet is missing."""
    if find_spec(LEAFLET) is None:
        raise UsageError("the viewer needs the package django-js-lib-leaflet; run: pip install 'tilepipe[view]'")
    own = Path(__file__).with_name("page")
    found = {file.name: file.read_bytes() for file in own.iterdir() if file.suffix in (".html", ".js", ".css", ".svg")}
    leaflet = files(LEAFLET) / "static" / LEAFLET
    return {**found, **{name: (leaflet / name).read_bytes() for name in ("leaflet.js", "leaflet.css")}}
