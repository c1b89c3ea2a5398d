"""Outlines of a label map's regions are exact and whole: a region over any number of blocks is one outline.

The map is read block by block. Each block's regions are traced along pixel corners. Regions that touch a block border
wait until the row of blocks below is known, and are then put together (`joining`). Memory grows with a row of blocks
and with the largest region, not with the map.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Protocol

import numpy as np
import skimage
from numpy.typing import NDArray
from rasterio.features import shapes

from tilepipe.arrays import Labels
from tilepipe.box import Box
from tilepipe.products.joining import joined
from tilepipe.products.label_map import LabelMap
from tilepipe.products.outline import Certainty, Floats, Ints, Outline
from tilepipe.tiling.border_merge import Regions
from tilepipe.tiling.uncertainty import VOID

PART = 1024
"""Side in pixels of the square that is traced at once."""
BATCH = 512
"""Number of outlines that are marked together."""


class Watcher(Protocol):
    """Sees the blocks of the map as they are read, and marks outlines."""

    def see(self, box: Box, pixels: Labels, values: Ints) -> None:
        """Look at a block before it is traced; `values` are 0 outside of regions, else the class plus 1."""
        ...

    def marks(self, polygons: Sequence[Sequence[Floats]]) -> Sequence[Ints | None]:
        """Return the marks to keep with each polygon of the block; a polygon is a whole outline or a part of one."""
        ...


def outlines(labels: LabelMap, block: int = PART, layer: LabelMap | None = None) -> Iterator[Outline]:
    """Yield the 4-connected regions of each class, without nodata, and without a class 0 called 'background'.

    `layer` is a layer of uncertainty on the grid of the labels; its codes are summed up over each region.
    """
    yield from chain.from_iterable(groups(labels, block, layer))


def groups(
    labels: LabelMap, block: int = PART, layer: LabelMap | None = None, watcher: Watcher | None = None
) -> Iterator[Iterator[Outline]]:
    """Yield the outlines of `outlines` in groups, each of which must be consumed before the next.

    Regions inside a hole come in the same group as the region with the hole, or in an earlier group. `watcher` sees
    each block before the group of outlines in it.
    """
    (height, width), regions = labels.shape, Regions()
    waiting: dict[int, Outline] = {}
    front, front_labels = np.zeros(width, np.int64), np.zeros(width, np.int64)
    for y in range(0, height, block):
        below, below_labels = np.zeros(width, np.int64), np.zeros(width, np.int64)
        left, left_labels = np.zeros(0, np.int64), np.zeros(0, np.int64)
        for x in range(0, width, block):
            box = Box(y, x, min(y + block, height), min(x + block, width))
            found = _Block(labels, box, labels.read(box), layer.read(box) if layer else None)
            parts = np.zeros(box.shape, np.int64)
            # The caller consumes this before it asks for more, and by that `parts` is filled for the lines below.
            yield _alone(found, regions, parts, waiting, watcher)
            columns = slice(box.x0, box.x1)
            regions.join_across(front[columns], parts[0], front_labels[columns] == found.pixels[0])
            if len(left):
                regions.join_across(left, parts[:, 0], left_labels == found.pixels[:, 0])
            below[columns], below_labels[columns] = parts[-1], found.pixels[-1]
            left, left_labels = parts[:, -1], found.pixels[:, -1].astype(np.int64)
        front, front_labels = below, below_labels
        closed = regions.closed(front if y + block < height else np.zeros(0, np.int64))
        yield (joined([waiting.pop(number) for number in numbers], block) for numbers in closed)


@dataclass(frozen=True)
class _Block:
    """A block of the map as it was read."""

    labels: LabelMap
    box: Box
    pixels: Labels
    codes: Labels | None
    """Codes of the layer, if there is one."""

    @property
    def values(self) -> Ints:
        """Value of each pixel: 0 outside of regions, else the class plus 1."""
        legend, pixels = self.labels.legend, self.pixels
        wanted = pixels != legend.nodata
        if legend.classes[0].lower() == "background":
            wanted &= pixels != 0
        return np.where(wanted, pixels.astype(np.int64) + 1, 0)

    def at_borders(self, found: NDArray[np.int32]) -> Iterator[NDArray[np.int32]]:
        """Yield the first and last rows and columns of `found` that touch other blocks."""
        box, (height, width) = self.box, self.labels.shape
        inner = box.y0 > 0, box.y1 < height, box.x0 > 0, box.x1 < width
        lines = found[0], found[-1], found[:, 0], found[:, -1]
        yield from (line for line, touches in zip(lines, inner, strict=True) if touches)


def _alone(
    block: _Block, regions: Regions, parts: Ints, waiting: dict[int, Outline], watcher: Watcher | None
) -> Iterator[Outline]:
    """Yield the outlines that do not leave a block; the others begin to wait in `waiting`, by the number of their part.

    `parts` takes these numbers, pixel by pixel, and 0 elsewhere.
    """
    values = block.values
    if watcher is not None:
        watcher.see(block.box, block.pixels, values)
    if not values.any():
        return
    # rasterio's `shapes` takes whole numbers of at most 32 bits.
    found = skimage.measure.label(values, background=0, connectivity=1).astype(np.int32)
    class_of = np.zeros(int(found.max()) + 1, np.int64)
    class_of[found] = block.pixels
    number_of = np.zeros(len(class_of), np.int64)
    # A map of one block has no inner edge, and numpy cannot concatenate an empty list, so a 0 stands first.
    touching = np.unique(np.concatenate([np.zeros(1, np.int32), *block.at_borders(found)]))
    for k in touching[touching > 0]:
        number_of[k] = regions.add()
    parts[:] = number_of[found]
    certain = _certainties(found, block.codes, len(class_of)) if block.codes is not None else None
    traced = shapes(found, mask=values > 0, connectivity=4)
    while some := list(islice(traced, BATCH)):
        polygons = [[np.add(ring, (block.box.x0, block.box.y0)) for ring in shape["coordinates"]] for shape, _ in some]
        marks = watcher.marks(polygons) if watcher is not None else [None] * len(some)
        for n, rings, mark in zip([int(k) for _, k in some], polygons, marks, strict=True):
            outline = Outline(int(class_of[n]), rings, certain[n] if certain else None, mark)
            if number_of[n]:
                waiting[int(number_of[n])] = outline
            else:
                yield outline


def _certainties(found: NDArray[np.int32], codes: Labels, count: int) -> list[Certainty]:
    """Return the values of a layer over each of `count` regions, by number."""
    known = codes != VOID
    numbers, values = found[known], codes[known].astype(np.int64)
    least = np.full(count, VOID)
    np.minimum.at(least, numbers, values)
    totals = np.bincount(numbers, values, count).astype(np.int64)  # whole numbers below 2**53 are exact
    counts = np.bincount(numbers, minlength=count)
    return [Certainty(*of) for of in zip(totals.tolist(), counts.tolist(), least.tolist(), strict=True)]
