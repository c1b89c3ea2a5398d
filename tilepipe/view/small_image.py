"""SmallImage: a smaller version of an image that has none; it is read once, in the background."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tilepipe.arrays import DType, Pixels
from tilepipe.box import Box
from tilepipe.sources.base import Georeference, Resolution, Source, read_reflected
from tilepipe.sources.checks import usable
from tilepipe.text import JSON
from tilepipe.view.averages import averages
from tilepipe.view.gradual import Gradual
from tilepipe.view.screen import Screen

READ_AT_ONCE = 16 << 20
"""Largest number of pixels that are read for one tile at the smallest level; beyond it a smaller version is made."""
LARGEST = 128 << 20
"""Largest size of a smaller version in memory [bytes]."""
PIECE = 2048
"""Side of the part of the image that is read at once [pixels], unless a pixel of the smaller version is larger."""


def small_image_of(source: Source) -> SmallImage | None:
    """Return a smaller version of the image to be filled; None if its own smaller versions are small enough."""
    bands, height, width = source.shape
    screen = Screen((height, width))
    found = source.coarser(*screen.size(screen.last))
    if found.shape[1] * found.shape[2] <= READ_AT_ONCE:
        return None
    level = 1
    while bands * source.dtype.itemsize * height * width >> 2 * level > LARGEST:
        level += 1
    return SmallImage(source, min(level, screen.last))


class SmallImage(Gradual):
    """`source` at a level of the screen, as a source. A pixel is valid once it has been read."""

    resolution: Resolution | None = None
    georeference: Georeference | None = None

    def __init__(self, source: Source, level: int) -> None:
        super().__init__()
        self.level = level
        self.name = source.name
        self._source, self._size = source, Screen((source.shape[1], source.shape[2])).size(level)
        self._pixels = np.zeros(self.shape, self.dtype)
        self._valid = np.zeros(self.shape[1:], np.bool_)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(bands, height, width) of the smaller version."""
        return self._source.shape[0], *self._size

    @property
    def dtype(self) -> DType:
        """Type of the image's pixels."""
        return self._source.dtype

    def fill(self) -> None:
        """Read the image from the top to the bottom, unless `stop` is called meanwhile; the caller gives a thread."""
        _, height, width = self.shape
        side = max(1, PIECE >> self.level)
        corners = [(y, x) for y in range(0, height, side) for x in range(0, width, side)]
        self._each([Box(y, x, min(y + side, height), min(x + side, width)) for y, x in corners], self._add)

    def _add(self, box: Box) -> None:
        part = self._at(box)
        bands, valid = averages(self._source, box, self.level, list(range(self.shape[0])))
        whole = self.dtype.kind in "ui"
        for band, found in enumerate(bands):
            self._pixels[band][part] = np.floor(found + 0.5) if whole else found
        self._valid[part] = True if valid is None else valid

    def read(self, box: Box) -> Pixels:
        """Return the pixels of `box`, (bands, box.height, box.width); 0 where the image is not read yet."""
        return read_reflected(box, *self.shape[1:], lambda inside: self._pixels[(slice(None), *self._at(inside))])

    def valid(self, box: Box) -> NDArray[np.bool_] | None:
        """Return True where the image is read and holds data, (box.height, box.width); None if it does everywhere."""
        inside = box & Box.of_shape(*self.shape[1:])
        return usable(None if inside is None else self._valid[self._at(inside)], box, *self.shape[1:])

    def coarser(self, height: int, width: int) -> Source:
        """Return this source."""
        return self

    def identity(self) -> JSON:
        """Return what the smaller version is made of."""
        return {"level": self.level, "of": self._source.identity()}

    def _at(self, box: Box) -> tuple[slice, slice]:
        return box.slices_in(Box.of_shape(*self.shape[1:]))
