"""Ground area: the square metres that pixels cover on the WGS 84 ellipsoid, whatever the raster's projection."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.warp import transform as transform_points

from tilepipe.arrays import Array
from tilepipe.box import Box
from tilepipe.sources.base import Georeference
from tilepipe.sources.georeference import ECCENTRICITY2, EQUATOR, WGS84, to_crs

CELL = 512
"""Number of columns of a row whose pixels are taken to have one area."""
NODES = (257, 33)
"""Largest number of rows and columns in which the area of a pixel is computed; it is interpolated between them.

For a raster of the whole earth in degrees the sum is within 0.002 % of the area of the ellipsoid.
"""
PARTS = 1 << 30
"""Number of parts of a mean pixel's area; areas are whole numbers of parts, so their sum does not depend on order."""


class GroundArea:
    """Area on the ground of each pixel of a grid, as a whole multiple of `unit` square metres."""

    def __init__(self, areas: NDArray[np.float64], height: int, width: int) -> None:
        """Take the `areas` of pixels on evenly spaced rows and columns [square metres].

        The first and the last row and column are among them.
        """
        self.unit = float(areas.mean()) / PARTS
        self._areas, self._shape = areas, (height, width)

    def cells(self, box: Box) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """Return the columns where cells begin inside a box, and the area of a pixel by row and cell.

        The areas are (rows, cells), in multiples of `unit`.
        """
        begins = np.array([box.x0, *range((box.x0 // CELL + 1) * CELL, box.x1, CELL)])
        cells = begins // CELL * CELL
        middles = (cells + np.minimum(cells + CELL, self._shape[1]) - 1) / 2
        areas = self.at(*np.meshgrid(np.arange(box.y0, box.y1), middles, indexing="ij"))
        return begins - box.x0, np.rint(areas / self.unit).astype(np.int64)

    def at(self, rows: Array, columns: Array) -> NDArray[np.float64]:
        """Return the area of pixels [square metres]; whole numbers of rows and columns are middles of pixels."""
        places = [
            at * ((nodes - 1) / max(size - 1, 1))
            for at, nodes, size in zip((rows, columns), self._areas.shape, self._shape, strict=True)
        ]
        from scipy.ndimage import map_coordinates  # slow to import, and most commands measure no area

        return np.asarray(map_coordinates(self._areas, places, order=1, mode="nearest"))


def ground_area(known: Georeference | None, height: int, width: int) -> GroundArea | None:
    """Return the ground area of the pixels of a grid.

    None if the grid has no position, or if its CRS cannot be carried to the earth.
    """
    if known is None or known.crs is None or (known.transform is None and len(known.gcps) < 3):
        return None
    y, x = (np.linspace(0.5, size - 0.5, min(size, most)) for size, most in zip((height, width), NODES, strict=True))
    rows, columns = (grid.ravel() for grid in np.meshgrid(y, x, indexing="ij"))
    try:
        ends = [_on_earth(known, rows + dy, columns + dx) for dy, dx in ((0, 0.5), (0, -0.5), (0.5, 0), (-0.5, 0))]
    except (CRSError, RasterioError, CPLE_BaseError):
        return None  # a local or planetary CRS without a way to the earth
    # A pixel is taken for the parallelogram of its width and its height in space, so no projection is needed.
    across, down = ends[0] - ends[1], ends[2] - ends[3]
    areas = np.linalg.norm(np.cross(across, down), axis=1).reshape(len(y), len(x))
    there = np.isfinite(areas) & (areas > 0)
    if not there.any():
        return None
    # A place off the earth would spoil the pixels beside it, since areas are interpolated.
    return GroundArea(np.where(there, areas, areas[there].mean()), height, width)


def _on_earth(known: Georeference, rows: NDArray[np.float64], columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return positions (n, 3) from the middle of the earth [metres]; infinite for a pixel that is not on the earth."""
    xs, ys = to_crs(known, rows.tolist(), columns.tolist())
    lon, lat = (np.radians(values) for values in transform_points(CRS.from_wkt(known.crs), WGS84, xs, ys))
    lon, lat = (np.where(np.isfinite(angle), angle, math.nan) for angle in (lon, lat))
    normal = EQUATOR / np.sqrt(1 - ECCENTRICITY2 * np.sin(lat) ** 2)
    flat = normal * np.cos(lat)
    return np.column_stack((flat * np.cos(lon), flat * np.sin(lon), normal * (1 - ECCENTRICITY2) * np.sin(lat)))
