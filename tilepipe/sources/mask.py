"""Masks: what of an image counts as data, beyond what its file declares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from skimage.color import rgb2hsv
from skimage.filters import threshold_otsu
from skimage.morphology import closing, disk

from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.sources.base import Georeference, Resolution, Source
from tilepipe.sources.resample import Resampled

TISSUE_SIDE = 2048
"""Longest side in pixels of the small image in which tissue is looked for."""

Mask = Callable[[Box], NDArray[np.bool_]]
"""From a box of full-resolution pixels, inside the image, to True where it counts, (box.height, box.width)."""


class Masked:
    """`source` with its validity replaced by, or narrowed to, a mask."""

    def __init__(self, source: Source, mask: Mask | None) -> None:
        """With a mask: valid is what the source says and the mask allows. With None: everything is valid."""
        self.source = source
        self.mask = mask

    @property
    def name(self) -> str:
        """As the source."""
        return self.source.name

    @property
    def shape(self) -> tuple[int, int, int]:
        """As the source."""
        return self.source.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """As the source."""
        return self.source.dtype

    @property
    def resolution(self) -> Resolution | None:
        """As the source."""
        return self.source.resolution

    @property
    def georeference(self) -> Georeference | None:
        """As the source."""
        return self.source.georeference

    @property
    def cache_bytes(self) -> int:
        """As the source."""
        return int(getattr(self.source, "cache_bytes", 0))

    def read(self, box: Box) -> NDArray[Any]:
        """As the source."""
        return self.source.read(box)

    def valid(self, box: Box) -> NDArray[np.bool_] | None:
        """Return True where a pixel counts, (box.height, box.width), False outside the image; None when all do."""
        if self.mask is None:
            return None
        inside = box & Box.of_shape(*self.shape[1:])
        result = np.zeros(box.shape, bool)
        if inside is not None:
            part = inside.slices_in(box)
            result[part] = self.mask(inside)
            declared = self.source.valid(inside)
            if declared is not None:
                result[part] &= declared
        return result

    def coarser(self, height: int, width: int) -> Source:
        """Return the source's smaller version, all valid; a mask stays on its own grid."""
        return self if self.mask is not None else Masked(self.source.coarser(height, width), None)

    def identity(self) -> dict[str, Any]:
        """As the source; what the mask is made of is part of the run key by the settings."""
        return self.source.identity()


class NotValue:
    """A mask of the pixels that do not hold `value` in every band: no-data that the file does not declare."""

    def __init__(self, source: Source, value: float) -> None:
        """Compare with `value` in the image's own units."""
        self.source = source
        self.value = value

    def __call__(self, box: Box) -> NDArray[np.bool_]:
        """Return the mask of `box`."""
        return np.asarray((self.source.read(box) != self.value).any(axis=0))


class OnGrid:
    """A mask of `size` (height, width) pixels seen on another grid: that of the pixel under each centre."""

    def __init__(self, mask: Mask, size: tuple[int, int], grid: tuple[int, int]) -> None:
        """`grid` is (height, width) of the other grid."""
        self.mask = mask
        self.size = size
        self.grid = grid

    def __call__(self, box: Box) -> NDArray[np.bool_]:
        """Return the mask of `box`, pixels of the other grid."""
        rows = (2 * np.arange(box.y0, box.y1) + 1) * self.size[0] // (2 * self.grid[0])
        columns = (2 * np.arange(box.x0, box.x1) + 1) * self.size[1] // (2 * self.grid[1])
        hull = Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
        return np.asarray(self.mask(hull)[(rows - hull.y0)[:, None], (columns - hull.x0)[None, :]])


class Bitmap:
    """A mask from a small image of the whole: (h, w) booleans stretched over height x width pixels."""

    def __init__(self, small: NDArray[np.bool_], height: int, width: int) -> None:
        """Keep the small image."""
        self.small = small
        self.shape = (height, width)

    def __call__(self, box: Box) -> NDArray[np.bool_]:
        """Return the mask of `box`."""
        (h, w), (height, width) = self.small.shape, self.shape
        rows = np.arange(box.y0, box.y1) * h // height
        columns = np.arange(box.x0, box.x1) * w // width
        return np.asarray(self.small[rows[:, None], columns[None, :]])


def tissue(source: Source, margin: float) -> Bitmap:
    """Return where there is tissue on a bright slide: saturation above Otsu's threshold, grown by `margin` pixels.

    The threshold is capped so that faint fat and pale stain stay in. Raises `InputError` when it is not RGB uint8.
    """
    bands, height, width = source.shape
    if bands != 3 or source.dtype != np.uint8:
        raise InputError(f"{source.name} has {bands} bands of {source.dtype}; a tissue mask needs 3 bands of uint8")
    scale = min(1.0, TISSUE_SIDE / max(height, width))
    h, w = max(1, round(height * scale)), max(1, round(width * scale))
    small = Resampled(source, h, w).read(Box.of_shape(h, w))
    saturation = rgb2hsv(small, channel_axis=0)[1]
    if saturation.min() == saturation.max():
        return Bitmap(np.ones((h, w), bool), height, width)
    found = saturation > min(threshold_otsu(saturation), 0.12)
    radius = max(1, round(margin * scale))
    grown = _grown(closing(found, disk(2)), radius)
    return Bitmap(grown, height, width)


def _grown(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    return np.asarray(distance_transform_edt(~mask) <= radius)
