"""Blend: makes labels of the tiles' results, in pure numpy.

`CropCanvas` is for crop windows: one tile decides each pixel. `CropLayerCanvas` also keeps how sure that tile was.
`BlendCanvas` is for blended windows: it keeps exact weighted sums of probabilities in int64. A probability has 24 bits,
and the windows of both axes have 12 bits each, so nothing is rounded and the order of additions cannot matter. Sums
beyond a block's zone are strips for the block's later neighbours.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tilepipe.arrays import Array, DType, Labels
from tilepipe.box import Box
from tilepipe.tiling.grid import Grid, Index
from tilepipe.tiling.uncertainty import INFORMATION, PROBABILITY, VOID, Planes, codes, further_planes, squares
from tilepipe.tiling.weights import weights

# All tiles together add at most 2**48 to the sum of a class, so one failure outweighs them. Two thousand failures at
# one pixel still fit int64.
FAILED = -(1 << 52)
"""Number that is added to the sums of a tile that could not be read.

The sums then stay below 0, whatever else is added, and their pixels become nodata.
"""

SIDES = {"right": (0, 1), "below": (1, 0), "corner": (1, 1)}
"""Strips of a block, with the (rows, columns) of blocks to the later neighbour that needs the strip."""


class Canvas(Protocol):
    """An area in which the results of tiles become labels."""

    area: Box

    def add(self, tile: Index, values: Array, seen: Box) -> None:
        """Add a tile's result at the pixels of `seen`: all that the tile sees, or a band of its rows."""

    def fail(self, tile: Index) -> None:
        """Mark a tile that could not be computed; its pixels become nodata."""

    def labels(self, box: Box) -> Labels:
        """Return the labels of `box`, (box.height, box.width)."""

    def layer(self, name: str, box: Box) -> NDArray[np.uint8]:
        """Return the codes of an uncertainty layer at `box`; they have no meaning where the labels are nodata."""


class CropCanvas:
    """Labels over `area`; each pixel is nodata until the tile that keeps it is added."""

    def __init__(self, grid: Grid, area: Box, dtype: str, nodata: int) -> None:
        """Start with nodata."""
        self.grid = grid
        self.area = area
        self.nodata = nodata
        self.values = np.full(area.shape, nodata, dtype)

    def add(self, tile: Index, values: Array, seen: Box) -> None:
        """Keep a tile's labels at `seen`, (seen.height, seen.width)."""
        if (part := self._kept(tile, seen)) is not None:
            self.values[part.slices_in(self.area)] = values[part.slices_in(seen)]

    def _kept(self, tile: Index, seen: Box) -> Box | None:
        """Return the pixels of `seen` that a tile decides here."""
        part = self.grid.kept_box(tile) & self.area
        return part and part & seen

    def make_nodata(self, box: Box, where: NDArray[np.bool_]) -> None:
        """Make pixels of `box` nodata, `where` (box.height, box.width) is True."""
        if (part := box & self.area) is not None:
            self.values[part.slices_in(self.area)][where[part.slices_in(box)]] = self.nodata

    def fail(self, tile: Index) -> None:
        """Leave the pixels of a tile that could not be computed nodata."""

    def labels(self, box: Box) -> Labels:
        """Return the labels of `box`."""
        return np.asarray(self.values[box.slices_in(self.area)])

    def layer(self, name: str, box: Box) -> NDArray[np.uint8]:
        """Return nodata: labels alone do not say how sure the model is."""
        return np.full(box.shape, VOID, np.uint8)


class CropLayerCanvas(CropCanvas):
    """Labels and uncertainty layers over `area`; each pixel comes from the probabilities of the tile that keeps it."""

    def __init__(
        self, grid: Grid, area: Box, classes: int, *, dtype: str, nodata: int, layers: tuple[str, ...]
    ) -> None:
        """Start with nodata."""
        super().__init__(grid, area, dtype, nodata)
        self.classes = classes
        self.codes = {name: np.full(area.shape, VOID, np.uint8) for name in layers}

    def add(self, tile: Index, values: NDArray[np.int32], seen: Box) -> None:
        """Keep labels and codes from a tile's probabilities times 2**24 at `seen`, (classes, seen.height, seen.width).

        The mutual information of the answers, if there is one, is the plane after the classes.
        """
        if (part := self._kept(tile, seen)) is None:
            return
        rows, columns = part.slices_in(seen)
        target, cut = part.slices_in(self.area), values[:, rows, columns]
        self.values[target] = _argmax(cut[: self.classes], self.values.dtype)[0]
        for name, found in self.codes.items():
            found[target] = codes(name, cut if name == INFORMATION else cut[: self.classes], PROBABILITY)

    def layer(self, name: str, box: Box) -> NDArray[np.uint8]:
        """Return the codes of a layer at `box`."""
        return np.asarray(self.codes[name][box.slices_in(self.area)])


class ScoreCanvas(CropCanvas):
    """Scores (classes, height, width) over `area`; each pixel is NaN until the tile that keeps it is added."""

    def __init__(self, grid: Grid, area: Box, classes: int, dtype: str) -> None:
        """Start with NaN."""
        super().__init__(grid, area, "uint8", VOID)
        self.scores = np.full((classes, *area.shape), np.nan, dtype)

    def add(self, tile: Index, values: Array, seen: Box) -> None:
        """Keep a tile's scores at `seen`, (classes, seen.height, seen.width)."""
        if (part := self._kept(tile, seen)) is not None:
            self.scores[:, *part.slices_in(self.area)] = values[:, *part.slices_in(seen)]

    def make_nodata(self, box: Box, where: NDArray[np.bool_]) -> None:
        """Make scores of pixels of `box` NaN, `where` (box.height, box.width) is True."""
        if (part := box & self.area) is not None:
            self.scores[:, *part.slices_in(self.area)][:, where[part.slices_in(box)]] = np.nan


class BlendCanvas:
    """Weighted sums of probabilities over `area`, (classes, area.height, area.width) int64.

    The layer 'mutual-information' needs one plane more, which comes with the tiles, and 'disagreement' another one, the
    last: the weighted sums of the tiles' squares.
    """

    def __init__(
        self, grid: Grid, area: Box, window: str, *, classes: int, dtype: str = "uint8", layers: tuple[str, ...] = ()
    ) -> None:
        """Start at zero."""
        self.grid = grid
        self.area = area
        self.window = window
        self.classes = classes
        self.dtype, self.nodata = dtype, np.iinfo(dtype).max
        self.values = np.zeros((classes + further_planes(layers), *area.shape), np.int64)

    def add(self, tile: Index, values: NDArray[np.int32], seen: Box) -> None:
        """Add a tile's probabilities times 2**24 at `seen`, (classes, seen.height, seen.width), weighted by its window.

        The mutual information of the answers, if there is one, is the plane after the classes.
        """
        if (part := seen & self.area) is None:
            return
        rows, columns = part.slices_in(self.grid.tile_box(tile))
        wy = weights(self.grid.y, tile.row, self.window)[rows, None]
        weight = wy * weights(self.grid.x, tile.column, self.window)[None, columns]
        rows, columns = part.slices_in(seen)
        target = self.at(part)
        # The product is int64. Taken of all classes at once, it would be a second array as large as the sums of the
        # tile.
        for k, probability in enumerate(values[:, rows, columns]):
            target[k] += probability * weight
        if len(target) > len(values):
            target[-1] += squares(values[: self.classes, rows, columns]) * weight

    def fail(self, tile: Index) -> None:
        """Mark the pixels that a tile weighs in on; they become nodata."""
        part = self.grid.tile_box(tile) & self.area
        if part is not None:
            self.at(part)[:] += FAILED

    def at(self, box: Box) -> NDArray[np.int64]:
        """Return a view of the sums at `box`, (classes, box.height, box.width)."""
        values: NDArray[np.int64] = self.values[:, *box.slices_in(self.area)]
        return values

    def labels(self, box: Box) -> Labels:
        """Return the class with the largest sum at `box`, the lowest of equal ones; nodata where a tile failed."""
        labels, largest = _argmax(self.at(box)[: self.classes], self.dtype)
        labels[largest < 0] = self.nodata
        return labels

    def layer(self, name: str, box: Box) -> NDArray[np.uint8]:
        """Return the codes of a layer at `box`."""
        sums = self.at(box)
        planes = sums[: self.classes + (name == INFORMATION)]
        # The last plane holds squares only if 'disagreement' is asked for; no other layer looks at it.
        return codes(name, planes, 2 * PROBABILITY, sums[-1])


def _argmax(planes: Planes, dtype: str | DType) -> tuple[Labels, Planes]:
    """Return the index of the largest of (classes, height, width), the lowest of equal ones, and the largest value."""
    first, *others = planes
    largest = first.copy()
    labels: Labels = np.zeros(first.shape, dtype)
    for k, plane in enumerate(others, start=1):  # class by class: argmax over the first axis copies all planes
        larger = plane > largest
        labels[larger] = k
        np.copyto(largest, plane, where=larger)
    return labels, largest


def strip_boxes(zone: Box, reach: int, shape: tuple[int, int]) -> dict[str, Box]:
    """Return the boxes by side in which a block's sums go beyond its zone by `reach` pixels, without empty boxes."""
    y1, x1 = min(zone.y1 + reach, shape[0]), min(zone.x1 + reach, shape[1])
    spans = {"right": (zone.y0, zone.x1, zone.y1, x1), "below": (zone.y1, zone.x0, y1, zone.x1)}
    spans["corner"] = (zone.y1, zone.x1, y1, x1)
    return {side: Box(*span) for side, span in spans.items() if span[0] < span[2] and span[1] < span[3]}
