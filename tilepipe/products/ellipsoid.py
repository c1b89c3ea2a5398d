"""Areas and lengths of many rings on the WGS 84 ellipsoid are computed at once, in pure numpy.

The area below an edge is computed in the equal-area cylindrical projection of the ellipsoid (Snyder 1987, equation
3-12): the area is exact for edges that are straight in this projection. The length of an edge is computed with the
ellipsoid's radii of curvature at the middle of the edge. Both are good for short edges, so callers put corners into
long edges.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tilepipe.sources.georeference import ECCENTRICITY2, EQUATOR

Floats = NDArray[np.float64]
_E = math.sqrt(ECCENTRICITY2)


def areas_and_lengths(lonlat: Floats, sizes: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return areas [m2] and lengths [m] of closed rings.

    `lonlat` (N, 2) holds longitude and latitude in degrees of all rings, one after the other. `sizes` holds the number
    of points of each ring. Rings may cross the 180th meridian or go around a pole.
    """
    lon, lat = np.radians(lonlat).T
    starts = np.cumsum(sizes) - sizes
    inside = np.ones(len(lon), bool)
    inside[starts + sizes - 1] = False  # there is no edge from one ring to the next
    # Of the two ways around the earth, an edge goes the shorter one; so it may cross the 180th meridian.
    turn = np.where(inside, (np.diff(lon, append=0) + math.pi) % (2 * math.pi) - math.pi, 0)
    rise = np.where(inside, np.diff(lat, append=0), 0)
    middle = lat + rise / 2

    q = _authalic(lat)
    first = np.repeat(q[starts], sizes)  # heights over the first point: differences of small rings keep their digits
    heights = np.where(inside, (q + np.append(q[1:], 0)) / 2 - first, 0)
    around = np.add.reduceat(turn, starts)
    sums = np.add.reduceat(turn * heights, starts)
    # A ring around a pole turns by a whole circle. Its area then reaches to the pole and not to the height of its first
    # point.
    polar = np.abs(around) > math.pi
    pole = np.copysign(_authalic(np.array([math.pi / 2]))[0], lat[starts])
    sums = np.where(polar, sums + around * (q[starts] - pole), sums)

    bend = 1 - ECCENTRICITY2 * np.sin(middle) ** 2
    north = EQUATOR * (1 - ECCENTRICITY2) / bend**1.5 * rise
    east = EQUATOR / np.sqrt(bend) * np.cos(middle) * turn
    return np.abs(sums) * EQUATOR**2 / 2, np.add.reduceat(np.hypot(north, east), starts)


def _authalic(lat: Floats) -> Floats:
    """Return q of Snyder's equation 3-12: the area from the equator to a latitude is proportional to it."""
    s = np.sin(lat)
    found: Floats = (1 - ECCENTRICITY2) * (s / (1 - ECCENTRICITY2 * s**2) + np.arctanh(_E * s) / _E)
    return found
