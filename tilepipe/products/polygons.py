"""Label map -> GeoJSON polygons, written feature by feature.

Two dialects. Rasters with a position on the earth: RFC 7946, longitude and latitude on WGS84, with `class_id`,
`class_name` and `area_m2`. Slides and plain arrays: full-resolution (level 0) pixels, as QuPath imports them by drag
and drop, with `objectType`, `classification` and a UUID. Polygons follow pixel corners, holes are inner rings, and a
region of any size is one polygon (see `outlines`).
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import numpy as np
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import GCPTransformer
from rasterio.warp import transform, transform_geom

from tilepipe.errors import UsageError
from tilepipe.products.cog import GDAL_ERRORS
from tilepipe.products.label_map import LabelMap
from tilepipe.products.outlines import Outline, outlines, signed_area
from tilepipe.products.staging import staged
from tilepipe.sources.base import Georeference

STEP = 128
"""On the earth an edge gets a corner at every multiple of this many pixels: a straight edge of a projected raster is a
curve in longitude and latitude."""
MEMORY = 256 * 2**20
"""Bytes that `write_geojson` needs beyond the label map itself and its largest region. Measured: 194 MB for 2048 x 2048
pixels of random labels (a million features), 61 MB for random squares of 8 x 8 pixels; 289 MB for one region of 4096 x
4096 pixels with 200,000 holes."""
WGS84 = CRS.from_epsg(4326)
NAMESPACE = UUID("6f1d7b0e-3c52-5d0a-9a57-6c1d1f6f2f31")
"""Of the polygons' names (RFC 9562, version 5): the same label map gives the same file."""

Floats = NDArray[np.float64]
Place = Callable[[Floats], Floats]
"""Pixel corners (N, 2) as (x, y), from the map's top left corner -> coordinates (N, 2) in the file."""


def write_geojson(labels: LabelMap, path: Path) -> None:
    """Write the regions of each class as polygons to the new GeoJSON `path`, 4-connected, each whole.

    Nodata is left out, and so is class 0 when it is called 'background'. A georeference without a coordinate reference
    system gives coordinates in its own units; one of ground control points alone is placed by the polynomial that GDAL
    fits to them. Polygons across the 180th meridian are cut there. Raises `StorageError` when the disk is full,
    `UsageError` when `path` exists; `path` does not come to exist then.
    """
    dialect = _dialect(labels)
    with staged(path) as part, part.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        separator = "\n"
        for feature in _features(labels, dialect):
            file.write(separator + json.dumps(feature, ensure_ascii=False))
            separator = ",\n"
        file.write("\n]}\n")


@dataclass(frozen=True)
class _Dialect:
    """How polygons are placed and described."""

    native: Place
    """To the map's own coordinates, or to pixels where it has none."""
    georeferenced: bool
    crs: CRS | None = None
    """The map's own, where coordinates become longitude and latitude."""
    decimals: int = 9

    def place(self, corners: Floats) -> Floats:
        """Return the coordinates (N, 2) in the file. Raises `UsageError` for corners that are not on the earth."""
        native = self.native(corners)
        if self.crs is None:
            return native
        try:
            placed = np.column_stack(transform(self.crs, WGS84, *native.T))
        except GDAL_ERRORS:
            placed = np.full(1, np.nan)
        if not np.isfinite(placed).all():
            raise UsageError("some labelled pixels have no longitude and latitude; write a COG instead of GeoJSON")
        return placed


def _dialect(labels: LabelMap) -> _Dialect:
    georeference = labels.georeference
    if georeference is None or (georeference.transform is None and not georeference.gcps):
        return _Dialect(lambda corners: corners * labels.scale[::-1] + labels.origin[::-1], False, None, 4)
    native = _affine(georeference.transform) if georeference.transform else _fitted(georeference)
    if georeference.crs is None:
        return _Dialect(native, True)
    dialect = _Dialect(native, True, CRS.from_wkt(georeference.crs))
    return replace(dialect, decimals=_decimals(dialect.place, labels.shape))


def _affine(coefficients: tuple[float, float, float, float, float, float]) -> Place:
    a, b, c, d, e, f = coefficients
    return lambda corners: corners @ np.array([[a, d], [b, e]]) + (c, f)


def _fitted(georeference: Georeference) -> Place:
    points = [GroundControlPoint(*point) for point in georeference.gcps]

    def place(corners: Floats) -> Floats:
        with warnings.catch_warnings(), GCPTransformer(points) as fit:
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            return np.column_stack(fit.xy(corners[:, 1], corners[:, 0], offset="ul"))

    return place


def _decimals(place: Place, shape: tuple[int, int]) -> int:
    """Return how many decimals place a corner within a hundredth of a pixel; at least 7, a centimetre."""
    y, x = shape[0] / 2, shape[1] / 2
    centre, right, below = place(np.array([[x, y], [x + 1, y], [x, y + 1]]))
    pixel = min(np.abs(right - centre).max(), np.abs(below - centre).max())
    return max(7, math.ceil(-math.log10(pixel)) + 2)


def _features(labels: LabelMap, dialect: _Dialect) -> Iterator[dict[str, Any]]:
    found = outlines(labels)
    while some := list(islice(found, 4096)):  # placed together because a call of PROJ is slow
        if dialect.crs:
            some = [replace(one, rings=[_with_corners_every(STEP, ring) for ring in one.rings]) for one in some]
        placed = np.round(dialect.place(np.concatenate([ring for one in some for ring in one.rings])), dialect.decimals)
        pieces = iter(np.split(placed, np.cumsum([len(ring) for one in some for ring in one.rings])[:-1]))
        for one in some:
            yield _feature(labels, one, [next(pieces) for _ in one.rings], dialect)


def _with_corners_every(step: int, ring: Floats) -> Floats:
    """Return the ring with a corner wherever an edge (along an axis) passes a multiple of `step` pixels."""
    low, high = np.minimum(ring[:-1], ring[1:]), np.maximum(ring[:-1], ring[1:])
    passing = np.ceil(high / step) - np.floor(low / step) > 1
    at: list[int] = []
    new: list[Floats] = []
    for edge, axis in np.argwhere(passing):
        between = np.arange(low[edge, axis] // step + 1, -(-high[edge, axis] // step)) * step
        points = np.repeat(ring[edge][None], len(between), 0)
        points[:, axis] = between if ring[edge, axis] < ring[edge + 1, axis] else between[::-1]
        at += [edge + 1] * len(between)
        new.append(points)
    return np.insert(ring, at, np.concatenate(new), axis=0) if at else ring


def _feature(labels: LabelMap, polygon: Outline, rings: list[Floats], dialect: _Dialect) -> dict[str, Any]:
    legend = labels.legend
    geometry = {"type": "Polygon", "coordinates": [_oriented(ring, k == 0) for k, ring in enumerate(rings)]}
    name = legend.classes[polygon.label]
    if dialect.georeferenced:
        properties: dict[str, Any] = {"class_id": polygon.label, "class_name": name}
        if labels.resolution and labels.resolution.unit == "m":
            properties["area_m2"] = round(polygon.pixels * labels.resolution.y * labels.resolution.x, 4)
        if dialect.crs and np.ptp(rings[0][:, 0]) > 180:
            geometry = _cut(polygon, dialect)
        return {"type": "Feature", "properties": properties, "geometry": geometry}
    color = list(legend.palette[polygon.label])
    return {
        "type": "Feature",
        "id": str(uuid5(NAMESPACE, f"{name}:{geometry['coordinates'][0]}")),
        "properties": {"objectType": "annotation", "classification": {"name": name, "color": color}},
        "geometry": geometry,
    }


def _cut(polygon: Outline, dialect: _Dialect) -> dict[str, Any]:
    """Return the geometry of a polygon that crosses the 180th meridian, cut there (RFC 7946, 3.1.9)."""
    geometry = {"type": "Polygon", "coordinates": [dialect.native(ring).tolist() for ring in polygon.rings]}
    cut: dict[str, Any] = transform_geom(dialect.crs, WGS84, geometry, precision=dialect.decimals)
    return cut


def _oriented(ring: Floats, outer: bool) -> list[list[float]]:
    """Return the ring's points, counter-clockwise for an outer ring and clockwise for a hole (RFC 7946, 3.1.6)."""
    points = ring if (signed_area(ring) > 0) == outer else ring[::-1]
    whole = np.array_equal(points, np.round(points))
    listed: list[list[float]] = (points.astype(int) if whole else points).tolist()
    return listed
