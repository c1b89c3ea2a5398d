"""World grid: puts an image on a canvas whose tiles begin at fixed places on the earth, so that runs fit each other."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tilepipe.arrays import Pixels
from tilepipe.box import Box
from tilepipe.sources.bands import Picked, bands_of
from tilepipe.sources.base import Georeference, Source
from tilepipe.sources.georeference import crs_text, grid_of, pixels_at, placed
from tilepipe.sources.wrapped import Wrapped
from tilepipe.text import JSON

NOISE = 1e-4
"""Error of positions by rounding that must not move an image by a pixel [pixels]."""


class Anchored(Wrapped):
    """An image on a larger canvas; around the image the canvas holds no image data."""

    chosen = True
    """Whether the bands were chosen; they are not chosen again."""

    def __init__(self, source: Source, inner: Box, size: tuple[int, int], start: tuple[int, int]) -> None:
        """Take the box of the canvas that `source` covers, and the (height, width) of the canvas.

        `start` is the row and the column of its first pixel, counted from the origin of the CRS.
        """
        super().__init__(source)
        self.inner, self.start = inner, start
        self._size = size
        self.file_bands, self.picked = bands_of(source), getattr(source, "picked", Picked())

    @property
    def shape(self) -> tuple[int, int, int]:
        """(bands, height, width) of the canvas."""
        return self.source.shape[0], *self._size

    @property
    def complete(self) -> bool:
        """Whether every pixel is known to hold image data."""
        return False

    @property
    def georeference(self) -> Georeference:
        """Position of the canvas."""
        (a, b, _, d, e, _), _ = grid_of(self.source)
        x, y = placed(grid_of(self.source)[0], -float(self.inner.x0), -float(self.inner.y0))
        known = self.source.georeference
        return Georeference(known.crs if known else None, (a, b, x, d, e, y))

    def read(self, box: Box) -> Pixels:
        """Return the pixels of `box`, (bands, box.height, box.width), reflected outside the image."""
        return self.source.read(self._own(box))

    def valid(self, box: Box) -> NDArray[np.bool_] | None:
        """Return True where the image holds data, (box.height, box.width), False around it; None when all do."""
        return self.source.valid(self._own(box))

    def identity(self) -> JSON:
        """Return the source's identity and its place on the canvas."""
        return {"reader": "anchored", "inner": self.inner.to_list(), "of": super().identity()}

    def _own(self, box: Box) -> Box:
        return box.shift(-self.inner.y0, -self.inner.x0)


def anchored(source: Source, tile: int, step: int, block: int) -> Anchored:
    """Return an image on a canvas whose pixel (0, 0) lies a multiple of a block away from the origin of its CRS.

    The canvas reaches so far beyond the image that no tile of `tile` pixels that decides a pixel of the image is moved
    at an edge. So tiles, `step` pixels apart, and blocks of at least `block` pixels lie at fixed places. Raises
    `InputError` if the image has no affine position.
    """
    grid, _ = grid_of(source)
    origin = pixels_at(grid, 0.0, 0.0)
    margin, zone = tile + step, -(-max(block, tile) // step) * step
    spans = []
    for at, size in zip((-origin[1], -origin[0]), source.shape[1:], strict=True):
        # Images whose pixels are cut in half by the origin of the CRS must all be rounded to the same side.
        first = math.floor(at + 0.5 - NOISE)
        start = (first - margin) // zone * zone
        spans.append((start, first - start, size, -(-(first + size + margin - start) // step) * step))
    (top, y, height, rows), (left, x, width, columns) = spans
    return Anchored(source, Box(y, x, y + height, x + width), (rows, columns), (top, left))


def inner_of(source: Source) -> Box:
    """Return the pixels that an image covers: all of them, or those of the canvas of a world grid."""
    return source.inner if isinstance(source, Anchored) else Box.of_shape(*source.shape[1:])


def canvas_of(source: Source) -> tuple[int, int]:
    """Return the row and the column of the first pixel of a world grid's canvas, counted from the origin of the CRS.

    An image on a grid of its own has (0, 0).
    """
    return source.start if isinstance(source, Anchored) else (0, 0)


def without_canvas(source: Source) -> Source:
    """Return the image itself, if it lies on the canvas of a world grid."""
    return source.source if isinstance(source, Anchored) else source


def fits_said(source: Anchored, step: int) -> str:
    """Return in words which other runs fit a run of an image on a world grid."""
    (a, _, c, _, e, f), _ = grid_of(source.source)
    known = source.source.georeference
    return (
        f"tiles begin every {step} pixels from the origin of {crs_text(known.crs if known else None)}; labels fit "
        f"those of another image with pixels of {abs(a):.9g} x {abs(e):.9g} that begin at x = {c % abs(a):.6g}, "
        f"y = {f % abs(e):.6g} plus whole pixels, where both have image data"
    )
