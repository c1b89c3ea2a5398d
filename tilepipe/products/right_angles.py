"""Outlines of buildings get right angles: edges run along the building's main direction or across it."""

from __future__ import annotations

import numpy as np
import shapely

from tilepipe.products.outline import Floats

ALIKE = 0.7
"""Least intersection over union with the region; if a right-angled shape is less alike, the outline stays."""
PLAINER = 0.04
"""Intersection over union that is given up for a shape of fewer corners."""


def right_angled(rings: list[Floats], region: list[Floats], step: float) -> list[Floats] | None:
    """Return rings whose edges meet at right angles, or None if they would be too unlike the region, or not valid.

    `rings` is a simplified outline and `region` the traced outline: closed rings (N, 2) in a unit of length. Edges
    shorter than `step` are left out. Three directions are tried: the mean direction of the edges, the longest edge, and
    the smallest rectangle around the region. The shape closest to the region is taken, or a shape with fewer corners if
    it is hardly less alike.
    """
    wanted = shapely.Polygon(region[0], region[1:])
    found: list[tuple[float, list[Floats]]] = []
    around = shapely.get_coordinates(shapely.oriented_envelope(wanted))
    angles = _direction(rings[0]), _longest(rings[0]), _direction(around)
    for angle in angles:
        turned = [_squared(ring @ _turn(-angle), step) for ring in rings]
        if turned[0] is None:
            continue
        squared = [ring @ _turn(angle) for ring in turned if ring is not None]
        shape = shapely.Polygon(squared[0], squared[1:])
        if shape.is_valid:
            found.append((_alike(shape, wanted), squared))
    best = max((alike for alike, _ in found), default=0.0)
    good = [one for one in found if one[0] >= max(ALIKE, best - PLAINER)]
    return min(good, key=lambda one: (sum(map(len, one[1])), -one[0]))[1] if good else None


def _longest(ring: Floats) -> float:
    """Return the angle of the longest edge in radians."""
    edges = np.diff(ring, axis=0)
    return float(np.arctan2(*edges[np.argmax(np.hypot(*edges.T))][::-1]))


def _alike(one: shapely.Polygon, other: shapely.Polygon) -> float:
    """Return the intersection over union of two polygons."""
    return float(shapely.intersection(one, other).area / shapely.union(one, other).area)


def _direction(ring: Floats) -> float:
    """Return the angle of the edges, up to right angles; long edges weigh most."""
    edges = np.diff(ring, axis=0)
    lengths = np.hypot(*edges.T)
    # Edges at right angles to each other have the same angle times four, so their directions add up.
    fourfold = (lengths**2 * np.exp(4j * np.arctan2(edges[:, 1], edges[:, 0]))).sum()
    return float(np.angle(fourfold) / 4)


def _turn(angle: float) -> Floats:
    """Return the matrix that turns points (N, 2) from the left."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, s], [-s, c]])


def _squared(ring: Floats, step: float) -> Floats | None:
    """Return the ring with edges along the axes only; None if fewer than four are left.

    Edges in a row that are nearer to one axis become one line, at their mean place. Then the shortest edges are
    removed, and the lines before and after each removed edge become one.
    """
    edges, middles = np.diff(ring, axis=0), (ring[:-1] + ring[1:]) / 2
    along = np.abs(edges[:, 0]) >= np.abs(edges[:, 1])
    # The ring is turned to begin where the axis changes, so that no run of edges goes over the place where it closes.
    first = int(np.argmax(along != np.roll(along, 1)))
    if along.all() or not along.any():
        return None
    edges, middles, along = np.roll(edges, -first, 0), np.roll(middles, -first, 0), np.roll(along, -first)
    runs = np.cumsum(along != np.roll(along, 1)) - 1
    level = along[np.searchsorted(runs, np.arange(runs[-1] + 1))]  # this says whether each line is level
    weight = np.bincount(runs, np.hypot(*edges.T))
    place = np.bincount(runs, np.hypot(*edges.T) * np.where(along, middles[:, 1], middles[:, 0])) / weight
    # No shape with right angles has fewer than four sides.
    while len(place) > 4:
        lengths = np.abs(np.roll(place, -1) - np.roll(place, 1))
        k = int(np.argmin(lengths))
        if lengths[k] >= step:
            break
        before, after = (k - 1) % len(place), (k + 1) % len(place)
        total = weight[before] + weight[after]
        place[before] = (place[before] * weight[before] + place[after] * weight[after]) / total
        weight[before] = total
        keep = np.delete(np.arange(len(place)), [k, after])
        place, weight, level = place[keep], weight[keep], level[keep]
    if len(place) < 4:
        return None
    other = np.roll(place, -1)
    points = np.column_stack((np.where(level, other, place), np.where(level, place, other)))
    return np.concatenate([points, points[:1]])
