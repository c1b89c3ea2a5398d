"""The image of a job as the model sees it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tilepipe.arrays import DType, Pixels
from tilepipe.box import Box
from tilepipe.sources.base import Source, all_finite, read_reflected
from tilepipe.sources.mask import readable


class FilledImage:
    """The image on the prediction grid, with the model's mean where it holds no data. Safe under threads."""

    def __init__(self, source: Source, mean: tuple[float, ...]) -> None:
        """`mean` is per band, in the source's own units."""
        self.source = source
        self._fill = _fill(mean, source.dtype)

    def read(self, box: Box) -> tuple[Pixels, NDArray[np.bool_]]:
        """Return (bands, height, width), mirrored beyond the image, and where that is data. Raises `InputError`."""
        pixels = self.source.read(box)
        # Mirrored like the pixels: a tile at the image's edge sees its own reflection there, holes included.
        valid = self.seen(box)
        if pixels.dtype.kind == "f":  # also where a mask says so, a model has no use for what is no number
            valid = valid & all_finite(pixels)
        if not valid.all():
            # Normalised, the mean is 0, which tells a convolution least. Black would be a dark object with an edge.
            # Training fills in the same way.
            pixels = np.where(valid, pixels, self._fill[:, None, None])
        return pixels, valid

    def seen(self, box: Box) -> NDArray[np.bool_]:
        """Return where `box`, mirrored beyond the image, holds image data."""
        return np.asarray(read_reflected(box, *self.source.shape[1:], self.valid))

    def valid(self, box: Box) -> NDArray[np.bool_]:
        """Return where `box`, inside the image, holds image data; True also where that cannot be read."""
        return readable(self.source.valid, box)


def _fill(mean: tuple[float, ...], dtype: DType) -> Pixels:
    """Return per band what stands for pixels without image data: the model's mean, as far as the dtype holds it."""
    if dtype.kind == "f":
        return np.array(mean, dtype)
    return np.asarray(np.clip(np.round(mean), np.iinfo(dtype).min, np.iinfo(dtype).max), dtype)
