"""Places the files of a mosaic on one grid of whole pixels, or refuses files that do not lie on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.sources.georeference import Transform, crs_text, pixels_at, placed, same_crs
from tilepipe.sources.geotiff import GeoTiffSource
from tilepipe.sources.handles import Stamp
from tilepipe.sources.tiff_kinds import Opened

TOLERANCE = 0.01
"""Largest distance of a file's corners from whole pixels of the grid [pixels]; programs round transforms."""
MOST_CELLS = 1 << 22
"""Largest number of cells between the files' edges that are counted, to know whether files overlap or leave gaps."""


class Part(NamedTuple):
    """One file of a mosaic."""

    box: Box
    """Pixels of the mosaic that the file covers."""
    kind: int
    """Index of the source whose header says the same as the header of this file."""
    known: Stamp
    """State of the file when it was opened."""
    y: int = 0
    """Row of the file that lies at the top of `box`."""
    x: int = 0
    """Column of the file that lies at the left of `box`."""

    def inside(self, region: Box) -> Box:
        """Return a region of the mosaic, inside `box`, in pixels of the file."""
        return region.shift(self.y - self.box.y0, self.x - self.box.x0)


@dataclass(frozen=True)
class Laid:
    """Files on one grid."""

    parts: tuple[Part, ...]
    """The files, in order."""
    shape: tuple[int, int]
    """Shape (height, width) of the grid: the smallest that holds all files."""
    transform: Transform | None
    """Affine of the grid; None if it has no position on the earth."""


def lay_out(opened: Sequence[Opened], kinds: Sequence[GeoTiffSource]) -> Laid:
    """Return the files on one grid of whole pixels, that of the first file.

    Raises `InputError` if a file has other bands, another pixel type, CRS or pixel size than the first file, or does
    not lie a whole number of pixels away from it.
    """
    first, grid = kinds[opened[0].kind], opened[0].transform
    for kind in kinds:
        _compare(first, kind)
    shapes = np.array([kinds[file.kind].shape[1:] for file in opened], dtype=np.int64)
    corners = _corners(grid, opened, shapes)
    y0, x0, y1, x1 = (int(side) for side in (*corners[:, :2].min(axis=0), *corners[:, 2:].max(axis=0)))
    parts = tuple(
        Part(Box(int(top) - y0, int(left) - x0, int(bottom) - y0, int(right) - x0), file.kind, file.known)
        for (top, left, bottom, right), file in zip(corners, opened, strict=True)
    )
    x, y = placed(grid, float(x0), float(y0))
    return Laid(parts, (y1 - y0, x1 - x0), (grid[0], grid[1], x, grid[3], grid[4], y))


def _corners(grid: Transform, opened: Sequence[Opened], shapes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (top, left, bottom, right) of each file in whole pixels from the corner of the first file."""
    places = np.array([file.transform for file in opened])
    height, width = shapes[:, 0], shapes[:, 1]
    a, b, c, d, e, f = places.T
    left, top = pixels_at(grid, c, f)
    right, bottom = pixels_at(grid, a * width + b * height + c, d * width + e * height + f)
    found = np.round(np.stack([top, left, bottom, right], axis=1), 9) + 0.0  # no -0.0 in messages
    whole = np.rint(found)
    wrong_size = np.abs(whole[:, 2:] - whole[:, :2] - shapes).max(axis=1) > 0
    off = np.abs(found - whole).max(axis=1)
    for k in map(int, np.flatnonzero(wrong_size | ~(off <= TOLERANCE))):
        name, first = opened[k].known.path, opened[0].known.path
        raise InputError(
            f"{name} does not lie on the grid of {first}: its corners are ({found[k, 1]:.4f}, {found[k, 0]:.4f}) and "
            f"({found[k, 3]:.4f}, {found[k, 2]:.4f}) pixels (x, y) away from the corner of that file, and whole pixels "
            "are needed; resample it to the grid first: gdalwarp -tap -tr XRES YRES in.tif out.tif"
        )
    return np.asarray(whole, dtype=np.int64)


def _compare(first: GeoTiffSource, other: GeoTiffSource) -> None:
    """Raise `InputError` if two files cannot be parts of one image."""
    remedy = "give files of one kind, for instance by a pattern such as 'tiles/a_*.tif'"
    counts = [f"{len(kind.file_bands)} bands" for kind in (first, other)]
    types = [f"pixels of type {kind.dtype}" for kind in (first, other)]
    for one, two in (counts, types):
        if one != two:
            raise _unlike(first, other, (one, two), remedy)
    own, others = first.georeference, other.georeference
    assert own is not None, "files without a place are refused before"
    assert others is not None, "files without a place are refused before"
    if not same_crs(own.crs, others.crs):
        named = [crs_text(crs) for crs in (own.crs, others.crs)]
        raise _unlike(first, other, named, "bring them to one CRS: gdalwarp -t_srs EPSG:CODE in.tif out.tif")
    a, b = _pixel(own.transform), _pixel(others.transform)
    # A pixel that is too long or too short by less is noticed at the corners of the file.
    if not np.allclose(a, b, rtol=1e-3, atol=1e-3 * max(map(abs, a))):
        sizes = [f"pixels of {p[0]:.9g} x {p[3]:.9g}" for p in (a, b)]
        raise _unlike(first, other, sizes, "resample one of them: gdalwarp -tap -tr XRES YRES in.tif out.tif")


def _pixel(grid: Transform | None) -> tuple[float, float, float, float]:
    assert grid is not None, "files without a transform are refused before"
    return grid[0], grid[1], grid[3], grid[4]


def _unlike(first: GeoTiffSource, other: GeoTiffSource, has: Sequence[str], remedy: str) -> InputError:
    return InputError(f"{first.name} has {has[0]} and {other.name} has {has[1]}, so they are not one image; {remedy}")


def covered(parts: Sequence[Part], shape: tuple[int, int]) -> tuple[bool, bool] | None:
    """Return (whether files overlap, whether they cover the whole grid); None if there are too many edges to tell."""
    sides = np.array([part.box.to_list() for part in parts], dtype=np.int64)
    rows = np.unique(np.concatenate([sides[:, 0], sides[:, 2], [0, shape[0]]]))
    columns = np.unique(np.concatenate([sides[:, 1], sides[:, 3], [0, shape[1]]]))
    if rows.size * columns.size > MOST_CELLS:
        return None
    counts = np.zeros((rows.size, columns.size), np.int32)
    top, bottom = (np.searchsorted(rows, sides[:, k]) for k in (0, 2))
    left, right = (np.searchsorted(columns, sides[:, k]) for k in (1, 3))
    for y, x, sign in ((top, left, 1), (top, right, -1), (bottom, left, -1), (bottom, right, 1)):
        np.add.at(counts, (y, x), sign)
    cells = counts.cumsum(axis=0).cumsum(axis=1)[:-1, :-1]
    return bool(cells.max() > 1), bool(cells.min() > 0)
