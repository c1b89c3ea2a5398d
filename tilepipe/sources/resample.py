"""Resampled: a source at another resolution, by area average when shrinking and bilinearly when enlarging.

Every output pixel depends only on its position in the image. Weights are exact integers per axis, applied in a fixed
order. So two boxes agree on every pixel they share, and a constant image stays constant.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tilepipe.arrays import DType, Pixels
from tilepipe.box import Box
from tilepipe.errors import InputError, UsageError
from tilepipe.sources.base import Georeference, Resolution, Source, read_reflected
from tilepipe.sources.georeference import moved_rpcs
from tilepipe.sources.taps import Taps, apply, averages, taps
from tilepipe.text import JSON

PIECE_VALUES = 4 << 20
"""Largest number of source values (pixels x bands) that are resampled at once; larger boxes are done in pieces."""


class Resampled:
    """`source` resampled to `height` x `width` pixels that cover the same ground.

    Each axis has one exact scale, source size / output size. Averages take valid pixels only, and a pixel is valid if
    it covers a valid pixel. A pixel that covers no valid pixel is the average of the values that the file holds there.
    Integers are rounded half up. Raises `UsageError` for a size below 1 x 1.
    """

    def __init__(self, source: Source, height: int, width: int) -> None:
        if min(height, width) < 1:
            raise UsageError(f"{source.name} cannot be resampled to {height} x {width} pixels; the least is 1 x 1")
        self.source = source
        # A level of the pyramid is used if there is one: averaging full resolution may decode a thousand times as many
        # pixels.
        self._base = source.coarser(height, width)
        self._size = (height, width)

    @property
    def name(self) -> str:
        """Name of the source."""
        return self.source.name

    @property
    def shape(self) -> tuple[int, int, int]:
        """(bands, height, width) after resampling."""
        return self.source.shape[0], *self._size

    @property
    def dtype(self) -> DType:
        """Type of the source's pixels."""
        return self.source.dtype

    @property
    def scale(self) -> tuple[float, float]:
        """Number (y, x) of pixels of the source per pixel."""
        _, height, width = self.source.shape
        return height / self._size[0], width / self._size[1]

    @property
    def resolution(self) -> Resolution | None:
        """Pixel size after resampling."""
        known = self.source.resolution
        return known and Resolution(known.y * self.scale[0], known.x * self.scale[1], known.unit)

    @property
    def georeference(self) -> Georeference | None:
        """Position on the earth, for the resampled pixels."""
        known = self.source.georeference
        if known is None:
            return None
        sy, sx = self.scale
        transform = None
        if known.transform is not None:
            a, b, c, d, e, f = known.transform
            transform = (a * sx, b * sy, c, d * sx, e * sy, f)
        gcps = tuple((row / sy, column / sx, x, y, z) for row, column, x, y, z in known.gcps)
        return Georeference(known.crs, transform, gcps, moved_rpcs(known.rpcs, (0.0, 0.0), self.scale))

    def read(self, box: Box) -> Pixels:
        """Return the resampled pixels of `box`, (bands, box.height, box.width), reflected outside the image."""
        if self._base.shape[1:] == self._size:
            return self._base.read(box)
        return read_reflected(box, *self._size, self._pixels)

    def valid(self, box: Box) -> NDArray[np.bool_] | None:
        """Return True where a pixel covers image data of the source, or lies in it; None if all pixels do."""
        if self._base.shape[1:] == self._size:
            return self._base.valid(box)
        result = np.zeros(box.shape, dtype=np.bool_)
        inside = box & Box.of_shape(*self._size)
        for piece in self._pieces(inside) if inside else ():
            hull, rows, columns = self._taps(piece)
            mask = self._base.valid(hull)
            seen = True if mask is None else apply(mask[None], self._covered(rows, 0), self._covered(columns, 1))[0] > 0
            result[piece.slices_in(box)] = seen
        return None if result.all() else result

    def _covered(self, of: Taps, axis: int) -> Taps:
        """Return the taps of an axis that pixels cover: all when shrinking, the one under the centre when enlarging."""
        if self._base.shape[1 + axis] >= self._size[axis]:
            return of
        upper = of.weight[:, 1] >= of.weight[:, 0]
        return Taps(of.index, np.stack([~upper, upper], axis=1).astype(np.float64))

    def coarser(self, height: int, width: int) -> Source:
        """Return this source."""
        return self

    @property
    def cache_bytes(self) -> int:
        """Memory that the source's reader keeps [bytes]."""
        return int(getattr(self._base, "cache_bytes", 0))

    @property
    def held_bytes(self) -> int:
        """Size of the part of the image that lies in the memory of each process [bytes]."""
        return int(getattr(self._base, "held_bytes", 0))

    def identity(self) -> JSON:
        """Return the source's identity and the size that the source is resampled to."""
        return {"reader": "resampled", "size": list(self._size), "of": self.source.identity()}

    def _pixels(self, box: Box) -> Pixels:
        result = np.empty((self.shape[0], *box.shape), dtype=self.dtype)
        for piece in self._pieces(box):
            hull, rows, columns = self._taps(piece)
            values = averages(self._base.read(hull), self._base.valid(hull), rows, columns)
            if self.dtype.kind != "f":
                # numpy's own rounding takes halves to the even number: 0.5 becomes 0, and 1.5 becomes 2.
                values = np.floor(values + 0.5)
            result[(slice(None), *piece.slices_in(box))] = values
        return result

    def _taps(self, box: Box) -> tuple[Box, Taps, Taps]:
        """Return the box of the base that `box` is made from, and the taps that index it."""
        _, height, width = self._base.shape
        rows = taps(box.y0, box.y1, self._size[0], height)
        columns = taps(box.x0, box.x1, self._size[1], width)
        y0, x0 = int(rows.index.min()), int(columns.index.min())
        hull = Box(y0, x0, int(rows.index.max()) + 1, int(columns.index.max()) + 1)
        return hull, Taps(rows.index - y0, rows.weight), Taps(columns.index - x0, columns.weight)

    def _pieces(self, box: Box) -> Iterator[Box]:
        """Yield boxes that cover `box`, each made from a bounded number of source values."""
        bands, height, width = self._base.shape
        sy, sx = max(1.0, height / self._size[0]), max(1.0, width / self._size[1])
        # A single pixel cannot be divided, however many pixels it is made of.
        if box.area == 1 or box.area * sy * sx * bands <= PIECE_VALUES:
            yield box
        elif box.height * sy >= box.width * sx and box.height > 1:
            middle = (box.y0 + box.y1) // 2
            yield from self._pieces(Box(box.y0, box.x0, middle, box.x1))
            yield from self._pieces(Box(middle, box.x0, box.y1, box.x1))
        else:
            middle = (box.x0 + box.x1) // 2
            yield from self._pieces(Box(box.y0, box.x0, box.y1, middle))
            yield from self._pieces(Box(box.y0, middle, box.y1, box.x1))


def at_resolution(source: Source, resolution: float, unit: str, tolerance: float = 0.05) -> Source:
    """Return `source` with pixels of `resolution` `unit` ('m' or 'um').

    If the source or a level of its pyramid is within `tolerance` (a fraction) on both axes, the pixels of the source or
    level are used. Raises `InputError` if the source does not say its pixel size, or says it in the other unit.
    """
    known = source.resolution
    if known is None:
        raise InputError(
            f"{source.name} does not say how large its pixels are, and {resolution:g} {unit} per pixel are asked for; "
            "state it: open_source(path, resolution=0.3) in metres for rasters, open_source(path, mpp=0.25) for slides"
        )
    if known.unit != unit:
        raise InputError(
            f"{source.name} has pixels of {known}, and {resolution:g} {unit} per pixel are asked for; "
            "a model for one kind of image does not fit the other"
        )
    shape = fitting_shape(source, known, resolution, tolerance)
    return source if shape == source.shape[1:] else Resampled(source, *shape)


def fitting_shape(source: Source, known: Resolution, wanted: float, tolerance: float = 0.05) -> tuple[int, int]:
    """Return (height, width) of `source`, whose pixels are `known`, at pixels of `wanted`, in the same unit.

    If the source or a level of its pyramid is within `tolerance` (a fraction) on both axes, its size is returned.
    """
    ratio_y, ratio_x = known.y / wanted, known.x / wanted
    if abs(ratio_y - 1) <= tolerance and abs(ratio_x - 1) <= tolerance:
        return source.shape[1], source.shape[2]
    height = max(1, math.floor(source.shape[1] * ratio_y + 0.5))
    width = max(1, math.floor(source.shape[2] * ratio_x + 0.5))
    # A level that is a little smaller than what is asked for is within the tolerance too.
    level = source.coarser(math.ceil(height / (1 + tolerance)), math.ceil(width / (1 + tolerance)))
    if abs(level.shape[1] / height - 1) <= tolerance and abs(level.shape[2] / width - 1) <= tolerance:
        return level.shape[1], level.shape[2]
    return height, width
