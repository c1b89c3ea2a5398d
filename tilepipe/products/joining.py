"""Parts of a region in neighbouring blocks are put together: edges that two parts share cancel, others are linked.

Rings are closed and hold pixel corners (N, 2) as (x, y). The result is the same as tracing the whole map at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from itertools import pairwise
from operator import add

import numpy as np
from numpy.typing import NDArray

from tilepipe.products.outline import Floats, Outline, signed_area

Corner = tuple[float, float]


def joined(parts: list[Outline], block: int) -> Outline:
    """Return the region that parts of neighbouring blocks make."""
    if len(parts) == 1:
        return parts[0]
    rings = [_split(_turned(part.rings[0]), block) for part in parts]
    kept = _not_shared(rings)
    # Lines must end where a corner is passed twice, because the way from there on is chosen in `_linked`.
    often = _met_often(rings)
    arcs = [arc for parts_of in zip(rings, kept, often, strict=True) for arc in _arcs(*parts_of, block)]
    found = [_simple(ring) for ring in _linked(arcs)]
    # All parts were turned alike, so only the outer ring has a positive area.
    outer = next(k for k, ring in enumerate(found) if signed_area(ring) > 0)
    # Holes inside one block stay: such a hole has no edge on a line between blocks.
    holes = [hole for part in parts for hole in part.rings[1:]]
    rings = [found[outer], *found[:outer], *found[outer + 1 :], *holes]
    known = [part.certainty for part in parts if part.certainty is not None]
    marks = [part.marks for part in parts if part.marks is not None]
    certainty = reduce(add, known) if known else None
    return Outline(parts[0].label, rings, certainty, np.sort(np.concatenate(marks)) if marks else None)


def _turned(ring: Floats) -> Floats:
    """Return an outer ring with the region to the left of each edge if y points up: the ring's area is positive."""
    return ring if signed_area(ring) > 0 else ring[::-1]


def _on_border(ends: Floats, others: Floats, block: int) -> NDArray[np.bool_]:
    """Return which edges, from `ends` to `others`, lie on a line between blocks."""
    same = ends == others
    return np.asarray((same & (ends % block == 0)).any(1))


def _split(ring: Floats, block: int) -> Floats:
    """Return the ring with an extra corner at every pixel along the lines between blocks."""
    start, end = ring[:-1], ring[1:]
    # Two parts may have their corners at different places along a line; pixel by pixel their edges are the same and
    # cancel.
    lengths = np.abs(end - start).max(1).astype(np.int64)
    pieces = np.where(_on_border(start, end, block), lengths, 1)
    first = np.repeat(np.cumsum(pieces) - pieces, pieces)
    along = (np.arange(pieces.sum()) - first)[:, None]  # these are whole numbers, so corners stay exact
    points = np.repeat(start, pieces, 0) + along * np.repeat(np.sign(end - start), pieces, 0)
    return np.concatenate([points, points[:1]])


def _not_shared(rings: list[Floats]) -> list[NDArray[np.bool_]]:
    """Return for each edge of each ring whether no other edge lies at its place; parts of a region share the others."""
    # The sum of both ends is the same from either side, and two parts pass a shared edge in opposite directions.
    middles = np.concatenate([ring[:-1] + ring[1:] for ring in rings])
    lengths = np.concatenate([np.abs(np.diff(ring, axis=0)).sum(1) for ring in rings])
    _, where, count = np.unique(np.column_stack((middles, lengths)), axis=0, return_inverse=True, return_counts=True)
    single = count[where.ravel()] == 1
    return np.split(single, np.cumsum([len(ring) - 1 for ring in rings])[:-1])


def _met_often(rings: list[Floats]) -> list[NDArray[np.bool_]]:
    """Return for each corner of each ring whether a ring of another part, or the same ring again, passes it too."""
    points = np.concatenate([ring[:-1] for ring in rings]).astype(np.int64)
    _, where, count = np.unique(points[:, 1] << 32 | points[:, 0], return_inverse=True, return_counts=True)
    return np.split(count[where] > 1, np.cumsum([len(ring) - 1 for ring in rings])[:-1])


def _arcs(ring: Floats, keep: NDArray[np.bool_], often: NDArray[np.bool_], block: int) -> list[Floats]:
    """Return the kept edges of a ring as open lines; they begin and end at lines between blocks or where parts meet."""
    # The ring is turned to begin after an edge that is left out, so that no line runs over the place where it closes.
    first = int(np.argmin(keep)) + 1
    points, keep, often = np.roll(ring[:-1], -first, 0), np.roll(keep, -first), np.roll(often, -first)
    points = np.concatenate([points, points[:1]])
    ends = (points % block == 0).any(1) | np.append(often, False) | ~np.append(keep, False) | ~np.insert(keep, 0, False)
    cut = np.flatnonzero(ends)
    return [points[a : b + 1] for a, b in pairwise(cut) if keep[a]]


def _linked(arcs: list[Floats]) -> Iterator[Floats]:
    """Yield the rings that arcs make. If two cells touch at a corner, the way turns right there: cells stay 4-connected
    and no ring touches itself."""
    starting: dict[Corner, list[int]] = {}
    for k, arc in enumerate(arcs):
        starting.setdefault(_corner(arc[0]), []).append(k)
    for first in range(len(arcs)):
        if first not in starting[_corner(arcs[first][0])]:
            continue
        ring, k = [arcs[first][0][None]], first
        while True:
            ring.append(arcs[k][1:])
            here, came = starting[_corner(arcs[k][-1])], arcs[k][-1] - arcs[k][-2]
            k = min(here, key=lambda n: _turn(came, arcs[n][1] - arcs[n][0]))
            here.remove(k)
            if k == first:
                break
        yield np.concatenate(ring)


def _corner(point: Floats) -> Corner:
    return float(point[0]), float(point[1])


def _turn(came: Floats, goes: Floats) -> float:
    """Return a number with the sign of a turn: it is below 0 if the turn is to the right."""
    return float(np.sign(came[0] * goes[1] - came[1] * goes[0]))


def _simple(ring: Floats) -> Floats:
    """Return the ring without corners inside straight lines; it begins at its topmost, then leftmost, corner."""
    points = ring[:-1]
    before, after = points - np.roll(points, 1, 0), np.roll(points, -1, 0) - points
    points = points[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]
    start = int(np.lexsort((points[:, 0], points[:, 1]))[0])
    points = np.roll(points, -start, 0)
    return np.concatenate([points, points[:1]])
