"""Reads labels from polygons of any vector file or of COCO JSON, and burns them into pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.features import rasterize
from rasterio.transform import Affine

from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.sources.geo_coco import coco_of, read_coco
from tilepipe.sources.geo_vectors import read_vectors, vector_files
from tilepipe.sources.geojson import Features, Geometry
from tilepipe.sources.geojson_place import Placed, placed, points_of
from tilepipe.sources.handles import Stamp, stamp
from tilepipe.text import JSON

IGNORE = -1
IGNORED_NAME = "Ignore*"
"""QuPath's name for areas that are of no clear class; they are not trained on and not scored."""
NAMES = ("classification", "class_name")
"""Properties that hold the class if no property is named: QuPath's, and that of tilepipe's own polygons of maps."""
MISSING = "None"
"""Class of a polygon that has no value in the attribute that is named."""
SHOWN = 12
"""Largest number of unknown names in a message."""


@dataclass(frozen=True)
class ClassRules:
    """How polygons get their class."""

    classes: tuple[str, ...]
    """Class names by label value, from 0."""
    attribute: str | None = None
    """Attribute that holds the class: its name, or a number."""
    area: str | None = None
    """Class of the polygons that bound what is labelled; None if the whole image is labelled."""
    layer: str | None = None
    """Layer of the file, if it has several."""
    values: Mapping[int, int] | None = None
    """Class of each number in the attribute; None if numbers are classes already."""
    other: int | None = None
    """Class of all other values of the attribute; None refuses them."""
    ignore: tuple[int, ...] = ()
    """Numbers in the attribute that are neither trained on nor scored."""

    def number(self, value: object) -> int | None:
        """Return the class of an attribute's value, -1 to ignore it; None if it has no class."""
        if value is None and self.attribute is None:
            return 1
        if value in self.classes:
            return self.classes.index(str(value))
        # The classes come first, so a class that is called like QuPath's `Ignore*` is a class.
        if value == IGNORED_NAME:
            return IGNORE
        number = _whole(value) if self.attribute is not None else None
        if number is not None and number in self.ignore:
            return IGNORE
        known = dict(self.values) if self.values is not None else {k: k for k in range(len(self.classes))}
        return known.get(number, self.other) if number is not None else self.other


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
    unnamed: int = 0
    """Number of polygons that have no class, and so class 1, in a file in which others have one."""

    def __call__(self, box: Box) -> NDArray[np.int64]:
        """Return the classes of a box of full-resolution pixels; -1 outside the area and for ignored pixels."""
        inside = None if self.area is None else self.area.burnt(box) > 0
        if inside is not None and not inside.any():
            return np.full(box.shape, IGNORE, np.int64)
        classes = self.objects.burnt(box)
        return classes if inside is None else np.where(inside, classes, IGNORE)

    def on_pixels(self, origin: tuple[int, int], scale: tuple[float, float]) -> Polygons:
        """Return polygons in full-resolution pixels on a grid that begins at `origin` (y, x), and whose pixels are
        `scale` (y, x) full ones."""
        to_map = Affine.translation(origin[1], origin[0]) * Affine.scale(scale[1], scale[0])
        area = None if self.area is None else Layer.of(self.area.shapes, to_map)
        return Polygons(Layer.of(self.objects.shapes, to_map), area, self.file, self.unnamed)


def polygons(path: Path, image: Placed, rules: ClassRules) -> Polygons:
    """Read the polygons in `path` that label `image`. Raises `InputError` if the file cannot be read, or names are
    missing."""
    state = tuple(stamp(file) for file in vector_files(path))
    document = _coco(path, state)
    found = _vectors(path, rules.layer, state) if document is None else read_coco(path, document, image)
    known = image.georeference
    if known is not None and known.transform is None and not found.pixels:
        raise InputError(f"{image.name} has ground control points only; rasterise {path} yourself and give the raster")
    on_map = known is not None and known.transform is not None and not found.pixels
    to_map = Affine(*known.transform) if known and known.transform and on_map else Affine.identity()
    names = names_of(found, rules.attribute)
    named = list(zip(placed(found, image), names, strict=True))
    areas = [(geometry, 1) for geometry, name in named if rules.area is not None and name == rules.area]
    if rules.area is not None and not areas:
        raise InputError(f"{path} holds no polygon of class {rules.area!r}, which area says bounds what is labelled")
    objects = [(geometry, name) for geometry, name in named if rules.area is None or name != rules.area]
    values = [rules.number(name) for _, name in objects]
    without = sum(name == MISSING for _, name in objects) if rules.attribute is not None else 0
    if without and any(k is None and name == MISSING for (_, name), k in zip(objects, values, strict=True)):
        raise InputError(
            f"{path}: {without} of {len(objects)} polygons have no {rules.attribute}; give them one of "
            f"{', '.join(rules.classes)}, or leave them out: ogr2ogr -where '\"{rules.attribute}\" IS NOT NULL' "
            f"with_class.gpkg {path}"
        )
    if unknown := sorted({str(name) for (_, name), k in zip(objects, values, strict=True) if k is None}):
        more = f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
        raise InputError(
            f"{path}: {rules.attribute or 'the class'} of polygons is {', '.join(map(repr, unknown[:SHOWN]))}{more}, "
            f"which is none of {', '.join(rules.classes)}; add it to classes, or name it otherwise in the file"
        )
    unnamed = [name for _, name in objects].count(None)
    unnamed = unnamed if unnamed < len(objects) else 0
    shapes = [(geometry, k) for (geometry, _), k in zip(objects, values, strict=True) if k is not None]
    return Polygons(Layer.of(shapes, to_map), Layer.of(areas, to_map) if areas else None, found, unnamed)


@lru_cache(maxsize=2)
def _coco(path: Path, _state: tuple[Stamp, ...]) -> JSON | None:
    """Return COCO JSON; one file may label a thousand images, and is read once as long as it does not change."""
    return coco_of(path)


@lru_cache(maxsize=2)
def _vectors(path: Path, layer: str | None, _state: tuple[Stamp, ...]) -> Features:
    return read_vectors(path, layer)


def names_of(found: Features, attribute: str | None) -> list[object]:
    """Return the class of each polygon as the file has it. Raises `InputError` if no polygon has the attribute."""
    columns = {name for feature in found.polygons for name in feature.properties}
    if attribute is not None and found.polygons and attribute not in columns:
        listed = ", ".join(sorted(columns)) or "none"
        raise InputError(f"{found.path}: no polygon has the attribute {attribute!r}; there are {listed}")
    return [_name(feature.properties, attribute) for feature in found.polygons]


def _name(properties: Mapping[str, object], attribute: str | None) -> object:
    """Return the class of a polygon. None, which stands for class 1, is returned only if no attribute is named."""
    keys = [attribute] if attribute is not None else [*NAMES]
    if attribute is None and "class" in properties:
        keys.append("name")  # a table of tilepipe has the number of the class, and its name beside it
    value = next((properties[key] for key in keys if properties.get(key) is not None), None)
    # QuPath writes {"name": "Tumor"}, and for derived classes {"names": ["Tumor", "Positive"]}.
    if isinstance(value, dict):
        value = value.get("name") or ": ".join(value.get("names") or []) or None
    if value is None:
        return None if attribute is None else MISSING
    return value if attribute is not None and isinstance(value, int | float) else str(value)


def _whole(value: object) -> int | None:
    """Return a whole number that stands in an attribute as a number or as text; None for anything else."""
    try:
        number = float(str(value))
    except ValueError:
        return None
    return int(number) if number.is_integer() else None


def _extent(geometry: Geometry, to_pixels: Affine) -> tuple[float, float, float, float]:
    """Return (y0, x0, y1, x1) of a polygon in pixels."""
    x, y = points_of(geometry).T
    a, b, c, d, e, f = to_pixels[:6]
    x, y = a * x + b * y + c, d * x + e * y + f
    return float(y.min()), float(x.min()), float(y.max()), float(x.max())
