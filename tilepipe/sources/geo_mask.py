"""This module defines an area: polygons on the grid of an image, which become a mask that is read by box."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.warp import transform_geom

from tilepipe.box import Box
from tilepipe.errors import InputError, UsageError
from tilepipe.sources.base import Georeference, Source
from tilepipe.sources.borders import Borders, Cells
from tilepipe.sources.georeference import WGS84, Transform, cover, crs_of, grid_of, pixels_at
from tilepipe.text import JSON


class Area:
    """An area of interest on a source's grid, from GeoJSON geometries.

    For rasters, the geometries are in longitude and latitude. For slides and arrays, they are in full-resolution pixels
    (as QuPath writes). An area is picklable. Raises `UsageError` if no polygon is given or the polygons do not meet the
    image, and `InputError` if the image has no affine position.
    """

    def __init__(self, source: Source, geometries: Iterable[JSON], crs: str = WGS84, skipped: str = "") -> None:
        """Place the `geometries`; `skipped` is a sentence about parts of a file that are no areas, or ''."""
        self.skipped = skipped
        given = [g for g in geometries if g.get("type") in ("Polygon", "MultiPolygon")]
        if not given:
            raise UsageError("an area of interest needs at least one Polygon or MultiPolygon")
        known = source.georeference
        # RPCs alone place no grid that polygons could be drawn on.
        if known is None or known == Georeference(rpcs=known.rpcs):
            grid: Transform = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
            self.geometries = given
            advice = "coordinates on an image without a position are its pixels, x before y, at full resolution"
        else:
            grid, own = grid_of(source)
            if own is None:
                raise InputError(f"{source.name} has no CRS, so polygons cannot be placed on it")
            self.geometries = [_geometry(source.name, g, crs_of(crs), own) for g in given]
            advice = (
                "GeoJSON has longitude before latitude, unless its crs member names another CRS: check order and CRS"
            )
        points = np.asarray([p for g in self.geometries for p in _points(g["coordinates"])])
        self.box = cover(source, grid, points[:, 0], points[:, 1], advice)
        """Box around the polygons; it may reach beyond the image."""
        placed = [_on_grid(grid, g["coordinates"]) for g in self.geometries]
        kinds = [g["type"] for g in self.geometries]
        polygons = [
            p for kind, found in zip(kinds, placed, strict=True) for p in (found if "Multi" in kind else [found])
        ]
        # Each polygon is a shape of its own: where two overlap, neither is a hole of the other.
        rings = [(k, np.asarray(ring)) for k, polygon in enumerate(polygons) for ring in _rings(polygon)]
        self._borders = Borders(rings)

    def meet(self, cells: Cells) -> NDArray[np.bool_]:
        """Return for each of a row of cells whether the centre of any of its pixels lies in the area."""
        return self._borders.meet(cells)

    def __call__(self, box: Box) -> NDArray[np.bool_]:
        """Return True where the centre of a pixel lies in the area, (box.height, box.width)."""
        return self._borders.fill(box)


def _geometry(name: str, geometry: JSON, crs: CRS, own: CRS) -> JSON:
    try:
        return dict(transform_geom(crs, own, geometry))
    except (RasterioError, CPLE_BaseError) as error:
        raise UsageError(
            f"the area of interest lies off {name}: it cannot be carried from {crs} to the image's CRS ({error})"
        ) from error


def _on_grid(grid: Transform, coordinates: Any) -> Any:
    """Return a geometry's coordinates as (column, row) [pixels]; heights are left out."""
    if isinstance(coordinates[0], int | float):
        return tuple(float(value) for value in pixels_at(grid, *coordinates[:2]))
    return [_on_grid(grid, part) for part in coordinates]


def _rings(coordinates: Any) -> list[list[tuple[float, float]]]:
    if isinstance(coordinates[0][0], int | float):
        return [_points(coordinates)]
    return [ring for part in coordinates for ring in _rings(part)]


def _points(coordinates: Any) -> list[tuple[float, float]]:
    if isinstance(coordinates[0], int | float):
        return [(float(coordinates[0]), float(coordinates[1]))]
    return [point for part in coordinates for point in _points(part)]
