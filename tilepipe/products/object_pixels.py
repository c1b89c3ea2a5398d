"""Means of the image and of the layers over an object's pixels are computed tile by tile."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from tilepipe.arrays import Array
from tilepipe.box import Box
from tilepipe.products.label_map import LabelMap
from tilepipe.products.object_shape import Rings, mask_of
from tilepipe.sources.base import Source
from tilepipe.sources.resample import Resampled

TILE = 1024
"""Side in pixels of the tile that is read at once."""
KEPT = 48 << 20
"""Size in bytes of the tiles that are kept; at least two tiles are kept."""

Read = Callable[[Box], Array]


class Means:
    """Means of values (bands, height, width) over objects.

    Tiles lie on a grid that is fixed to the map, and sums are taken tile by tile, so that a mean depends on the object
    and the values alone.
    """

    def __init__(self, read: Read, shape: tuple[int, int]) -> None:
        """Keep `read`, which returns the values of a box; `shape` is (height, width) of the map."""
        self._read, self._map = read, Box.of_shape(*shape)
        self._tiles: OrderedDict[Box, Array] = OrderedDict()

    def of(self, rings: Rings, box: Box) -> list[float | None]:
        """Return the mean of each band over an object inside `box`; None if no value in the object is a number."""
        total: NDArray[np.float64] | float = 0.0
        count: NDArray[np.int64] | int = 0
        for tile in _tiles_over(box, self._map):
            part = tile & box
            assert part is not None
            mask = mask_of(rings, part)
            if mask.any():
                values = self._tile(tile)[:, *part.slices_in(tile)][:, mask].astype(np.float64)
                known = np.isfinite(values)
                total = total + np.where(known, values, 0).sum(1)
                count = count + known.sum(1)
        counts = np.atleast_1d(count).tolist()
        return [of / n if n else None for of, n in zip(np.atleast_1d(total).tolist(), counts, strict=True)]

    def _tile(self, tile: Box) -> Array:
        if tile in self._tiles:
            # Objects come block by block, so the tiles that were read last are the ones that are needed again.
            self._tiles.move_to_end(tile)
            return self._tiles[tile]
        values = self._tiles[tile] = self._read(tile)
        while len(self._tiles) > max(2, KEPT // max(values.nbytes, 1)):
            self._tiles.popitem(last=False)
        return values


def _tiles_over(box: Box, area: Box) -> Iterator[Box]:
    for y in range(box.y0 // TILE * TILE, box.y1, TILE):
        for x in range(box.x0 // TILE * TILE, box.x1, TILE):
            yield Box(y, x, min(y + TILE, area.y1), min(x + TILE, area.x1))


def image_means(image: Source, labels: LabelMap) -> Means:
    """Return the means of an image's bands over objects; if labels are on a coarser grid, the image is resampled."""
    height, width = (round(n / scale) for n, scale in zip(image.shape[1:], labels.scale, strict=True))
    on_grid = image if labels.scale == (1.0, 1.0) else Resampled(image, max(1, height), max(1, width))
    y, x = (round(start / scale) for start, scale in zip(labels.origin, labels.scale, strict=True))
    return Means(lambda box: on_grid.read(box.shift(y, x)), labels.shape)


def layer_means(layer: LabelMap) -> Means:
    """Return the means of an uncertainty layer over objects, from 0 to 1."""
    assert layer.legend.measure is not None
    step, nodata = layer.legend.measure.step, layer.legend.nodata

    def read(box: Box) -> Array:
        codes = layer.read(box)
        # `Means` leaves out what is no number.
        return np.where(codes == nodata, np.nan, codes * step)[None]

    return Means(read, layer.shape)
