"""The area of tissue on an image: found on a small image of the whole, and grown by a margin."""

from __future__ import annotations

import numpy as np
import scipy
from numpy.typing import NDArray

from tilepipe.box import Box
from tilepipe.sources.base import Source
from tilepipe.sources.find_tissue import Found, find_tissue
from tilepipe.sources.mask import Bitmap
from tilepipe.sources.resample import Resampled

SIDE = 2048
"""Longest side of the small image in which tissue is found [pixels]."""


class Tissue(Bitmap):
    """The area of tissue, grown by a margin."""

    def __init__(self, found: Found, radius: int, height: int, width: int) -> None:
        """Take what was found on a small image of the whole, and the margin `radius` in its pixels."""
        super().__init__(_grown(found.tissue, radius) if radius else found.tissue, height, width)
        self.found = found

    def pixels(self, box: Box) -> float:
        """Return how many pixels of `box` are tissue itself, without the margin."""
        return _within(self.found.tissue, self.shape, box)

    def ink(self, box: Box) -> float:
        """Return how many pixels of `box` are marker ink."""
        return _within(self.found.ink, self.shape, box)


def tissue(source: Source, margin: float) -> Tissue:
    """Return the area of tissue of an image, grown by `margin` pixels of the image; see `find_tissue`.

    Raises `InputError` if the image cannot be read.
    """
    _, height, width = source.shape
    found = on_thumbnail(source)
    radius = max(1, round(margin * found.tissue.shape[0] / height)) if found.background != "none" else 0
    return Tissue(found, radius, height, width)


def on_thumbnail(source: Source) -> Found:
    """Return the tissue on a small image of the whole, whose longer side has at most `SIDE` pixels."""
    _, height, width = source.shape
    scale = min(1.0, SIDE / max(height, width))
    h, w = max(1, round(height * scale)), max(1, round(width * scale))
    small, whole = Resampled(source, h, w), Box.of_shape(h, w)
    return find_tissue(small.read(whole), small.valid(whole))


def _within(found: NDArray[np.bool_], shape: tuple[int, int], box: Box) -> float:
    overlaps = []
    for start, stop, small, size in zip((box.y0, box.x0), (box.y1, box.x1), found.shape, shape, strict=True):
        edges = np.clip(np.arange(small + 1) * (size / small), start, stop)
        overlaps.append(np.diff(edges))
    return float(overlaps[0] @ found @ overlaps[1])


def _grown(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    if not mask.any():  # every distance from nothing is undefined
        return mask
    # By distances, since the time of a dilation grows with the area of its disk.
    return np.asarray(scipy.ndimage.distance_transform_edt(~mask) <= radius)
