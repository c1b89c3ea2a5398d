"""Components of a label map are found box by box: 4-connected pixels of one class, whole over any number of boxes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import skimage
from numpy.typing import NDArray

from tilepipe.arrays import Labels
from tilepipe.box import Box
from tilepipe.products.label_map import LabelMap
from tilepipe.tiling.border_merge import Regions

BAND = 1 << 20
"""Number of pixels whose components are found at once; so the memory does not depend on the size of boxes."""


@dataclass(frozen=True, eq=False)
class Parts:
    """Components inside one box, numbered from 1 in the order of their first pixels.

    Components that touch another box are parts, which other boxes may continue.
    """

    numbers: NDArray[np.int32]
    """Number of each pixel's component, (height, width); 0 for nodata and background, which have no component."""
    classes: NDArray[np.int64]
    """Class of each component by number, (n + 1,); the entry of number 0 means nothing."""
    parts: NDArray[np.int64]
    """Name of each part in the sweep, by number, (n + 1,); 0 for a component that is whole."""

    @property
    def whole(self) -> NDArray[np.int64]:
        """Numbers of the components that are whole."""
        return np.flatnonzero(self.parts[1:] == 0) + 1


@dataclass(frozen=True, eq=False)
class _Line:
    """A line of pixels along a border: the part of each pixel (0 for no part) and its class, both (n,)."""

    parts: NDArray[np.int64]
    classes: NDArray[np.int64]

    @classmethod
    def nothing(cls, length: int) -> _Line:
        return cls(np.zeros(length, np.int64), np.zeros(length, np.int64))

    @classmethod
    def of(cls, found: Parts, numbers: NDArray[np.int32]) -> _Line:
        return cls(found.parts[numbers], found.classes[numbers])

    def __getitem__(self, some: slice) -> _Line:
        return _Line(self.parts[some], self.classes[some])

    def __setitem__(self, some: slice, line: _Line) -> None:
        self.parts[some], self.classes[some] = line.parts, line.classes


class ComponentSweep:
    """Components of a map whose boxes go by row by row, from left to right; memory follows one row of boxes."""

    def __init__(self, labels: LabelMap) -> None:
        """Begin at the first row of `labels`; the caller gives its pixels to `add`."""
        self._labels, self._regions = labels, Regions()
        self._above = _Line.nothing(labels.shape[1])
        self._left = _Line.nothing(0)

    def add(self, box: Box, pixels: Labels) -> Iterator[tuple[Box, Parts]]:
        """Yield the components of the next box, in bands of rows with at most `BAND` pixels, or one row.

        `pixels` are the labels of the box. All boxes of a row of boxes have one height.
        """
        left = self._left if box.x0 else _Line.nothing(box.height)
        self._left = _Line.nothing(box.height)
        rows = max(BAND // box.width, 1)
        for y in range(0, box.height, rows):
            band = Box(box.y0 + y, box.x0, min(box.y0 + y + rows, box.y1), box.x1)
            found = self._found(pixels[y : y + rows])
            self._name_parts(band, found)
            columns, here = slice(band.x0, band.x1), slice(y, y + band.height)
            for near, far in (
                (self._above[columns], _Line.of(found, found.numbers[0])),
                (left[here], _Line.of(found, found.numbers[:, 0])),
            ):
                self._regions.join_across(near.parts, far.parts, near.classes == far.classes)
            self._above[columns] = _Line.of(found, found.numbers[-1])
            self._left[here] = _Line.of(found, found.numbers[:, -1])
            yield band, found

    def _name_parts(self, band: Box, found: Parts) -> None:
        height, width = self._labels.shape
        edges = (
            (band.y0 > 0, found.numbers[0]), (band.y1 < height, found.numbers[-1]),
            (band.x0 > 0, found.numbers[:, 0]), (band.x1 < width, found.numbers[:, -1]),
        )  # fmt: skip
        # A map of one box has no inner edge, and numpy cannot concatenate an empty list, so a 0 stands first.
        touching = np.unique(np.concatenate([np.zeros(1, np.int32), *(line for inner, line in edges if inner)]))
        for number in touching[touching > 0]:
            found.parts[number] = self._regions.add()

    def closed(self, box: Box) -> list[list[int]]:
        """Return the components, as lists of their parts, that boxes after `box` cannot continue; else an empty list.

        Call this after each box. Components come at the end of a row of boxes, in the order of their first parts.
        """
        height, width = self._labels.shape
        if box.x1 < width:
            return []
        # Below the last row of boxes nothing can continue a component.
        return self._regions.closed(self._above.parts if box.y1 < height else np.zeros(0, np.int64))

    def _found(self, pixels: Labels) -> Parts:
        legend = self._labels.legend
        wanted = pixels != legend.nodata
        if legend.background is not None:
            wanted &= pixels != legend.background
        if not wanted.any():
            return Parts(np.zeros(pixels.shape, np.int32), np.zeros(1, np.int64), np.zeros(1, np.int64))
        # Class 0 may be an object, so all classes move up by one and 0 means no object.
        values = np.where(wanted, pixels.astype(np.int32) + 1, 0)
        numbers = skimage.measure.label(values, background=0, connectivity=1).astype(np.int32)
        classes = np.zeros(int(numbers.max()) + 1, np.int64)
        classes[numbers] = pixels
        return Parts(numbers, classes, np.zeros(len(classes), np.int64))
