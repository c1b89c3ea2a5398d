"""Masks: areas of an image that labels are asked for, and the user's corrections of what counts as image data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tilepipe.arrays import Pixels
from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.sources.base import Source
from tilepipe.sources.borders import Cells
from tilepipe.sources.checks import usable
from tilepipe.sources.content import identity_of
from tilepipe.sources.wrapped import Wrapped
from tilepipe.text import JSON

SMALLEST = 64 * 64
"""Number of pixels up to which a part whose validity cannot be read is not divided any more."""


class Mask(Protocol):
    """An area of an image, on its full-resolution grid; picklable."""

    def __call__(self, box: Box) -> NDArray[np.bool_]:
        """Return True where pixels of `box`, inside the image, lie in the area, (box.height, box.width)."""

    def meet(self, cells: Cells) -> NDArray[np.bool_]:
        """Return for each of a row of cells whether any of its pixels lies in the area."""


class Masked(Wrapped):
    """`source` with image data as the user says: every pixel holds image data, or every pixel but one value."""

    def __init__(self, source: Source, nodata: float | None) -> None:
        """Take `nodata`: if it is None, every pixel is image data.

        If it is a number, a pixel is image data if the source says so and not every band holds `nodata`. Floats are
        compared as GDAL compares nodata: they may differ by two units of rounding.
        """
        super().__init__(source)
        self.nodata = nodata

    @property
    def complete(self) -> bool:
        """Whether every pixel is known to hold image data."""
        return self.nodata is None

    def valid(self, box: Box) -> NDArray[np.bool_] | None:
        """Return True where a pixel holds image data, (box.height, box.width), False outside; None when all do."""
        if self.nodata is None:
            return None
        inside = box & Box.of_shape(*self.shape[1:])
        mask = None
        if inside is not None:
            mask = np.asarray(~_equal(self.source.read(inside), self.nodata).all(axis=0))
            declared = self.source.valid(inside)
            mask = mask if declared is None else mask & declared
        return usable(mask, box, *self.shape[1:])

    def coarser(self, height: int, width: int) -> Source:
        """Return the source's smaller version if every pixel is image data; if not, return this source.

        A nodata value is looked for at full resolution.
        """
        return self if self.nodata is not None else Masked(self.source.coarser(height, width), None)

    def identity(self) -> JSON:
        """Return the source's identity and the nodata value."""
        return {**identity_of(self.source), "nodata": "none" if self.nodata is None else repr(self.nodata)}


def _equal(pixels: Pixels, value: float) -> NDArray[np.bool_]:
    if pixels.dtype.kind != "f":
        return np.asarray(pixels == value)
    one, two = pixels, np.asarray(value, pixels.dtype)
    with np.errstate(invalid="ignore", over="ignore"):  # this is GDAL's own formula, with its overflow
        near = np.abs(one - two) < 2 * np.finfo(np.float32).eps * np.abs(one + two)
    return np.asarray((one == two) | near)


def readable(valid: Callable[[Box], NDArray[np.bool_] | None], box: Box) -> NDArray[np.bool_]:
    """Return True where `box`, inside the image, holds image data or cannot be read, (box.height, box.width).

    A part that cannot be read is divided and read again, so that only tiles that cannot be read fail.
    """
    try:
        mask = valid(box)
    except InputError:
        mask = np.ones(box.shape, bool)
        if box.area > SMALLEST:
            for part in quarters(box):
                mask[part.slices_in(box)] = readable(valid, part)
    return np.ones(box.shape, bool) if mask is None else mask


def quarters(box: Box) -> list[Box]:
    """Return up to four parts of a box of at least two pixels."""
    y, x = (box.y0 + box.y1) // 2, (box.x0 + box.x1) // 2
    rows = [(a, b) for a, b in ((box.y0, y), (y, box.y1)) if a < b]
    columns = [(a, b) for a, b in ((box.x0, x), (x, box.x1)) if a < b]
    return [Box(y0, x0, y1, x1) for y0, y1 in rows for x0, x1 in columns]


def under_centres(pixels: NDArray[np.int64], size: int, grid: int) -> NDArray[np.int64]:
    """Return which of `size` pixels of an axis lie under the centres of `pixels` of another grid of `grid` pixels."""
    # Centres lie at half pixels; doubled, they are whole numbers, and nothing is rounded.
    return np.asarray((2 * pixels + 1) * size // (2 * grid))


class OnGrid:
    """A mask of `size` (height, width) pixels on another grid, whose pixels take the mask under their centres."""

    def __init__(self, mask: Mask, size: tuple[int, int], grid: tuple[int, int]) -> None:
        """Take `size`, (height, width) of the mask, and `grid`, (height, width) of the other grid [pixels]."""
        self.mask = mask
        self.size = size
        self.grid = grid

    def __call__(self, box: Box) -> NDArray[np.bool_]:
        """Return the mask of `box`, which counts pixels of the other grid, (box.height, box.width)."""
        rows = under_centres(np.arange(box.y0, box.y1), self.size[0], self.grid[0])
        columns = under_centres(np.arange(box.x0, box.x1), self.size[1], self.grid[1])
        hull = Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
        return np.asarray(self.mask(hull)[(rows - hull.y0)[:, None], (columns - hull.x0)[None, :]])


class Bitmap:
    """A mask from a small image of the whole: (h, w) booleans stretched over height x width pixels."""

    def __init__(self, small: NDArray[np.bool_], height: int, width: int) -> None:
        """Keep the small image."""
        self.small = small
        self.shape = (height, width)

    def __call__(self, box: Box) -> NDArray[np.bool_]:
        """Return the mask of `box`, (box.height, box.width)."""
        (h, w), (height, width) = self.small.shape, self.shape
        rows = np.arange(box.y0, box.y1) * h // height
        columns = np.arange(box.x0, box.x1) * w // width
        return np.asarray(self.small[rows[:, None], columns[None, :]])

    def meet(self, cells: Cells) -> NDArray[np.bool_]:
        """Return for each of a row of cells whether any of its pixels lies in the area."""
        (h, w), (height, width) = self.small.shape, self.shape
        seen = self.small[np.unique(cells.rows * h // height)].any(axis=0)[cells.columns * w // width]
        # With a running sum each cell costs one difference, however much cells overlap.
        count = np.concatenate([[0], np.cumsum(seen)])
        return np.asarray(count[cells.ends] > count[cells.begins])

    def share(self, box: Box) -> float:
        """Return approximately the share of `box` that lies in the area, 0 to 1."""
        (h, w), (height, width) = self.small.shape, self.shape
        rows = slice(box.y0 * h // height, (box.y1 - 1) * h // height + 1)
        columns = slice(box.x0 * w // width, (box.x1 - 1) * w // width + 1)
        return float(self.small[rows, columns].mean())
