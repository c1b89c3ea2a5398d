"""This module gives the image of a job as the model sees it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tilepipe.arrays import DType, Pixels
from tilepipe.box import Box
from tilepipe.sources.base import Source, all_finite, read_reflected
from tilepipe.sources.mask import readable
from tilepipe.stage_times import stage


class FilledImage:
    """The image on the prediction grid; pixels without image data have the model's mean. Threads can share it."""

    def __init__(self, source: Source, mean: tuple[float, ...]) -> None:
        """Wrap `source`; `mean` is per band, in the source's own units."""
        self.source = source
        self._fill = _fill(mean, source.dtype)

    def read(self, box: Box) -> tuple[Pixels, NDArray[np.bool_]]:
        """Return pixels (bands, height, width), mirrored beyond the image, and a bool array: True for image data.

        Raises `InputError`.
        """
        with stage("read"):
            pixels = self.source.read(box)
        # The mask is mirrored like the pixels: a tile at the image's edge sees its own reflection there, holes
        # included.
        valid = self.seen(box)
        if pixels.dtype.kind == "f":  # even if a mask says it is valid, a model cannot use a value that is not a number
            valid = valid & all_finite(pixels)
        if not valid.all():
            # The normalised mean is 0, which adds least to a convolution. Black would look like a dark object with an
            # edge. Training fills pixels in the same way.
            pixels = np.where(valid, pixels, self._fill[:, None, None])
        return pixels, valid

    def blank(self, box: Box) -> Pixels:
        """Return what stands for the pixels of a box without image data: the model's mean, (bands, height, width)."""
        return np.broadcast_to(self._fill[:, None, None], (len(self._fill), *box.shape))

    def seen(self, box: Box) -> NDArray[np.bool_]:
        """Return a bool array (height, width): True for image data in `box`, mirrored beyond the image."""
        with stage("read"):
            return np.asarray(read_reflected(box, *self.source.shape[1:], self.valid))

    def valid(self, box: Box) -> NDArray[np.bool_]:
        """Return a bool array: True for image data in `box`, inside the image, and for pixels that cannot be read."""
        return readable(self.source.valid, box)


def _fill(mean: tuple[float, ...], dtype: DType) -> Pixels:
    """Return the fill value of each band for pixels without image data: the model's mean, as the dtype holds it."""
    if dtype.kind == "f":
        return np.array(mean, dtype)
    return np.asarray(np.clip(np.round(mean), np.iinfo(dtype).min, np.iinfo(dtype).max), dtype)
