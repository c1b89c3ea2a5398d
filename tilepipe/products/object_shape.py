"""The shape of an object is computed from the rings of pixel corners around it, in pure numpy and scipy.

A polygon of pixel corners covers exactly the pixels of the object, so its area and moments are those of the pixels.
Sums are rounded once, at the end: they do not depend on the corner at which a ring begins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from tilepipe.box import Box

Rings = Sequence[NDArray[np.float64]]
"""Closed rings of pixel corners (n, 2) as (x, y), the outer one first, then holes."""


@dataclass(frozen=True)
class Shape:
    """The shape of an object, in pixels of the label map."""

    pixels: int
    """Number of pixels."""
    y: float
    """Row of the centroid; whole numbers are pixel edges."""
    x: float
    """Column of the centroid; whole numbers are pixel edges."""
    eccentricity: float
    """Eccentricity of the ellipse with the same second moments of pixel centres: 0 for a circle, always below 1."""
    solidity: float
    """Area of the object over the area of its pixels' convex hull, from 0 to 1."""
    box: Box
    """Smallest box of pixels around the object."""


def bounds(rings: Rings) -> Box:
    """Return the smallest box of pixels around an object."""
    (left, top), (right, bottom) = rings[0].min(0), rings[0].max(0)
    return Box(int(top), int(left), int(bottom), int(right))


def shape_of(rings: Rings) -> Shape:
    """Return the shape of an object."""
    outer, box = rings[0], bounds(rings)
    left, top = box.x0, box.y0
    # The squares of coordinates far from the origin would lose digits, so the box's corner is the origin.
    terms = [_moments(ring - (left, top), hole=k > 0) for k, ring in enumerate(rings)]
    area, sx, sy, sxx, syy, sxy = (math.fsum(sums) for sums in np.concatenate(terms, axis=1))
    x, y = sx / area, sy / area
    # Moments of pixel centres are the moments of the area, less the moments of each pixel around its own centre.
    xx, yy, xy = sxx / area - x * x - 1 / 12, syy / area - y * y - 1 / 12, sxy / area - x * y
    spread = math.hypot(xx - yy, 2 * xy)
    longest, shortest = (xx + yy + spread) / 2, (xx + yy - spread) / 2
    # A single pixel has no second moments, and nothing can be divided by 0.
    eccentricity = math.sqrt(max(0.0, 1 - shortest / longest)) if longest > 1e-12 else 0.0
    hull = outer[scipy.spatial.ConvexHull(outer[:-1]).vertices] - (left, top)
    return Shape(
        pixels=round(area),
        y=top + y,
        x=left + x,
        eccentricity=min(eccentricity, 1.0),
        solidity=area / abs(math.fsum(_crosses(np.concatenate([hull, hull[:1]]))) / 2),
        box=box,
    )


def _crosses(ring: NDArray[np.float64]) -> NDArray[np.float64]:
    x, y = ring.T
    return np.asarray(x[:-1] * y[1:] - x[1:] * y[:-1])


def _moments(ring: NDArray[np.float64], *, hole: bool) -> NDArray[np.float64]:
    """Return the terms (6, n), by edge, of the integrals of 1, x, y, x x, y y and x y over a ring; negative for holes.

    By Green's theorem; see Steger (1996), On the calculation of arbitrary moments of polygons.
    """
    cross = _crosses(ring)
    if (cross.sum() < 0) != hole:
        cross = -cross
    (x0, y0), (x1, y1) = ring[:-1].T, ring[1:].T
    return np.stack(
        [
            cross / 2,
            (x0 + x1) * cross / 6,
            (y0 + y1) * cross / 6,
            (x0 * x0 + x0 * x1 + x1 * x1) * cross / 12,
            (y0 * y0 + y0 * y1 + y1 * y1) * cross / 12,
            (2 * x0 * y0 + x0 * y1 + x1 * y0 + 2 * x1 * y1) * cross / 24,
        ]
    )


def mask_of(rings: Rings, box: Box) -> NDArray[np.bool_]:
    """Return which pixels of a box lie inside the rings, (box.height, box.width)."""
    turns = np.zeros((box.height, box.width + 1), bool)
    for ring in rings:
        (x0, y0), (x1, y1) = ring[:-1].T.astype(np.int64), ring[1:].T.astype(np.int64)
        # An edge to the left of the box still decides which pixels to its right are inside.
        upright = (x0 == x1) & (x0 < box.x1)
        x = np.maximum(x0[upright] - box.x0, 0)
        first = np.clip(np.minimum(y0, y1)[upright] - box.y0, 0, box.height)
        last = np.clip(np.maximum(y0, y1)[upright] - box.y0, 0, box.height)
        lengths = last - first
        ends = np.cumsum(lengths)
        rows = np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - lengths - first, lengths)
        # Two edges may lie in one cell; `turns[...] ^= True` would count them once.
        np.logical_xor.at(turns, (rows, np.repeat(x, lengths)), True)
    return np.asarray(np.logical_xor.accumulate(turns[:, :-1], axis=1))
