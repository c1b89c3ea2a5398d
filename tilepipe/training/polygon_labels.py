"""This module reads labels from polygons (GeoJSON of QuPath, QGIS or `tilepipe segment`) and burns them into pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.features import rasterize
from rasterio.transform import Affine

from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.sources.base import Source
from tilepipe.sources.geojson import Features, Geometry, read_geojson
from tilepipe.sources.geojson_place import placed, points_of
from tilepipe.training.config import Scenes

VECTORS = (".geojson", ".json")
IGNORE = -1
IGNORED_NAME = "Ignore*"
"""QuPath's name for areas that are of no clear class; they are not trained on and not scored."""
NAMES = ("classification", "class_name")
"""Properties that hold the class if no property is named: QuPath's, and that of tilepipe's own polygons of maps."""


@dataclass(frozen=True, eq=False)
class Layer:
    """Polygons of one kind, each with the value that it is burnt with."""

    shapes: list[tuple[Geometry, int]]
    """Pairs (geometry in the image's coordinates, value)."""
    to_map: Affine
    """Transform from the image's pixels to its coordinates."""
    extents: NDArray[np.float64]
    """Extents (n, 4) of the polygons: y0, x0, y1, x1 in full-resolution pixels."""

    @classmethod
    def of(cls, shapes: list[tuple[Geometry, int]], to_map: Affine) -> Layer:
        """Measure the polygons and return them as a layer."""
        extents = [_extent(shape, ~to_map) for shape, _ in shapes]
        # Without polygons the array has no second axis of its own.
        return cls(shapes, to_map, np.array(extents).reshape(-1, 4))

    def burnt(self, box: Box) -> NDArray[np.int64]:
        """Return for each pixel of `box` the value of the last polygon that holds its centre; 0 if no polygon does."""
        y0, x0, y1, x1 = self.extents.T
        # A scene is read box by box, and burning all polygons of a large file for each box would take long.
        near = np.flatnonzero((y0 <= box.y1) & (y1 >= box.y0) & (x0 <= box.x1) & (x1 >= box.x0))
        if not len(near):
            return np.zeros(box.shape, np.int64)
        corner = self.to_map * Affine.translation(box.x0, box.y0)
        burnt = rasterize([self.shapes[k] for k in near], box.shape, transform=corner, dtype="int32")
        return np.asarray(burnt, np.int64)


@dataclass(frozen=True, eq=False)
class Polygons:
    """Labels by polygon: the classes of `objects` are burnt over class 0."""

    objects: Layer
    area: Layer | None
    """Polygons of the labelled area; None if the whole image is labelled."""
    file: Features
    """Content of the file."""

    def __call__(self, box: Box) -> NDArray[np.int64]:
        """Return the classes of a box of full-resolution pixels; -1 outside the area and for ignored pixels."""
        inside = None if self.area is None else self.area.burnt(box) > 0
        if inside is not None and not inside.any():
            return np.full(box.shape, IGNORE, np.int64)
        classes = self.objects.burnt(box)
        return classes if inside is None else np.where(inside, classes, IGNORE)


def polygons(path: Path, image: Source, entry: Scenes, classes: tuple[str, ...]) -> Polygons:
    """Read the polygons in `path` that label `image`. Raises `InputError` if it is not GeoJSON, or names are
    missing."""
    known = image.georeference
    if known is not None and known.transform is None:
        raise InputError(f"{image.name} has ground control points only; rasterise {path} yourself and give the raster")
    to_map = Affine(*known.transform) if known and known.transform else Affine.identity()
    found = read_geojson(path)
    named = _named(found, image, entry.attribute)
    areas = [(geometry, 1) for geometry, name in named if entry.area is not None and name == entry.area]
    if entry.area is not None and not areas:
        raise InputError(f"{path} holds no polygon of class {entry.area!r}, which area says bounds what is labelled")
    objects = [(geometry, name) for geometry, name in named if entry.area is None or name != entry.area]
    # The classes come last, so a class that is called like QuPath's `Ignore*` is a class.
    values: dict[str | None, int] = {None: 1, IGNORED_NAME: IGNORE, **{name: k for k, name in enumerate(classes)}}
    if unknown := sorted({str(name) for _, name in objects if name not in values}):
        raise InputError(
            f"{path}: {entry.attribute or 'the class'} of polygons is {', '.join(map(repr, unknown))}, which is none "
            f"of {', '.join(classes)}; add it to classes, or name it otherwise in the file"
        )
    burnt = Layer.of([(geometry, values[name]) for geometry, name in objects], to_map)
    return Polygons(burnt, Layer.of(areas, to_map) if areas else None, found)


def _named(found: Features, image: Source, attribute: str | None) -> list[tuple[Geometry, str | None]]:
    """Return (geometry in the image's coordinates, class name) of each feature."""
    names = [_name(feature.properties, attribute) for feature in found.polygons]
    return list(zip(placed(found, image), names, strict=True))


def _name(properties: Mapping[str, object], attribute: str | None) -> str | None:
    """Return the class name of a polygon. None, which stands for class 1, is returned only if no attribute is named."""
    keys = NAMES if attribute is None else (attribute,)
    value = next((properties[key] for key in keys if properties.get(key) is not None), None)
    # QuPath writes {"name": "Tumor"}, and for derived classes {"names": ["Tumor", "Positive"]}.
    if isinstance(value, dict):
        value = value.get("name") or ": ".join(value.get("names") or []) or None
    return None if value is None and attribute is None else str(value)


def _extent(geometry: Geometry, to_pixels: Affine) -> tuple[float, float, float, float]:
    """Return (y0, x0, y1, x1) of a polygon in pixels."""
    x, y = points_of(geometry).T
    a, b, c, d, e, f = to_pixels[:6]
    x, y = a * x + b * y + c, d * x + e * y + f
    return float(y.min()), float(x.min()), float(y.max()), float(x.max())
