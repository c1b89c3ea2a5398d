"""Borders are made simpler and rounder, arc by arc: a border of two regions is drawn once, so that they still fit.

An arc is a border between two junctions (`junctions`), or a whole ring without junctions. An arc is always drawn in the
same direction, so both of its regions get the same line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice

import numpy as np
import shapely
from numpy.typing import NDArray

from tilepipe.products.junctions import Corners
from tilepipe.products.outline import Floats, Ints, signed_area

ROUNDS = 2
"""Number of times that corners are cut; an arc gets four times as many corners in all."""
PATIENCE = 6
"""Number of passes after which all arcs of a polygon that is still not valid stay as they are."""
Path = list[tuple["Arc", bool]]
"""The arcs of a ring in the order in which it passes them, and whether it passes each backwards."""


@dataclass(frozen=True)
class Arc:
    """A border between two junctions, or a whole ring without junctions."""

    points: Ints
    """Corners (N, 2) of the arc, the last corner included."""
    whole: bool
    """Whether the arc is a ring without a junction, which begins and ends anywhere."""
    key: bytes
    """Hash of the points."""


@dataclass
class ArcDrawer:
    """Draws arcs, and remembers the arcs that have to stay as they are."""

    tolerance: float
    """Largest distance of a line from the border, in the unit of `pixel`."""
    smooth: bool
    """Whether corners are cut."""
    pixel: tuple[float, float]
    """Size (x, y) of a pixel."""
    exact: set[bytes] = field(default_factory=set)
    """Keys of arcs that stay as they are."""
    _crossed: set[bytes] = field(default_factory=set)
    _passes: int = 0

    def draw(self, corners: Corners, rings_of: Sequence[int]) -> list[list[Floats]]:
        """Return the closed rings of polygons; note the arcs that cross others in polygons that are not valid.

        `corners` holds the corners of all rings; `rings_of` says how many rings each polygon has.
        """
        taken = iter(_paths(corners))
        paths = [list(islice(taken, count)) for count in rings_of]
        lines = iter(self._lines([arc for rings in paths for path in rings for arc, _ in path]))
        found = [[_ring([(next(lines), turned) for _, turned in path]) for path in rings] for rings in paths]
        for k in np.flatnonzero(~are_valid(found)).tolist():
            arcs = [arc for path in paths[k] for arc, _ in path]
            free = {arc.key for arc in arcs} - self.exact
            crossing = {arcs[n].key for n in _crossing(self._lines(arcs))} & free
            self._crossed |= crossing if crossing and self._passes < PATIENCE else free
        return found

    def learned(self) -> bool:
        """End a pass over the map: arcs that cross others stay as they are from now on; return whether there are any.

        Nothing is learned within a pass, so the order of polygons does not matter.
        """
        new, self._crossed = self._crossed - self.exact, set()
        self.exact |= new
        self._passes += 1
        return bool(new)

    def _lines(self, arcs: list[Arc]) -> list[Floats]:
        """Return the line of each arc; the line has the ends of the arc, unless the arc is a whole ring."""
        lines = [arc.points.astype(np.float64) for arc in arcs]
        free = [k for k, arc in enumerate(arcs) if len(arc.points) > 2 and arc.key not in self.exact]
        simple = simplified([lines[k] * self.pixel for k in free], self.tolerance) if free else []
        for k, line in zip(free, simple, strict=True):
            # A closed line of fewer than three corners has no area.
            if len(line) > 3 or (lines[k][0] != lines[k][-1]).any():
                lines[k] = np.round(line / self.pixel)  # the line takes the pixel corners again
            if self.smooth:
                lines[k] = _rounded(lines[k], whole=arcs[k].whole)
        return lines


def _paths(corners: Corners) -> list[Path]:
    """Return the path of each ring. It begins at a junction; without one, at the topmost, then leftmost, corner."""
    starts, ring = corners.starts, corners.ring
    sizes = np.diff(np.append(starts, len(ring)))
    whole = ~np.logical_or.reduceat(corners.junction, starts)
    rank = np.where(whole[ring], corners.points[:, 1], ~corners.junction)
    # lexsort sorts by its last key first: by ring, then by rank, then from left to right.
    first = np.lexsort((corners.points[:, 0], rank, ring))[starts] - starts
    place = np.arange(len(ring)) - starts[ring]
    order = starts[ring] + (place + first[ring]) % sizes[ring]
    points, begins = corners.points[order], np.flatnonzero(corners.junction[order] | (place == 0))
    points = np.insert(points, starts + sizes, points[starts], axis=0)  # this closes each ring
    of = ring[begins]
    last = np.append(of[1:] != of[:-1], True)
    ends = np.where(last, starts[of] + sizes[of], np.append(begins[1:], 0)) + of
    begins = begins + of
    # The region on the other side passes this arc the other way. Only its ends decide the direction, so both regions
    # get one arc.
    step = points[begins] - points[ends]
    turned = (step[:, 1] > 0) | ((step[:, 1] == 0) & (step[:, 0] > 0))
    paths: list[Path] = [[] for _ in starts]
    for k, a, b, up, loop in zip(
        of.tolist(), begins.tolist(), ends.tolist(), turned.tolist(), (step == 0).all(1).tolist(), strict=True
    ):
        arc = points[a : b + 1]
        # An arc that ends where it begins has no direction by its ends, so its area decides.
        back = signed_area(arc.astype(np.float64)) < 0 if loop else up
        arc = np.ascontiguousarray(arc[::-1] if back else arc)
        # A hash stands for the arc in `exact`, which may grow with the map, and takes less memory than its points.
        paths[k].append((Arc(arc, bool(whole[k]), blake2b(arc.tobytes(), digest_size=8).digest()), back))
    return paths


def _ring(lines: list[tuple[Floats, bool]]) -> Floats:
    parts = [line[::-1] if turned else line for line, turned in lines]
    return np.concatenate([*(part[:-1] for part in parts), parts[0][:1]])


def simplified(lines: list[Floats], tolerance: float) -> list[Floats]:
    """Return lines (N, 2), simplified by Douglas and Peucker's method; a line that would cross itself stays."""
    index = np.repeat(np.arange(len(lines)), [len(line) for line in lines])
    whole = shapely.linestrings(np.concatenate(lines), indices=index)
    simple = shapely.simplify(whole, tolerance, preserve_topology=False)
    points, index = shapely.get_coordinates(np.where(shapely.is_simple(simple), simple, whole), return_index=True)
    return list(np.split(points, np.flatnonzero(np.diff(index)) + 1))


def _rounded(line: Floats, *, whole: bool) -> Floats:
    """Return a line with its corners cut (Chaikin 1974); the ends stay unless the line is a whole ring."""
    for _ in range(ROUNDS if len(line) > 2 else 0):
        start, end = line[:-1], line[1:]
        cut = np.stack((0.75 * start + 0.25 * end, 0.25 * start + 0.75 * end), 1).reshape(-1, 2)
        # Three arcs or more share a junction, so the ends of an arc must not move.
        line = np.concatenate([cut, cut[:1]]) if whole else np.concatenate([line[:1], cut[1:-1], line[-1:]])
    return line


def are_valid(polygons: Sequence[Sequence[Floats]]) -> NDArray[np.bool_]:
    """Return which polygons of closed rings are valid by the rules of OGC's simple features."""
    good = np.array([all(len(ring) > 3 for ring in rings) for rings in polygons], bool)
    rings = [ring for rings, is_good in zip(polygons, good, strict=True) if is_good for ring in rings]
    if rings:
        of_ring = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
        of_polygon = np.repeat(np.arange(int(good.sum())), [len(p) for p, g in zip(polygons, good, strict=True) if g])
        shapes = shapely.polygons(shapely.linearrings(np.concatenate(rings), indices=of_ring), indices=of_polygon)
        good[good] = shapely.is_valid(shapes)
    return good


def _crossing(lines: list[Floats]) -> set[int]:
    """Return which lines meet another line elsewhere than at the ends of both lines."""
    shapes = np.array([shapely.LineString(line) for line in lines])
    one, other = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    # The tree finds each pair twice, and each line with itself.
    one, other = one[one < other], other[one < other]
    common = shapely.intersection(shapes[one], shapes[other])
    ends = shapely.boundary(shapes)
    fine = shapely.covered_by(common, ends[one]) & shapely.covered_by(common, ends[other])
    return {*one[~fine].tolist(), *other[~fine].tolist()}
