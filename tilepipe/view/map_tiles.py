"""Tiles of a label map or of an uncertainty layer: values on the screen's grid, which the page colours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tilepipe.arrays import Labels
from tilepipe.box import Box
from tilepipe.products.label_map import LabelMap
from tilepipe.view.screen import TILE, Screen
from tilepipe.view.small_map import SmallMap

SIDE = TILE + 2
"""Side of a tile with one more value on each side, by which the page finds outlines [values]."""


class MapTiles:
    """A map in tiles of the screen. `tile` may be called from several threads."""

    def __init__(self, levels: Sequence[LabelMap], shape: tuple[int, int], small: SmallMap | None = None) -> None:
        """Take a map and its smaller versions; `shape` is the (height, width) of the image at full resolution.

        `small` is a smaller version that somebody fills.
        """
        self.levels, self.small = list(levels), small
        self.screen = Screen(shape)
        if small is not None:
            self.levels = [level for level in self.levels if level.shape[0] > small.map.shape[0]] + [small.map]

    @property
    def map(self) -> LabelMap:
        """The map at full resolution."""
        return self.levels[0]

    def tile(self, level: int, row: int, column: int) -> bytes | None:
        """Return the values of a tile and of one more pixel on each side, (SIDE, SIDE) little-endian; None if there is
        no such tile or it holds nodata alone.

        Raises `InputError` if the map cannot be read.
        """
        values = self.values(level, row, column)
        if values is None or (values == self.map.legend.nodata).all():
            return None
        return values.astype(values.dtype.newbyteorder("<")).tobytes()

    def values(self, level: int, row: int, column: int) -> Labels | None:
        """Return the values of a tile and of one more pixel on each side, (SIDE, SIDE); None if there is no such tile.

        A pixel takes the value under its centre. Raises `InputError` if the map cannot be read.
        """
        if self.screen.box(level, row, column) is None:
            return None
        rows, columns = (np.arange(k * TILE - 1, (k + 1) * TILE + 1) for k in (row, column))
        # Centres in full-resolution pixels: a half of the screen's pixel, which is no fraction but at level 0.
        return self.under((rows + 0.5) * 2.0**level, (columns + 0.5) * 2.0**level, 2.0**level)

    def at(self, y: int, x: int) -> int:
        """Return the value at an image pixel, at full resolution; nodata outside the map."""
        return int(self.under(np.array([y + 0.5]), np.array([x + 0.5]), 0.0)[0, 0])

    def under(self, ys: NDArray[np.floating], xs: NDArray[np.floating], pixel: float) -> Labels:
        """Return the values under positions in full-resolution pixels, (len(ys), len(xs)); nodata outside the map.

        The smallest version is read whose pixels are no larger than `pixel` full-resolution pixels.
        """
        fit = [level for level in self.levels if max(level.scale) <= pixel * (1 + 1e-9)]
        found = fit[-1] if fit else self.map
        rows = np.floor((ys - found.origin[0]) / found.scale[0]).astype(np.int64)
        columns = np.floor((xs - found.origin[1]) / found.scale[1]).astype(np.int64)
        values = np.full((len(rows), len(columns)), found.legend.nodata, found.dtype)
        # Positions grow, so those inside the map are one run of them.
        (y0, y1), (x0, x1) = np.searchsorted(rows, (0, found.shape[0])), np.searchsorted(columns, (0, found.shape[1]))
        if y0 < y1 and x0 < x1:
            rows, columns = rows[y0:y1], columns[x0:x1]
            box = Box(rows[0], columns[0], rows[-1] + 1, columns[-1] + 1)
            values[y0:y1, x0:x1] = found.read(box).take(rows - box.y0, axis=0).take(columns - box.x0, axis=1)
        return values
