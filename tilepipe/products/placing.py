"""Pixel corners of a label map get coordinates: the map's own, or coordinates in another reference system."""

from __future__ import annotations

import re
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
from tilepipe.products.label_map import LabelMap
from tilepipe.products.outline import Floats
from tilepipe.products.tiff_levels import GDAL_ERRORS
from tilepipe.sources.base import Georeference
from tilepipe.text import JSON

STEP = 128
"""Distance in pixels between the corners that an edge gets before it is carried to another reference system: a line
that is straight in one system is a curve in the other."""
CODE = re.compile(r"[A-Z]+:[0-9]+")
"""Form of a code that GeoZarr allows."""
WGS84 = CRS.from_epsg(4326)
Place = Callable[[Floats], Floats]
"""Function from pixel corners (N, 2) as (x, y), counted from the map's top left corner, to coordinates (N, 2)."""


def crs_fields(wkt: str) -> JSON:
    """Return a reference system as STAC and GeoZarr have it: `proj:code` such as EPSG:32645, else `proj:wkt2`."""
    crs = CRS.from_wkt(wkt)
    authority = crs.to_authority()
    # GDAL also names an authority for a system that is only similar.
    if authority and CODE.fullmatch(code := ":".join(authority)) and CRS.from_authority(*authority) == crs:
        return {"proj:code": code}
    return {"proj:wkt2": crs.to_wkt(version="WKT2_2019")}


def is_placed(labels: LabelMap) -> bool:
    """Return whether the map has coordinates of its own: a transform or ground control points."""
    known = labels.georeference
    return known is not None and (known.transform is not None or bool(known.gcps))


def native_place(labels: LabelMap) -> Place:
    """Return the function from pixel corners to the map's own coordinates.

    A map without coordinates gets full-resolution pixels of the source. If there are only ground control points, GDAL
    fits them.
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
            # Corners are counted from the upper left of a pixel; rasterio would take them for its centre.
            return np.column_stack(fit.xy(corners[:, 1], corners[:, 0], offset="ul"))

    return place


def carried(points: Floats, own: CRS, other: CRS) -> Floats:
    """Return points (N, 2) of the reference system `own` in the reference system `other`, x before y.

    Raises `UsageError` for points that have no place in `other`.
    """
    try:
        found = np.column_stack(transform(own, other, *points.T))
    except GDAL_ERRORS:
        # For a point without a place GDAL raises an error or gives infinity; both end in one message.
        found = np.full(1, np.nan)
    if not np.isfinite(found).all():
        where = "longitude and latitude" if other == WGS84 else f"place in {other.to_string()[:60]}"
        raise UsageError(f"some labelled pixels have no {where}; write a COG instead of polygons")
    return found


def with_corners_every(step: int, ring: Floats) -> Floats:
    """Return the ring with corners that are at most about `step` pixels apart, per axis.

    Edges along an axis get a corner at every multiple of `step`; other edges are cut into equal parts.
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
        # Multiples of `step` do not depend on where an edge begins, so two neighbours get the same corners.
        between = np.arange(low[edge, axis] // step + 1, -(-high[edge, axis] // step)) * step
        points = np.repeat(ring[edge][None], len(between), 0)
        points[:, axis] = between if ring[edge, axis] < ring[edge + 1, axis] else between[::-1]
        at += [edge + 1] * len(between)
        new.append(points)
    return np.insert(ring, at, np.concatenate(new), axis=0) if at else ring


def _divided(ring: Floats, parts: NDArray[np.int64]) -> Floats:
    """Return the ring with each edge cut into equal `parts`; the cuts are the same from either end of an edge."""
    start, end = np.repeat(ring[:-1], parts, 0), np.repeat(ring[1:], parts, 0)
    k = np.arange(len(start)) - np.repeat(np.cumsum(parts) - parts, parts)
    share = (k / np.repeat(parts, parts))[:, None]
    return np.concatenate([start * (1 - share) + end * share, ring[-1:]])
