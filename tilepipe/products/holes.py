"""Small regions are left out and small holes are closed while outlines are traced."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from tilepipe.arrays import Labels
from tilepipe.box import Box
from tilepipe.products.outline import Floats, Ints, Outline
from tilepipe.products.ruler import Ruler

BATCH = 4096
"""Number of outlines that are measured together."""
CELL = 256
"""Side in pixels of the squares in which pixels are looked up."""


class Contents:
    """Pixels that keep a hole open if it holds one: a pixel of each region that is kept, and corners of nodata."""

    def __init__(self, nodata: int) -> None:
        """Begin without pixels; `nodata` is the value of nodata in the label map."""
        self._nodata = nodata
        # A pixel takes two bytes, its place in its square: there may be millions of them.
        self._cells: dict[tuple[int, int], array[int]] = {}

    def see(self, box: Box, pixels: Labels) -> None:
        """Note the upper left corners of nodata in a block: each connected part of nodata has such a corner."""
        nodata = np.pad(pixels == self._nodata, ((1, 0), (1, 0)))
        first = nodata[1:, 1:] & ~nodata[:-1, 1:] & ~nodata[1:, :-1]
        for y, x in np.argwhere(first).tolist():
            self.add(y + box.y0, x + box.x0)

    def keep(self, outline: Outline) -> None:
        """Note a region that is kept, by its topmost, then leftmost, pixel."""
        ring = outline.rings[0]
        first = ring[np.lexsort((ring[:, 0], ring[:, 1]))[0]]
        self.add(int(first[1]), int(first[0]))

    def add(self, y: int, x: int) -> None:
        """Note a pixel."""
        # A hole is small beside the map, so only the pixels of the squares that it meets are compared with it.
        self._cells.setdefault((y // CELL, x // CELL), array("H")).append(y % CELL * CELL + x % CELL)

    def inside(self, hole: Floats) -> bool:
        """Return whether a noted pixel lies in `hole`, a closed ring (N, 2) of pixel corners."""
        (x0, y0), (x1, y1) = hole.min(0).astype(int).tolist(), hole.max(0).astype(int).tolist()
        rows, columns = range(y0 // CELL, (y1 - 1) // CELL + 1), range(x0 // CELL, (x1 - 1) // CELL + 1)
        for cell in ((y, x) for y in rows for x in columns if (y, x) in self._cells):
            pixels = np.stack(np.divmod(np.array(self._cells[cell], np.int64), CELL), 1) + np.multiply(cell, CELL)
            near = pixels[((pixels >= (y0, x0)) & (pixels < (y1, x1))).all(1)]
            if len(near) and _inside(near, hole).any():
                return True
        return False


def _inside(pixels: Ints, ring: Floats) -> NDArray[np.bool_]:
    """Return which pixels (N, 2) as (y, x) lie inside a ring: those with an odd number of its edges to their left."""
    start, end = ring[:-1], ring[1:]
    upright = start[:, 0] == end[:, 0]
    x, low, high = start[upright, 0], np.minimum(start, end)[upright, 1], np.maximum(start, end)[upright, 1]
    # The middle of a pixel never lies on an edge, since edges run along pixel corners.
    y, column = pixels[:, :1] + 0.5, pixels[:, 1:]
    return np.asarray(((low < y) & (y < high) & (x <= column)).sum(1) % 2 == 1)


def without_specks(found: Iterator[Outline], ruler: Ruler, least: float) -> Iterator[Outline]:
    """Yield the outlines whose area is at least `least`, in the squared unit of `ruler`."""
    while some := list(islice(found, BATCH)):
        areas = ruler.measure([one.rings for one in some])[0]
        yield from (one for one, area in zip(some, areas, strict=True) if area >= least)


def closed(group: Iterator[Outline], ruler: Ruler, contents: Contents, limit: float, least: float) -> Iterator[Outline]:
    """Yield the outlines of a group without holes of an area up to `limit`, and without regions smaller than `least`.

    A hole stays if it holds nodata or a region that is kept. Regions in a hole must be in this group or an earlier one.
    The group is read from the smallest region to the largest, so that the regions in a hole are judged before it.
    """
    found = list(group)
    areas, kept = _ring_areas(found, ruler), {}
    # A region in a hole has a smaller bounding box than the region around it.
    for k in np.argsort(_box_areas(found), kind="stable").tolist():
        one, own = found[k], areas[k]
        if len(one.rings) > 1:
            # The outer ring stays, and holes that are closed are filled.
            open_ = [0, *(n for n in range(1, len(own)) if own[n] > limit or contents.inside(one.rings[n]))]
            one, own = replace(one, rings=[one.rings[n] for n in open_]), own[open_]
        if least and own[0] - own[1:].sum() < least:
            continue
        contents.keep(one)
        kept[k] = one
    # The order in which outlines are traced gives features their numbers, so it is restored.
    yield from (kept[k] for k in sorted(kept))


def _box_areas(found: Sequence[Outline]) -> Floats:
    """Return the area of the bounding box of each outline in pixels."""
    if not found:
        return np.zeros(0)
    corners = np.concatenate([one.rings[0] for one in found])
    starts = np.cumsum([0, *(len(one.rings[0]) for one in found[:-1])])
    boxes: Floats = np.maximum.reduceat(corners, starts) - np.minimum.reduceat(corners, starts)
    return boxes[:, 0] * boxes[:, 1]


def _ring_areas(found: Sequence[Outline], ruler: Ruler) -> list[Floats]:
    """Return the area of each ring of each outline. Many are measured together, because a call of PROJ is slow."""
    areas: list[Floats] = []
    for start in range(0, len(found), BATCH):
        some = found[start : start + BATCH]
        measured = ruler.measure([[ring] for one in some for ring in one.rings])[0]
        areas += np.split(measured, np.cumsum([len(one.rings) for one in some])[:-1])
    return areas
