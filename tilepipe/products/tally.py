"""Tally: a label map is counted while a product reads it, so that no pixel is read twice for the counts.

Sums are whole numbers: they do not depend on the boxes in which the map is read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tilepipe.arrays import Labels
from tilepipe.box import Box
from tilepipe.products.components import ComponentSweep
from tilepipe.products.label_map import LabelMap
from tilepipe.products.numbers import M2_PER_KM2, ClassNumbers, Numbers
from tilepipe.sources.geo_area import ground_area

SIDE = 1024
"""Side in pixels of the boxes that are read for the tally alone."""
SIZES = 64
"""Number of sizes that objects are counted by; each is twice as large as the one before."""


class Tally:
    """Counts the pixels and the objects of each class, and measures the ground that the pixels cover."""

    def __init__(self, labels: LabelMap, tissue: float | None = None) -> None:
        """Begin to count `labels`; `tissue` is the area of tissue in mm2, if a tissue mask was used."""
        self._labels, self._tissue = labels, tissue
        self._ground = ground_area(labels.georeference, *labels.shape)
        self._sweep = ComponentSweep(labels)
        classes = len(labels.legend.classes)
        self._pixels, self._sizes = np.zeros(classes, np.int64), np.zeros((classes, SIZES), np.int64)
        self._areas = [0] * classes
        # Class and pixels of each part of an object that is not whole yet.
        self._parts: dict[int, tuple[int, int]] = {}
        self._y = self._x = self._bottom = 0

    def watched(self) -> LabelMap:
        """Return the same label map; pixels that are read in the order of the sweep are counted at the same time."""
        return replace(self._labels, read=self._watching(self._labels.read))

    def numbers(self) -> Numbers:
        """Return the numbers; pixels that have not been read yet are read now."""
        height, width = self._labels.shape
        while self._y < height:
            # If a product has read a part of a row of boxes, the rest of this row must have the same height.
            bottom = self._bottom if self._x else min(self._y + SIDE, height)
            box = Box(self._y, self._x, bottom, min(self._x + SIDE, width))
            self._add(box, self._labels.read(box))
        labelled = int(self._pixels.sum())
        areas, unit = self._measured()
        whole = self._tissue if self._tissue is not None else sum(areas) if unit else None
        if whole is not None and unit == "m2":
            whole /= M2_PER_KM2
        background = self._labels.legend.background
        objects = self._sizes.sum(1).tolist()
        rows = [
            ClassNumbers(
                value=value,
                name=name,
                pixels=int(pixels),
                share=pixels / labelled if labelled else 0.0,
                area=areas[value] if unit else None,
                objects=None if value == background else objects[value],
                density=objects[value] / whole if whole and value != background else None,
                sizes=tuple(np.trim_zeros(self._sizes[value], "b").tolist()),
            )
            for value, (name, pixels) in enumerate(zip(self._labels.legend.classes, self._pixels.tolist(), strict=True))
        ]
        return Numbers(tuple(rows), height * width - labelled, unit, self._tissue)

    def _measured(self) -> tuple[list[float], Literal["m2", "mm2", ""]]:
        """Return the area of each class, and the unit; no unit if the size of a pixel is not known."""
        size = self._labels.resolution
        if self._ground is not None:
            return [parts * self._ground.unit for parts in self._areas], "m2"
        if size is None:
            return [0.0] * len(self._areas), ""
        slide = size.unit == "um"
        each = size.y * size.x / (1e6 if slide else 1)
        return [pixels * each for pixels in self._pixels.tolist()], "mm2" if slide else "m2"

    def _watching(self, read: Callable[[Box], Labels]) -> Callable[[Box], Labels]:
        def read_and_count(box: Box) -> Labels:
            pixels = read(box)
            # All boxes of a row must have one height for the sweep. What is read otherwise is left to `numbers`.
            if (box.y0, box.x0) == (self._y, self._x) and (self._x == 0 or box.y1 == self._bottom):
                self._add(box, pixels)
            return pixels

        return read_and_count

    def _add(self, box: Box, pixels: Labels) -> None:
        width = self._labels.shape[1]
        for band, found in self._sweep.add(box, pixels):
            self._measure(band, pixels[band.y0 - box.y0 : band.y1 - box.y0])
            counts = np.bincount(found.numbers.ravel(), minlength=len(found.classes))
            np.add.at(self._sizes, (found.classes[found.whole], _power(counts[found.whole])), 1)
            for number in np.flatnonzero(found.parts):
                self._parts[int(found.parts[number])] = int(found.classes[number]), int(counts[number])
        for parts in self._sweep.closed(box):
            found_parts = [self._parts.pop(part) for part in parts]
            self._sizes[found_parts[0][0], _power(np.array(sum(count for _, count in found_parts)))] += 1
        last = box.x1 == width
        self._y, self._x, self._bottom = (box.y1, 0, box.y1) if last else (box.y0, box.x1, box.y1)

    def _measure(self, box: Box, pixels: Labels) -> None:
        classes = len(self._pixels)
        counts = np.bincount(pixels.ravel(), minlength=classes)[:classes]
        self._pixels += counts
        if self._ground is not None:
            begins, areas = self._ground.cells(box)
            for value in np.flatnonzero(counts):
                # Without a type numpy adds bools as a logical or.
                there: NDArray[np.int64] = np.add.reduceat(pixels == value, begins, axis=1, dtype=np.int64)
                self._areas[value] += int((there * areas).sum())


def _power(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the largest k with 2**k <= count for each count of pixels."""
    return np.asarray(np.frexp(counts)[1] - 1, np.int64)
