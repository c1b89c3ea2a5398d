"""This module burns polygons that are the truth onto the grid of a prediction."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.evaluation.accuracy.class_map import RawMap
from tilepipe.sources.base import Georeference
from tilepipe.sources.geo_labels import IGNORE, ClassRules, polygons
from tilepipe.sources.geojson_place import points_of
from tilepipe.sources.georeference import where


@dataclass(frozen=True)
class Grid:
    """The pixels of a prediction, on which polygons are placed."""

    name: str
    """Name of the prediction."""
    shape: tuple[int, int, int]
    """Shape (1, height, width) in pixels."""
    georeference: Georeference | None
    """Position on the earth."""
    frame: tuple[int, int]
    """Point (y, x) in full-resolution pixels from which QuPath counts."""


def polygon_truth(path: Path, prediction: RawMap, rules: ClassRules) -> RawMap:
    """Return the polygons of a file as a map on the prediction's grid; values are classes, and -1 is not scored.

    Raises `InputError` if the file cannot be read, a value is no class, or no polygon lies on the prediction.
    """
    height, width = prediction.shape
    found = polygons(path, Grid(prediction.name, (1, height, width), prediction.georeference, prediction.frame), rules)
    if prediction.georeference is None or prediction.georeference.transform is None or found.file.pixels:
        # Without a position the polygons are in full-resolution pixels of the image.
        found = found.on_pixels(prediction.origin, prediction.scale)
    layers = [found.objects, *([found.area] if found.area else [])]
    extents = np.concatenate([layer.extents for layer in layers])
    if not len(extents):
        raise InputError(f"{path} holds no polygon, so it is no truth")
    y0, x0, y1, x1 = extents.T
    if not ((y1 > 0) & (x1 > 0) & (y0 < height) & (x0 < width)).any():
        points = np.concatenate([points_of(shape) for layer in layers for shape, _ in layer.shapes])
        (left, low), (right, high) = points.min(0), points.max(0)
        own = where(prediction.georeference, height, width) or f"{height} x {width} pixels from {prediction.origin}"
        raise InputError(
            f"the polygons of {path} do not lie on {prediction.name}: they cover x {left:.9g} to {right:.9g}, y "
            f"{low:.9g} to {high:.9g}, the prediction {own}. Check the CRS of both, or give the truth of this place"
        )

    def read(box: Box) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
        return found(box)

    return RawMap(
        str(path), prediction.shape, read, lambda box: None, frozenset({IGNORE}), prediction.georeference, rules.classes
    )
