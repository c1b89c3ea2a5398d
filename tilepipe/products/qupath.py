"""Objects of a label map are written as GeoJSON for QuPath: detections, or annotations, with measurements.

Coordinates are full-resolution pixels in QuPath's own frame, which begins at the corner of a slide's bounds. Files stay
small: outlines are simplified by `TOLERANCE`, and numbers have at most two decimals. Features stream, one in a line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from uuid import UUID, uuid5

import numpy as np

from tilepipe.products.label_map import LABELS, LabelMap
from tilepipe.products.material import Material
from tilepipe.products.object_table import diameter
from tilepipe.products.objects import MapObject, objects
from tilepipe.products.outline import Floats
from tilepipe.products.polygons import NAMESPACE, oriented, slide_place
from tilepipe.products.ruler import Ruler
from tilepipe.products.staging import staged
from tilepipe.text import JSON

TOLERANCE = 0.75
"""Largest distance in pixels of an outline from the outline of the pixels, whose stairs become lines."""
BATCH = 512
"""Number of objects whose outlines are simplified together."""
PLACES = 2
"""Number of decimals of a coordinate."""
UNITS = {"um": "µm", "m": "m", "px": "px"}


def write_qupath(material: Material, path: Path) -> None:
    """Write the objects of the labels as a GeoJSON file that QuPath imports, at the new path `path`.

    Raises `StorageError` if the disk is full, `UsageError` if `path` exists.
    """
    with staged(path) as part, part.open("w", encoding="utf-8") as file:
        file.write('{"type":"FeatureCollection","features":[')
        separator = "\n"
        for feature in _features(material):
            # Blanks after separators would make a file of half a million objects longer by many megabytes.
            file.write(separator + json.dumps(feature, ensure_ascii=False, separators=(",", ":")))
            separator = ",\n"
        file.write("\n]}\n")


def _features(material: Material) -> Iterator[JSON]:
    labels, found = material.maps[LABELS], objects(material)
    place, unit = slide_place(labels), UNITS[Ruler.of(labels).unit]
    kind = "annotation" if material.options.annotations else "detection"
    space = uuid5(NAMESPACE, f"{kind} {labels.legend.name}")
    while some := list(islice(found, BATCH)):
        for one, rings in zip(some, _simple([one.outline.rings for one in some]), strict=True):
            coordinates = [oriented(np.round(place(ring), PLACES), outer=k == 0) for k, ring in enumerate(rings)]
            yield {
                "type": "Feature",
                "id": str(_name(space, one, coordinates)),
                "geometry": {"type": "Polygon", "coordinates": coordinates},
                "properties": _properties(one, labels, kind, unit),
            }


def _name(space: UUID, one: MapObject, coordinates: object) -> UUID:
    return uuid5(space, f"{one.number} {coordinates}")


def _simple(polygons: list[list[Floats]]) -> list[list[Floats]]:
    """Return polygons of simplified rings; a polygon that would not be valid stays as it is."""
    from tilepipe.products.arcs import are_valid, simplified

    lines = iter(simplified([ring for rings in polygons for ring in rings], TOLERANCE))
    simple = [[next(lines) for _ in rings] for rings in polygons]
    return [new if good else old for new, old, good in zip(simple, polygons, are_valid(simple), strict=True)]


def _properties(one: MapObject, labels: LabelMap, kind: str, unit: str) -> JSON:
    name = labels.legend.classes[one.outline.label]
    figures: dict[str, float | None] = {
        f"Area {unit}^2" if unit != "px" else "Area px": one.area,
        f"Perimeter {unit}": one.perimeter,
        f"Diameter {unit}": diameter(one.area),
        "Eccentricity": one.shape.eccentricity,
        "Solidity": one.shape.solidity,
        **{f"Band {k}: Mean": mean for k, mean in enumerate(one.means, 1)},
        "Margin": one.margin,
    }
    return {
        "objectType": kind,
        "name": f"{name} {one.number}",
        "classification": {"name": name, "color": list(labels.legend.palette[one.outline.label])},
        "isLocked": True,
        "measurements": {key: float(f"{value:.4g}") for key, value in figures.items() if value is not None},
    }
