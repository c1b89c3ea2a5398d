"""Tiles of an image as red, green, blue and alpha in 8 bits; values of other types are stretched.

Tiles are not compressed: they only travel inside this machine, and PNG takes longer than all else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tilepipe.box import Box
from tilepipe.sources.base import Source
from tilepipe.sources.resample import Resampled
from tilepipe.sources.shown import Shown
from tilepipe.view.averages import Averages, averages, shown_bands
from tilepipe.view.screen import TILE, Screen
from tilepipe.view.small_image import READ_AT_ONCE, SmallImage, small_image_of

PERCENTILES = (2, 98)
"""Percentiles of the values that become black and white."""
PATCHES, PATCH = 5, 128
"""Number of patches per axis that the percentiles are taken of, and the side of a patch [pixels]."""


@dataclass(frozen=True)
class Stretch:
    """The values that become black and white."""

    low: float
    high: float

    def apply(self, pixels: NDArray[np.number]) -> NDArray[np.uint8]:
        """Return the pixels in 8 bits; values that are not finite become black."""
        scaled = (pixels.astype(np.float32) - np.float32(self.low)) * np.float32(255 / max(self.high - self.low, 1e-9))
        return np.asarray(np.clip(np.nan_to_num(scaled) + 0.5, 0, 255), np.uint8)


class ImageTiles:
    """An image in tiles of the screen. `tile` may be called from several threads."""

    def __init__(self, image: Source) -> None:
        """Take an image; nothing but its description is read."""
        self.source = Shown(image)
        self.screen = Screen((image.shape[1], image.shape[2]))
        self._bands = shown_bands(image.shape[0])
        self.small: SmallImage | None = small_image_of(self.source)
        """Smaller version of an image that has none; somebody has to fill it."""

    def tile(self, level: int, row: int, column: int) -> bytes | None:
        """Return a tile, (TILE, TILE, 4) uint8; None if there is no such tile, or if nothing of it is known yet.

        Alpha is 0 beyond the image, where it holds no data, and where it is not read yet; else 255. Raises `InputError`
        if the image cannot be read.
        """
        box = self.screen.box(level, row, column)
        if box is None:
            return None
        bands, valid = self._read(level, box)
        if valid is not None and not valid.any():
            return None
        tile = np.zeros((TILE, TILE, 4), np.uint8)
        part = tile[: box.height, : box.width]
        for channel in range(3):
            part[..., channel] = self._eight_bits(bands[min(channel, len(bands) - 1)])
        part[..., 3] = 255 if valid is None else np.where(valid, 255, 0)
        return tile.tobytes()

    def values(self, y: int, x: int) -> list[float | None]:
        """Return the values of all bands at an image pixel, None for a value that is not finite."""
        pixels = self.source.read(Box(y, x, y + 1, x + 1))[:, 0, 0]
        return [value if np.isfinite(value) else None for value in pixels.tolist()]

    def _base(self, level: int) -> Source:
        """Return the version of the image that a level of the screen is made from."""
        if self.small is not None and level >= self.small.level:
            return self.small
        return self.source.coarser(*self.screen.size(level))

    def _read(self, level: int, box: Box) -> Averages:
        base, size, (height, width) = self._base(level), self.screen.size(level), self.screen.shape
        times = round(math.log2(max(1.0, base.shape[1] / size[0])))
        # Files round the sizes of their levels; a level that is off by one of its pixels lies as it should.
        step = 2 ** (level - times)
        if max(abs(base.shape[1] * step - height), abs(base.shape[2] * step - width)) <= step:
            return averages(base, box, times, self._bands)
        return averages(Resampled(base, *size), box, 0, self._bands)

    def _eight_bits(self, band: NDArray[np.number]) -> NDArray[np.uint8]:
        return band.astype(np.uint8) if self.source.dtype == np.uint8 else self._stretch.apply(band)

    @cached_property
    def _stretch(self) -> Stretch:
        """The stretch of all tiles: percentiles of a smaller version, or of patches all over the image."""
        found = self.source.coarser(PATCH, PATCH)
        _, height, width = found.shape
        if height * width <= READ_AT_ONCE:
            found = found if max(height, width) <= 1024 else Resampled(found, min(height, 1024), min(width, 1024))
            boxes = [Box.of_shape(*found.shape[1:])]
        else:
            corners = [
                ((2 * i + 1) * height // (2 * PATCHES), (2 * j + 1) * width // (2 * PATCHES))
                for i in range(PATCHES)
                for j in range(PATCHES)
            ]
            boxes = [Box(y, x, min(y + PATCH, height), min(x + PATCH, width)) for y, x in corners]
        parts = []
        for box in boxes:
            pixels, valid = found.read(box)[self._bands], found.valid(box)
            known = np.isfinite(pixels).all(0) if pixels.dtype.kind == "f" else np.ones(box.shape, bool)
            parts.append(pixels[:, known if valid is None else known & valid].ravel())
        values = np.concatenate(parts)
        return Stretch(*map(float, np.percentile(values, PERCENTILES))) if values.size else Stretch(0.0, 1.0)
