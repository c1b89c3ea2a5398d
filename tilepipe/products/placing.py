"""Where the corners of a label map's pixels lie: in its own coordinates, and carried to another reference system."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import GCPTransformer
from rasterio.warp import transform

from tilepipe.errors import UsageError
from tilepipe.products.cog import GDAL_ERRORS
from tilepipe.products.label_map import LabelMap
from tilepipe.products.outline import Floats
from tilepipe.sources.base import Georeference

STEP = 128
"""An edge gets a corner at every multiple of this many pixels before it is carried to another reference system: what is
straight in one is a curve in the other."""
WGS84 = CRS.from_epsg(4326)
Place = Callable[[Floats], Floats]
"""Pixel corners (N, 2) as (x, y), from the map's top left corner -> coordinates (N, 2)."""


def is_placed(labels: LabelMap) -> bool:
    """Return whether the map has coordinates of its own: a transform or ground control points."""
    known = labels.georeference
    return known is not None and (known.transform is not None or bool(known.gcps))


def native_place(labels: LabelMap) -> Place:
    """Return the way from pixel corners to the map's own coordinates.

    Without any these are full-resolution pixels of the source; ground control points alone are fitted by GDAL.
    """
    known = labels.georeference
    if known is None or not is_placed(labels):
        return lambda corners: corners * labels.scale[::-1] + labels.origin[::-1]
    return _affine(known.transform) if known.transform else _fitted(known)


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


def carried(points: Floats, own: CRS, other: CRS) -> Floats:
    """Return points (N, 2) of `own` in the reference system `other`, x before y.

    Raises `UsageError` for points that have no place there.
    """
    try:
        found = np.column_stack(transform(own, other, *points.T))
    except GDAL_ERRORS:
        found = np.full(1, np.nan)
    if not np.isfinite(found).all():
        where = "longitude and latitude" if other == WGS84 else f"place in {other.to_string()[:60]}"
        raise UsageError(f"some labelled pixels have no {where}; write a COG instead of polygons")
    return found


def with_corners_every(step: int, ring: Floats) -> Floats:
    """Return the ring with corners that are at most about `step` pixels apart, per axis.

    Edges along an axis get one wherever they pass a multiple of `step`, others at equal parts.
    """
    low, high = np.minimum(ring[:-1], ring[1:]), np.maximum(ring[:-1], ring[1:])
    oblique = (low != high).all(1)
    if oblique.any():
        ring = _divided(ring, np.where(oblique, np.ceil((high - low).max(1) / step), 1).astype(np.int64))
        low, high = np.minimum(ring[:-1], ring[1:]), np.maximum(ring[:-1], ring[1:])
    passing = np.ceil(high / step) - np.floor(low / step) > 1
    passing[(low != high).all(1)] = False
    at: list[int] = []
    new: list[Floats] = []
    for edge, axis in np.argwhere(passing):
        between = np.arange(low[edge, axis] // step + 1, -(-high[edge, axis] // step)) * step
        points = np.repeat(ring[edge][None], len(between), 0)
        points[:, axis] = between if ring[edge, axis] < ring[edge + 1, axis] else between[::-1]
        at += [edge + 1] * len(between)
        new.append(points)
    return np.insert(ring, at, np.concatenate(new), axis=0) if at else ring


def _divided(ring: Floats, parts: NDArray[np.int64]) -> Floats:
    """Return the ring with each edge cut into a number of equal `parts`, the same from whichever end."""
    start, end = np.repeat(ring[:-1], parts, 0), np.repeat(ring[1:], parts, 0)
    k = np.arange(len(start)) - np.repeat(np.cumsum(parts) - parts, parts)
    share = (k / np.repeat(parts, parts))[:, None]
    return np.concatenate([start * (1 - share) + end * share, ring[-1:]])
