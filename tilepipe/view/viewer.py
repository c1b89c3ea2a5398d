"""view: opens an image in the browser, with a server on this machine alone."""

from __future__ import annotations

import threading
import webbrowser
from collections.abc import Mapping, Sequence
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypedDict, Unpack

from tilepipe.arrays import Array
from tilepipe.errors import UsageError, public
from tilepipe.sources.base import Source
from tilepipe.sources.open import open_source
from tilepipe.view.content import Shown
from tilepipe.view.opened import Truth, open_maps
from tilepipe.view.server import Server

LEAFLET = "js_lib_leaflet"
"""Package that ships Leaflet, the part of the page that moves the tiles."""


class Viewer:
    """A viewer that runs. `url` opens it in the first browser that it is given to; `close` ends it."""

    def __init__(self, content: Shown, page: Mapping[str, bytes]) -> None:
        """Serve `content` with the files of the page until `close` is called."""
        self._content = content
        self._server = Server(content, page)
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


class Options(TypedDict, total=False):
    """What may be said of the image and of the truth."""

    bands: str | Sequence[int]
    """Bands to show, by number from 1 or by name: the first three are red, green and blue."""
    scene: int
    """Image of a file that holds several, from 0."""
    z: int
    """Plane along z, from 0."""
    t: int
    """Plane along t, from 0."""
    truth: str | Path
    """Labels to show beside `labels`; they may come from another program."""
    values: Mapping[int, int]
    """Class of each value of the truth."""
    ignore: int
    """Value of the truth's pixels that nobody labelled (255)."""
    browser: bool
    """Whether to open the browser (True)."""


@public
def view(image: str | Path | Source | Array, labels: str | Path | None = None, **options: Unpack[Options]) -> Viewer:
    """Show an image, and labels over it, in the browser, until the viewer is closed.

    The page is on this machine only, and for the browser of the user who opened it. Nothing is written.

    Args:
        image: A path, a `Source`, or an array of shape (bands, height, width) or (height, width).
        labels: A label map, of tilepipe or of another program, or a run: the work directory of a run, finished or not,
            or the output that it has not written yet. Layers of uncertainty that the run has kept are shown too.
        **options: See `Options`.

    Returns:
        The viewer. `url` is the address of its page; `close` ends it, as the end of a `with` block does.

    Raises:
        InputError: The image or the labels cannot be read.
        UsageError: The labels are not on the image, or the extra `view` is not installed.
        StorageError: A run is damaged.
    """
    given: dict[str, Any] = dict(options)
    browser = given.pop("browser", True)
    named = Truth(given.pop("truth", ""), given.pop("values", None), given.pop("ignore", 255))
    page = page_files()
    source = open_source(image, **given)
    viewer = Viewer(Shown(source, open_maps(source, labels, named if named.path else None)), page)
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
