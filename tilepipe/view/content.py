"""What a viewer shows: an image, and the maps over it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import asdict
from pathlib import Path

from tilepipe.box import Box
from tilepipe.errors import TilepipeError
from tilepipe.products.label_map import LABELS, LabelMap
from tilepipe.sources.base import Source
from tilepipe.sources.georeference import is_in_degrees, to_crs, to_lonlat
from tilepipe.text import JSON, clean_line, crs_name
from tilepipe.view.error_map import ERRORS, error_tile
from tilepipe.view.image_tiles import ImageTiles
from tilepipe.view.opened import TRUTH, Opened, finished
from tilepipe.view.places import SQUARE, least_certain
from tilepipe.view.screen import TILE

KEPT = 96 << 20
"""Largest size of the image's tiles that are kept [bytes]: the browser asks again for what it has moved away from."""


class Shown:
    """An image and its maps, open in a viewer; the `Content` of its server. Methods may be called from any thread."""

    def __init__(self, image: Source, opened: Opened) -> None:
        """Take an open image and the maps over it."""
        self.image, self.opened = image, opened
        self.tiles = ImageTiles(image)
        self._kept: OrderedDict[tuple[int, int, int], bytes] = OrderedDict()
        self._lock = threading.Lock()
        self._news = threading.Lock()
        self._versions = dict.fromkeys(opened.tiles, 0)
        self._trouble = ""

    def start(self) -> None:
        """Begin to read in the background what needs a smaller version."""
        small = [self.tiles.small, *(tiles.small for tiles in self.opened.tiles.values() if self.opened.run is None)]
        for one in small:
            if one is not None:
                threading.Thread(target=one.fill, name="tilepipe-view-small", daemon=True).start()

    def stop(self) -> None:
        """Stop reading."""
        for one in (self.tiles.small, *(tiles.small for tiles in self.opened.tiles.values())):
            if one is not None:
                one.stop()

    def about(self) -> JSON:
        """Return name, size, resolution and reference system of the image, and the legends of its maps."""
        bands, height, width = self.image.shape
        size, place, maps = self.image.resolution, self.image.georeference, self.opened.tiles
        return {
            "name": clean_line(Path(self.image.name).name),
            "bands": bands,
            "height": height,
            "width": width,
            "type": self.image.dtype.name,
            "tile": TILE,
            "levels": self.tiles.screen.last,
            "resolution": asdict(size) if size else None,
            "crs": clean_line(crs_name(place.crs)) if place and place.crs else None,
            "degrees": bool(place and place.crs and is_in_degrees(place.crs)),
            "maps": {name: _legend(tiles.map) for name, tiles in maps.items() if name in (LABELS, TRUTH)},
            "layers": {name: _meaning(tiles.map) for name, tiles in maps.items() if name not in (LABELS, TRUTH)},
        }

    def state(self) -> JSON:
        """Return a version of each layer, which grows when the layer changes, and what to say."""
        said = [text] if (text := self._news_of_the_run()) else []
        small = [("image", self.tiles.small), *((name, tiles.small) for name, tiles in self.opened.tiles.items())]
        versions, trouble, working = dict(self._versions), self._trouble, bool(said)
        for name, one in small:
            if one is None or (self.opened.run and name in self.opened.run.names):
                continue
            versions[name] = versions.get(name, 0) + round(1000 * one.share)
            trouble = trouble or one.trouble
            if one.share < 1 and not one.trouble:
                working = True
                said.append(f"reading {name} for the overview: {one.share:.0%}; zoom in to see it already")
        return {"versions": versions, "working": working, "said": "; ".join(said), "trouble": trouble}

    def tile(self, layer: str, level: int, row: int, column: int) -> bytes | None:
        """Return a tile of the image or of a map; None if there is none. Raises `TilepipeError` if it is not read."""
        if layer == ERRORS:
            maps = self.opened.tiles
            return error_tile(maps[LABELS], maps[TRUTH], level, row, column) if TRUTH in maps else None
        if layer != "image":
            tiles = self.opened.tiles.get(layer)
            return tiles.tile(level, row, column) if tiles else None
        key = level, row, column
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        found = self.tiles.tile(level, row, column)
        if found is not None and self.tiles.small is None:
            with self._lock:
                self._kept[key] = found
                while len(self._kept) * len(found) > KEPT:
                    self._kept.popitem(last=False)
        return found

    def at(self, y: int, x: int) -> JSON | None:
        """Return what lies at an image pixel; None outside the image.

        `map` is its centre in the reference system, `lonlat` in longitude and latitude, `um` in micrometres from the
        corner of a slide; the others are values by layer.
        """
        if not Box.of_shape(*self.image.shape[1:]).contains(Box(y, x, y + 1, x + 1)):
            return None
        place = self.image.georeference
        found: JSON = {"values": self.tiles.values(y, x)}
        if place is not None and (place.transform is not None or len(place.gcps) >= 3):
            xs, ys = to_crs(place, [y + 0.5], [x + 0.5])
            found["map"] = [float(xs[0]), float(ys[0])]
            if (lonlat := to_lonlat(place, y + 0.5, x + 0.5)) is not None:
                found["lonlat"] = list(lonlat)
        size = self.image.resolution
        if size is not None and size.unit == "um":
            found["um"] = [(x + 0.5) * size.x, (y + 0.5) * size.y]
        for name, tiles in self.opened.tiles.items():
            value, legend = tiles.at(y, x), tiles.map.legend
            measured = round(value * legend.measure.step, 3) if legend.measure else value
            found[name] = None if value == legend.nodata else measured
        return found

    def places(self) -> JSON:
        """Return the least certain places, the worst first, by the first layer there is."""
        layer = next((name for name in self.opened.tiles if name not in (LABELS, TRUTH)), None)
        if layer is None:
            return {"places": [], "layer": None, "side": 0}
        tiles = self.opened.tiles[layer]
        return {"places": least_certain(tiles), "layer": layer, "side": SQUARE * max(tiles.map.scale)}

    def _news_of_the_run(self) -> str:
        """Take over what the run has computed since the last call, and return how far it is."""
        with self._news:
            run = self.opened.run
            if run is None:
                return ""
            try:
                if run.in_place:
                    self._finish(finished(self.image, run.output))
                    return ""
                fresh = run.news()
                for name in run.names if fresh else ():
                    small = self.opened.tiles[name].small
                    assert small is not None
                    small.add(fresh)
                    self._versions[name] += 1
                self._trouble = ""
            except TilepipeError as error:
                self._trouble = str(error)
            return run.said

    def _finish(self, opened: Opened) -> None:
        """Show the products of a run in place of its work directory."""
        for name, tiles in opened.tiles.items():
            if name in self.opened.tiles:
                self.opened.tiles[name] = tiles
                self._versions[name] += 1
        self.opened.run = None
        self.start()


def _legend(of: LabelMap) -> JSON:
    legend = of.legend
    return {
        "classes": [clean_line(name) for name in legend.classes],
        "colours": ["#{:02x}{:02x}{:02x}".format(*colour) for colour in legend.palette],
        "nodata": legend.nodata,
        "background": legend.background,
        "wide": of.dtype.itemsize > 1,
    }


def _meaning(of: LabelMap) -> JSON:
    measure = of.legend.measure
    assert measure is not None
    return {"step": measure.step, "meaning": measure.meaning, "nodata": of.legend.nodata}
