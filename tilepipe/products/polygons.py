"""A label map is written as GeoJSON polygons, feature by feature.

There are two dialects. Rasters with a position on the earth follow RFC 7946: longitude and latitude on WGS84, with
`class_id`, `class_name` and `area_m2`, which is measured as in tables of polygons. Slides and plain arrays have
full-resolution (level 0) pixels in QuPath's frame, as QuPath imports them by drag and drop, with `objectType`,
`classification` and a UUID. Polygons follow pixel corners, holes are inner rings, and a region of any size is one
polygon (see `outlines`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from uuid import UUID, uuid5

import numpy as np
from rasterio.crs import CRS
from rasterio.warp import transform_geom

from tilepipe.products.cleanup import cleaned
from tilepipe.products.label_map import LabelMap, Legend
from tilepipe.products.material import Material
from tilepipe.products.outline import Floats, Outline, signed_area
from tilepipe.products.placing import (
    STEP,
    WGS84,
    Place,
    carried,
    is_placed,
    native_place,
    with_corners_every,
)  # fmt: skip
from tilepipe.products.ruler import Ruler
from tilepipe.products.staging import staged
from tilepipe.products.vector_options import PLAIN, VectorOptions
from tilepipe.text import JSON

MEMORY = 256 * 2**20
"""Memory in bytes that `write_geojson` needs beyond the label map itself and its largest region. We measured 194 MB for
2048 x 2048 pixels of random labels (a million features), 61 MB for random squares of 8 x 8 pixels, and 289 MB for one
region of 4096 x 4096 pixels with 200,000 holes."""
DIGITS = 10
"""Number of digits of an area."""
NAMESPACE = UUID("6f1d7b0e-3c52-5d0a-9a57-6c1d1f6f2f31")
"""Namespace of the polygons' UUIDs (RFC 9562, version 5): the same label map gives the same file."""


def write_geojson_of(material: Material, path: Path) -> None:
    """Write the regions of the labels; see `write_geojson`."""
    write_geojson(material.map, path, material.options)


def write_geojson(labels: LabelMap, path: Path, options: VectorOptions = PLAIN) -> None:
    """Write the regions of each class as polygons to the new GeoJSON `path`, 4-connected, each whole.

    Nodata is left out, and so is class 0 if it is called 'background'. A georeference without a coordinate reference
    system gives coordinates in its own units. If there are only ground control points, GDAL fits a polynomial to them.
    Polygons across the 180th meridian are cut there. Raises `UsageError` if `path` exists, and `StorageError` if the
    disk is full; `path` does not come to exist then.
    """
    dialect = _dialect(labels)
    with staged(path) as part, part.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        separator = "\n"
        for feature in _features(labels, options, dialect):
            # JSON is UTF-8, so the letters of a name need no escape.
            file.write(separator + json.dumps(feature, ensure_ascii=False))
            separator = ",\n"
        file.write("\n]}\n")


@dataclass(frozen=True)
class _Dialect:
    """How polygons are placed and described."""

    native: Place
    """Function from pixel corners to the map's own coordinates, or to pixels if the map has none."""
    georeferenced: bool
    crs: CRS | None = None
    """Reference system of the map, if coordinates become longitude and latitude."""
    decimals: int = 9

    def place(self, corners: Floats) -> Floats:
        """Return the coordinates (N, 2) in the file. Raises `UsageError` for corners that are not on the earth."""
        native = self.native(corners)
        return native if self.crs is None else carried(native, self.crs, WGS84)


def slide_place(labels: LabelMap) -> Place:
    """Return the function from pixel corners to QuPath's frame, which begins at the corner of a slide's bounds."""
    native, corner = native_place(labels), labels.frame[::-1]
    return lambda corners: native(corners) - corner


def _dialect(labels: LabelMap) -> _Dialect:
    georeference = labels.georeference
    native = native_place(labels)
    if not is_placed(labels):
        return _Dialect(slide_place(labels), False, None, 4)
    if georeference is None or georeference.crs is None:
        return _Dialect(native, True)
    dialect = _Dialect(native, True, CRS.from_wkt(georeference.crs))
    return replace(dialect, decimals=_decimals(dialect.place, labels.shape))


def _decimals(place: Place, shape: tuple[int, int]) -> int:
    """Return how many decimals place a corner within a hundredth of a pixel; at least 7, which is a centimetre."""
    y, x = shape[0] / 2, shape[1] / 2
    centre, right, below = place(np.array([[x, y], [x + 1, y], [x, y + 1]]))
    pixel = min(np.abs(right - centre).max(), np.abs(below - centre).max())
    return max(7, math.ceil(-math.log10(pixel)) + 2)


def _features(labels: LabelMap, options: VectorOptions, dialect: _Dialect) -> Iterator[JSON]:
    found, ruler = cleaned(labels, options), Ruler.of(labels)
    measured = dialect.georeferenced and ruler.unit == "m"
    while some := list(islice(found, 4096)):  # these are placed together because a call of PROJ is slow
        areas = ruler.measure([one.rings for one in some])[0].tolist() if measured else [None] * len(some)
        if dialect.crs:
            some = [replace(one, rings=[with_corners_every(STEP, ring) for ring in one.rings]) for one in some]
        placed = np.round(dialect.place(np.concatenate([ring for one in some for ring in one.rings])), dialect.decimals)
        pieces = iter(np.split(placed, np.cumsum([len(ring) for one in some for ring in one.rings])[:-1]))
        for one, area in zip(some, areas, strict=True):
            yield _feature(labels.legend, one, [next(pieces) for _ in one.rings], area, dialect)


def _feature(legend: Legend, polygon: Outline, rings: list[Floats], area: float | None, dialect: _Dialect) -> JSON:
    """Return a feature; `area` is the polygon's area in square metres if it is known."""
    geometry = {"type": "Polygon", "coordinates": [oriented(ring, outer=k == 0) for k, ring in enumerate(rings)]}
    name = legend.classes[polygon.label]
    if dialect.georeferenced:
        properties: JSON = {"class_id": polygon.label, "class_name": name}
        if area is not None:
            # Digits and not decimals are kept, since pixels may be kilometres or millimetres wide.
            properties["area_m2"] = float(f"{area:.{DIGITS}g}")
        # A region wider than half of the earth is taken for one that crosses the 180th meridian.
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


def _cut(polygon: Outline, dialect: _Dialect) -> JSON:
    """Return the geometry of a polygon across the 180th meridian, which is cut there (RFC 7946, 3.1.9)."""
    geometry = {"type": "Polygon", "coordinates": [dialect.native(ring).tolist() for ring in polygon.rings]}
    cut: JSON = transform_geom(dialect.crs, WGS84, geometry, precision=dialect.decimals)
    return cut


def oriented(ring: Floats, *, outer: bool) -> list[list[float]]:
    """Return the ring's points: counter-clockwise for an outer ring, clockwise for a hole (RFC 7946, 3.1.6)."""
    points = ring if (signed_area(ring) > 0) == outer else ring[::-1]
    # Whole numbers are written without '.0', which keeps the files of slides short.
    whole = np.array_equal(points, np.round(points))
    listed: list[list[float]] = (points.astype(int) if whole else points).tolist()
    return listed
