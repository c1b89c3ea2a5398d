"""What a viewer shows: an image and the maps over it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

from tilepipe.box import Box
from tilepipe.sources.base import Source
from tilepipe.sources.georeference import to_crs
from tilepipe.text import JSON, clean_line, crs_name
from tilepipe.view.image_tiles import ImageTiles
from tilepipe.view.screen import TILE

KEPT = 96 << 20
"""Largest size of the pictures that are kept [bytes]: the browser asks again for what it has moved away from."""


class Shown:
    """An image, open in a viewer; the `Content` of its server."""

    def __init__(self, image: Source) -> None:
        """Take an open image."""
        self.image = image
        self.tiles = ImageTiles(image)
        self._kept: OrderedDict[tuple[int, int, int], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def start(self) -> None:
        """Begin to read in the background what needs a smaller version."""
        if self.tiles.small:
            threading.Thread(target=self.tiles.small.fill, name="tilepipe-view-small", daemon=True).start()

    def stop(self) -> None:
        """Stop reading."""
        if self.tiles.small:
            self.tiles.small.stop()

    def about(self) -> JSON:
        """Return name, size, resolution and reference system of the image."""
        bands, height, width = self.image.shape
        size, place = self.image.resolution, self.image.georeference
        return {
            "name": clean_line(Path(self.image.name).name),
            "bands": bands,
            "height": height,
            "width": width,
            "type": self.image.dtype.name,
            "tile": TILE,
            "levels": self.tiles.screen.last,
            "resolution": {"y": size.y, "x": size.x, "unit": size.unit} if size else None,
            "crs": clean_line(crs_name(place.crs)) if place and place.crs else None,
        }

    def state(self) -> JSON:
        """Return how much of the image is read for its smaller version, and what to say of it."""
        small = self.tiles.small
        share, trouble = (1.0, "") if small is None else (small.share, small.trouble)
        working = share < 1 and not trouble
        said = f"reading the image for its overview: {share:.0%}; zoom in to see it already" if working else ""
        versions = {"image": round(share, 3)}
        return {"versions": versions, "working": working, "said": said, "trouble": trouble}

    def tile(self, layer: str, level: int, row: int, column: int) -> bytes | None:
        """Return a tile of the image as PNG; None if there is none."""
        if layer != "image":
            return None
        key = level, row, column
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        found = self.tiles.tile(level, row, column)
        if found is not None and self.tiles.small is None:
            with self._lock:
                self._kept[key] = found
                while sum(map(len, self._kept.values())) > KEPT:
                    self._kept.popitem(last=False)
        return found

    def at(self, y: int, x: int) -> JSON | None:
        """Return the position of an image pixel's centre and the values of its bands; None outside the image."""
        if not Box.of_shape(*self.image.shape[1:]).contains(Box(y, x, y + 1, x + 1)):
            return None
        place = self.image.georeference
        found: JSON = {"values": self.tiles.values(y, x)}
        if place is not None and (place.transform is not None or len(place.gcps) >= 3):
            xs, ys = to_crs(place, [y + 0.5], [x + 0.5])
            found["map"] = [float(xs[0]), float(ys[0])]
        return found

    def places(self) -> JSON:
        """Return no places: no layer says what is certain."""
        return {"places": []}
