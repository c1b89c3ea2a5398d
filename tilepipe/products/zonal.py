"""Statistics per polygon: how many pixels, and how much ground or tissue, each class has inside each polygon."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.box import Box
from tilepipe.errors import InputError, UsageError, public
from tilepipe.products.label_map import LabelMap, Legend
from tilepipe.products.labels import Labels, open_label_file
from tilepipe.sources.base import Georeference
from tilepipe.sources.foreign import is_array, no_image
from tilepipe.sources.geo_area import GroundArea, ground_area
from tilepipe.sources.geo_mask import Area
from tilepipe.sources.geo_vectors import read_vectors
from tilepipe.sources.geojson import LON_LAT, Feature, Features, features_of
from tilepipe.sources.geojson_place import frame, on_canvas
from tilepipe.sources.open import open_source
from tilepipe.table import Table
from tilepipe.text import JSON

SIDE = 1024
"""Side in pixels of the boxes that are read."""


@public
def zonal(labels: Any, polygons: Any, *, crs: str | None = None) -> Table:
    """Return the pixels, the share and the area of each class inside each polygon.

    A pixel counts for a polygon if its centre lies inside. Where polygons overlap, each counts its own pixels.

    Args:
        labels: `Labels`, the path of a label map, or an array of labels (height, width) of numpy or xarray.
        polygons: The path of a vector file, GeoJSON as a dict, a GeoDataFrame, or a list of polygons: GeoJSON
            geometries, or objects with `__geo_interface__` such as those of shapely.
        crs: CRS of the polygons, such as 'EPSG:4326'. If it is left out, a file and a GeoDataFrame say their own,
            GeoJSON as a dict is in longitude and latitude, and a list is in the CRS of the labels. Labels without a CRS
            have polygons in pixels of the image, x before y.

    Returns:
        One row for each polygon and class: `zone` (number of the polygon, from 1), `name` (its name or class, if it has
        one), `value` and `class`, `pixels`, `share` (of the labelled pixels of the polygon, from 0 to 1), `area_m2` or
        `area_mm2` if the size of a pixel is known, and `nodata` (pixels of the polygon without a label).

    Raises:
        InputError: A file cannot be read, or its polygons cannot be placed.
        UsageError: No polygon meets the labels.

    Example:
        >>> import tilepipe as tp
        >>> labels = tp.predict("pipelines/sample/Amazon_24_20.tif", "forest", tp.Box(0, 0, 64, 64))
        >>> square = {"type": "Polygon", "coordinates": [[[0, 0], [32, 0], [32, 10], [0, 10], [0, 0]]]}
        >>> table = tp.zonal(labels, [square])
        >>> table.columns, sum(table["pixels"])
        (('zone', 'name', 'value', 'class', 'pixels', 'share', 'nodata'), 320)
    """
    found = _map_of(labels)
    grid = _Grid("labels", (1, *found.shape), found.georeference, found.frame)
    features = _features(polygons, crs, found.georeference)
    stated = frame(features, grid.georeference, grid.name)
    if stated is None:
        shapes = [_on_map(shape, found) for shape in on_canvas(features, grid)]
    else:
        shapes = [feature.geometry for feature in features.polygons]
    ground, rows, off = ground_area(found.georeference, *found.shape), list[dict[str, object]](), list[UsageError]()
    for feature, shape in zip(features.polygons, shapes, strict=True):
        try:
            area: Area | None = Area(grid, [shape], stated or LON_LAT)  # type: ignore[arg-type]
        except UsageError as error:  # it lies off the labels
            off.append(error)
            area = None
        rows += _rows(feature, found, *_sums(found, area, ground), ground)
    if off and len(off) == len(features.polygons):
        raise off[0]
    if not rows:
        raise UsageError("no polygon is given; give at least one")
    return Table(rows)


@dataclass(frozen=True)
class _Grid:
    """The grid of a label map, on which polygons are placed."""

    name: str
    shape: tuple[int, int, int]
    georeference: Georeference | None
    frame: tuple[int, int]


def _map_of(labels: Any) -> LabelMap:
    if isinstance(labels, Labels):
        return labels.map
    if isinstance(labels, str | Path):
        return open_label_file(labels)
    if isinstance(getattr(labels, "labels", None), Labels):  # the result of a run
        found: LabelMap = labels.labels.map
        return found
    if not is_array(labels):
        raise no_image(labels)
    source = open_source(labels, name="labels")
    bands, height, width = source.shape
    if bands != 1 or source.dtype.kind != "u":
        raise InputError(f"labels are one band of uint8 or uint16, and these are {bands} of {source.dtype}")
    names = str(getattr(labels, "attrs", {}).get("flag_meanings", "")).split()
    nodata = int(np.iinfo(source.dtype).max)

    def read(box: Box) -> NDArray[np.unsignedinteger]:
        return np.asarray(source.read(box)[0], source.dtype)

    if not names:
        seen = [int(part[part != nodata].max(initial=0)) for part in map(read, _boxes(Box(0, 0, height, width)))]
        names = [str(value) for value in range(max(seen) + 1)]
    legend = Legend("labels", tuple(names), (), nodata)
    return LabelMap(
        (height, width), source.dtype, legend, read, (SIDE, SIDE), source.georeference, source.resolution
    )  # fmt: skip


def _features(polygons: Any, crs: str | None, own: Georeference | None) -> Features:
    """Return polygons that a user gives in one of several forms."""
    if isinstance(polygons, str | Path):
        return read_vectors(polygons)
    known = getattr(polygons, "crs", None)
    given = getattr(polygons, "__geo_interface__", polygons)
    if isinstance(given, Mapping):
        parts: Iterable[Any] = given.get("features", [given])
        stated = crs or (known.to_wkt() if known is not None else None)
        return features_of("the polygons", map(_item, parts), stated, geojson=stated is None)
    if not isinstance(given, Iterable):
        raise UsageError(f"a {type(polygons).__name__} holds no polygons; give a path, GeoJSON, or a list of polygons")
    stated = crs or (own.crs if own else None)
    return features_of("the polygons", map(_item, given), stated, geojson=False)


def _item(part: Any) -> tuple[object, Mapping[str, object]]:
    part = getattr(part, "__geo_interface__", part)
    if isinstance(part, Mapping) and part.get("type") == "Feature":
        return part.get("geometry"), part.get("properties") or {}
    return part, {}


def _on_map(shape: JSON, found: LabelMap) -> JSON:
    """Return a polygon in pixels of the image as one in pixels of the labels."""
    (y, x), (sy, sx) = found.origin, found.scale
    if (y, x, sy, sx) == (0, 0, 1.0, 1.0):
        return shape
    parts = [shape["coordinates"]] if shape["type"] == "Polygon" else shape["coordinates"]
    moved = [[[[(point[0] - x) / sx, (point[1] - y) / sy] for point in ring] for ring in part] for part in parts]
    return {"type": "MultiPolygon", "coordinates": moved}


def _boxes(area: Box) -> Iterator[Box]:
    for y in range(area.y0, area.y1, SIDE):
        for x in range(area.x0, area.x1, SIDE):
            yield Box(y, x, min(y + SIDE, area.y1), min(x + SIDE, area.x1))


def _sums(
    found: LabelMap, area: Area | None, ground: GroundArea | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Return the pixels and the ground of each class in an area, and the pixels without a label.

    Ground is a whole multiple of its unit.
    """
    classes = len(found.legend.classes)
    pixels, measured, nodata = np.zeros(classes, np.int64), np.zeros(classes, np.int64), 0
    inside = area.box & Box.of_shape(*found.shape) if area is not None else None
    if area is None or inside is None:
        return pixels, measured, nodata
    for box in _boxes(inside):
        within = area(box)
        if not within.any():
            continue
        values = found.read(box)
        counts = np.bincount(values[within], minlength=classes)
        nodata += int(counts[classes:].sum())
        pixels += counts[:classes]
        if ground is not None:
            begins, areas = ground.cells(box)
            for value in np.flatnonzero(counts[:classes]):
                there = np.add.reduceat((values == value) & within, begins, axis=1, dtype=np.int64)
                measured[value] += int((there * areas).sum())
    return pixels, measured, nodata


def _rows(
    feature: Feature, found: LabelMap, pixels: NDArray[np.int64], measured: NDArray[np.int64], nodata: int,
    ground: GroundArea | None,
) -> Iterator[dict[str, object]]:  # fmt: skip
    whole, size = int(pixels.sum()), found.resolution
    said = feature.properties
    classified = said.get("classification")
    name = said.get("name") or (classified.get("name") if isinstance(classified, Mapping) else None)
    name = name or said.get("class_name") or said.get("class")
    for value, word in enumerate(found.legend.classes):
        row: dict[str, object] = {
            "zone": feature.number, "name": name, "value": value, "class": word, "pixels": int(pixels[value]),
            "share": int(pixels[value]) / whole if whole else 0.0,
        }  # fmt: skip
        if ground is not None:
            row["area_m2"] = int(measured[value]) * ground.unit
        elif size is not None:
            slide = size.unit == "um"
            row["area_mm2" if slide else "area_m2"] = int(pixels[value]) * size.y * size.x / (1e6 if slide else 1)
        yield {**row, "nodata": nodata}
