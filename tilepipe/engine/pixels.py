"""Pixels of a job's image as the model sees them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.sources.base import Source, read_reflected

SMALLEST = 64 * 64
"""Pixels below which a part whose validity cannot be read is not divided any more."""


class Pixels:
    """The image on the prediction grid, with the model's mean where it holds no data. Safe under threads."""

    def __init__(self, source: Source, mean: tuple[float, ...]) -> None:
        """`mean` is per band, in the source's own units."""
        self.source = source
        self._fill = _fill(mean, source.dtype)

    def read(self, box: Box) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return (bands, height, width), mirrored beyond the image, and where that is data. Raises `InputError`."""
        pixels = self.source.read(box)
        valid = self.seen(box)
        if pixels.dtype.kind == "f":  # also where a mask says so, a model has no use for what is no number
            valid = valid & np.isfinite(pixels).all(axis=0)
        if not valid.all():
            pixels = np.where(valid, pixels, self._fill[:, None, None])
        return pixels, valid

    def seen(self, box: Box) -> NDArray[np.bool_]:
        """Return where `box`, mirrored beyond the image, holds image data."""
        return np.asarray(read_reflected(box, *self.source.shape[1:], self.valid))

    def valid(self, box: Box) -> NDArray[np.bool_]:
        """Return where `box`, inside the image, holds image data; True also where that cannot be read."""
        try:
            valid = self.source.valid(box)
        except InputError:  # look closer: only the tiles that cannot be read are to fail
            valid = np.ones(box.shape, bool)
            if box.area > SMALLEST:
                for part in _quarters(box):
                    valid[part.slices_in(box)] = self.valid(part)
        return np.ones(box.shape, bool) if valid is None else valid


def _fill(mean: tuple[float, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return per band what stands for pixels without image data: the model's mean, as far as the dtype holds it."""
    if dtype.kind == "f":
        return np.array(mean, dtype)
    return np.asarray(np.clip(np.round(mean), np.iinfo(dtype).min, np.iinfo(dtype).max), dtype)


def _quarters(box: Box) -> list[Box]:
    """Return up to four parts of a box of at least two pixels."""
    y, x = (box.y0 + box.y1) // 2, (box.x0 + box.x1) // 2
    rows = [(a, b) for a, b in ((box.y0, y), (y, box.y1)) if a < b]
    columns = [(a, b) for a, b in ((box.x0, x), (x, box.x1)) if a < b]
    return [Box(y0, x0, y1, x1) for y0, y1 in rows for x0, x1 in columns]
