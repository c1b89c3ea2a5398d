"""The footprint of a label map: the outline of its grid in longitude and latitude, cut at the 180th meridian."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from rasterio.crs import CRS
from rasterio.warp import transform_geom

from tilepipe.errors import UsageError
from tilepipe.products.label_map import LabelMap
from tilepipe.products.outline import Floats
from tilepipe.products.placing import WGS84, carried, is_placed, native_place
from tilepipe.products.polygons import oriented
from tilepipe.products.tiff_levels import GDAL_ERRORS
from tilepipe.text import JSON

EDGE_PARTS = 16
"""Number of parts of each edge: a line that is straight in one reference system is a curve in another."""
DECIMALS = 7
"""Number of decimals of a degree, which is a centimetre."""


def native_outline(labels: LabelMap, parts: int = EDGE_PARTS) -> Floats:
    """Return the closed outline (N, 2) of a map that has a place, in its own coordinates; each edge has `parts`."""
    height, width = labels.shape
    along = np.arange(parts) / parts
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height), (0, 0)], np.float64)
    sides = [a + along[:, None] * (b - a) for a, b in pairwise(corners)]
    return native_place(labels)(np.concatenate([*sides, corners[-1:]]))


def footprint_of(labels: LabelMap) -> JSON | None:
    """Return the outline of a map's grid as a geometry of RFC 7946; None if it has no place in longitude and latitude.

    A footprint across the 180th meridian is a MultiPolygon that is cut there.
    """
    known = labels.georeference
    if known is None or known.crs is None or not is_placed(labels):
        return None
    own = CRS.from_wkt(known.crs)
    try:
        parts = EDGE_PARTS if _is_bent(carried(native_outline(labels), own, WGS84)) else 1
        outline = {"type": "Polygon", "coordinates": [native_outline(labels, parts).tolist()]}
        # GDAL cuts at the 180th meridian, and goes around a pole that lies inside.
        found: JSON = transform_geom(own, WGS84, outline, precision=DECIMALS)
    except (UsageError, *GDAL_ERRORS):  # corners of a local system, or beyond the earth's limb
        return None
    polygons = [found["coordinates"]] if found["type"] == "Polygon" else list(found.get("coordinates", ()))
    rings = [[np.asarray(ring, np.float64)[:, :2] for ring in polygon] for polygon in polygons]
    if not rings or not all(np.isfinite(ring).all() for polygon in rings for ring in polygon):
        return None
    if any((np.abs(polygon[0][:, 0]) > 180).any() for polygon in rings):
        # GDAL leaves degrees as they are, also those of a grid from 0 to 360 or beyond 180.
        rings = [[part] for polygon in rings for part in _wrapped(polygon[0])]
    placed = [[oriented(ring, outer=k == 0) for k, ring in enumerate(polygon)] for polygon in rings]
    if len(placed) == 1:
        return {"type": "Polygon", "coordinates": placed[0]}
    return {"type": "MultiPolygon", "coordinates": placed}


def _wrapped(ring: Floats) -> list[Floats]:
    """Return the parts of a convex closed ring between -180 and 180 degrees, each moved by whole turns into this range.

    Parts that cover the whole range, twice or once, are one part.
    """
    if np.ptp(ring[:, 0]) >= 360:
        south, north = ring[:, 1].min(), ring[:, 1].max()
        return [np.array([(-180, south), (180, south), (180, north), (-180, north), (-180, south)], np.float64)]
    turns = range(math.floor((ring[:, 0].min() + 180) / 360), math.ceil((ring[:, 0].max() + 180) / 360))
    parts = [_clipped(_clipped(ring - (360 * turn, 0), 1), -1) for turn in turns]
    return [part for part in parts if len(part) > 3 and np.ptp(part[:, 0]) > 0]


def _clipped(ring: Floats, side: int) -> Floats:
    """Return the part of a closed ring with side * longitude up to 180 degrees, closed again."""
    kept: list[Floats] = []
    for a, b in pairwise(ring):
        inside = side * a[0] <= 180, side * b[0] <= 180
        if inside[0]:
            kept.append(a)
        if inside[0] != inside[1]:
            kept.append(np.array([side * 180, a[1] + (b[1] - a[1]) * (side * 180 - a[0]) / (b[0] - a[0])]))
    return np.array([*kept, *kept[:1]])


def _is_bent(lonlat: Floats) -> bool:
    """Return whether the edges of an outline, which has `EDGE_PARTS` points each, are curves."""
    corners = lonlat[::EDGE_PARTS]
    along = np.arange(EDGE_PARTS)[:, None] / EDGE_PARTS
    straight = np.concatenate([a + along * (b - a) for a, b in pairwise(corners)])
    return bool(np.abs(straight - lonlat[:-1]).max() > 10.0**-DECIMALS)


def bounds_of(footprint: JSON) -> list[float]:
    """Return [west, south, east, north] of a footprint; west is above east if it crosses the 180th meridian."""
    polygons = footprint["coordinates"] if footprint["type"] == "MultiPolygon" else [footprint["coordinates"]]
    outer = [np.asarray(polygon[0]) for polygon in polygons]
    south, north = min(ring[:, 1].min() for ring in outer), max(ring[:, 1].max() for ring in outer)
    spans = [(float(ring[:, 0].min()), float(ring[:, 0].max())) for ring in outer]
    west, east = min(span[0] for span in spans), max(span[1] for span in spans)
    left = [span for span in spans if math.isclose(span[0], -180)]
    right = [span for span in spans if math.isclose(span[1], 180)]
    if left and right and len(spans) > 1:
        west, east = min(span[0] for span in right), max(span[1] for span in left)
    return [west, float(south), east, float(north)]
