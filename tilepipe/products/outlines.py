"""Label map -> outlines of its regions, exact and whole: a region over any number of blocks is one outline.

The map is read block by block. Each block's regions are traced along pixel corners; those that touch a block border
wait until the row of blocks below is known, and are then put together: edges that two of their parts share cancel, the
others are linked to rings again. Memory grows with a row of blocks and with the largest region, not with the map.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import skimage
from numpy.typing import NDArray
from rasterio.features import shapes

from tilepipe.box import Box
from tilepipe.products.label_map import LabelMap
from tilepipe.tiling.border_merge import Regions

PART = 1024
"""Side in pixels of the square that is traced at once."""

Floats = NDArray[np.float64]
Corner = tuple[float, float]


@dataclass(frozen=True)
class Outline:
    """One region: its class and rings of pixel corners (N, 2) as (x, y), closed, the outer ring first."""

    label: int
    rings: list[Floats]

    @property
    def pixels(self) -> float:
        """Number of pixels."""
        return abs(signed_area(self.rings[0])) - sum(abs(signed_area(ring)) for ring in self.rings[1:])


def outlines(labels: LabelMap, block: int = PART) -> Iterator[Outline]:
    """Yield the 4-connected regions of each class, nodata left out, and class 0 when it is called 'background'."""
    (height, width), regions = labels.shape, Regions()
    waiting: dict[int, Outline] = {}
    front, front_labels = np.zeros(width, np.int64), np.zeros(width, np.int64)
    for y in range(0, height, block):
        below, below_labels = np.zeros(width, np.int64), np.zeros(width, np.int64)
        left, left_labels = np.zeros(0, np.int64), np.zeros(0, np.int64)
        for x in range(0, width, block):
            box = Box(y, x, min(y + block, height), min(x + block, width))
            pixels, parts = labels.read(box), np.zeros(box.shape, np.int64)
            for outline, part in _traced(labels, pixels, box, regions, parts):
                if part:
                    waiting[part] = outline
                else:
                    yield outline
            columns = slice(box.x0, box.x1)
            regions.join_across(front[columns], parts[0], front_labels[columns] == pixels[0])
            if len(left):
                regions.join_across(left, parts[:, 0], left_labels == pixels[:, 0])
            below[columns], below_labels[columns] = parts[-1], pixels[-1]
            left, left_labels = parts[:, -1], pixels[:, -1].astype(np.int64)
        front, front_labels = below, below_labels
        for numbers in regions.closed(front if y + block < height else np.zeros(0, np.int64)):
            yield _joined([waiting.pop(number) for number in numbers], block)


def _traced(
    labels: LabelMap, pixels: NDArray[np.integer], box: Box, regions: Regions, parts: NDArray[np.int64]
) -> Iterator[tuple[Outline, int]]:
    """Yield the outlines inside a block, with the number of those that touch another block, else 0.

    `parts` becomes those numbers, pixel by pixel.
    """
    wanted = pixels != labels.legend.nodata
    if labels.legend.classes[0].lower() == "background":
        wanted &= pixels != 0
    if not wanted.any():
        return
    values = np.where(wanted, pixels.astype(np.int32) + 1, 0)
    found = skimage.measure.label(values, background=0, connectivity=1).astype(np.int32)
    class_of = np.zeros(int(found.max()) + 1, np.int64)
    class_of[found] = pixels
    number_of = np.zeros(len(class_of), np.int64)
    height, width = labels.shape
    edges = (
        (box.y0 > 0, found[0]), (box.y1 < height, found[-1]), (box.x0 > 0, found[:, 0]), (box.x1 < width, found[:, -1]),
    )  # fmt: skip
    touching = np.unique(np.concatenate([np.zeros(1, np.int32), *(line for inner, line in edges if inner)]))
    for k in touching[touching > 0]:
        number_of[k] = regions.add()
    parts[:] = number_of[found]
    for shape, k in shapes(found, mask=wanted, connectivity=4):
        rings = [np.add(ring, (box.x0, box.y0)) for ring in shape["coordinates"]]
        yield Outline(int(class_of[int(k)]), rings), int(number_of[int(k)])


def _joined(parts: list[Outline], block: int) -> Outline:
    """Return the region that parts of neighbouring blocks make."""
    if len(parts) == 1:
        return parts[0]
    rings = [_split(_turned(part.rings[0]), block) for part in parts]
    kept = _not_shared(rings)
    arcs = [arc for ring, keep in zip(rings, kept, strict=True) for arc in _arcs(ring, keep, block)]
    found = [_simple(ring) for ring in _linked(arcs)]
    outer = next(k for k, ring in enumerate(found) if signed_area(ring) > 0)
    holes = [
        hole for part in parts for hole in part.rings[1:]
    ]  # of one block: none has an edge on a line between blocks
    return Outline(parts[0].label, [found[outer], *found[:outer], *found[outer + 1 :], *holes])


def _turned(ring: Floats) -> Floats:
    """Return an outer ring with the region to the left of each edge, as seen with y up: its area is positive."""
    return ring if signed_area(ring) > 0 else ring[::-1]


def _on_border(ends: Floats, others: Floats, block: int) -> NDArray[np.bool_]:
    """Return which edges, from `ends` to `others`, lie on a line between blocks."""
    same = ends == others
    return np.asarray((same & (ends % block == 0)).any(1))


def _split(ring: Floats, block: int) -> Floats:
    """Return the ring with a corner at every pixel along the lines between blocks."""
    start, end = ring[:-1], ring[1:]
    lengths = np.abs(end - start).max(1).astype(np.int64)
    pieces = np.where(_on_border(start, end, block), lengths, 1)
    first = np.repeat(np.cumsum(pieces) - pieces, pieces)
    along = (np.arange(pieces.sum()) - first)[:, None]  # whole numbers: corners stay exact
    points = np.repeat(start, pieces, 0) + along * np.repeat(np.sign(end - start), pieces, 0)
    return np.concatenate([points, points[:1]])


def _not_shared(rings: list[Floats]) -> list[NDArray[np.bool_]]:
    """Return for each edge of each ring whether no other edge lies there; two parts of one region share the others."""
    middles = np.concatenate([ring[:-1] + ring[1:] for ring in rings])
    lengths = np.concatenate([np.abs(np.diff(ring, axis=0)).sum(1) for ring in rings])
    _, where, count = np.unique(np.column_stack((middles, lengths)), axis=0, return_inverse=True, return_counts=True)
    single = count[where.ravel()] == 1
    return np.split(single, np.cumsum([len(ring) - 1 for ring in rings])[:-1])


def _arcs(ring: Floats, keep: NDArray[np.bool_], block: int) -> list[Floats]:
    """Return the kept edges of a ring as open lines that begin and end on lines between blocks."""
    first = int(np.argmin(keep)) + 1
    points, keep = np.roll(ring[:-1], -first, 0), np.roll(keep, -first)
    points = np.concatenate([points, points[:1]])
    cut = np.flatnonzero((points % block == 0).any(1) | ~np.append(keep, False) | ~np.insert(keep, 0, False))
    return [points[a : b + 1] for a, b in pairwise(cut) if keep[a]]


def _linked(arcs: list[Floats]) -> Iterator[Floats]:
    """Yield the rings that arcs make. Where two cells touch at a corner, the way turns right: cells stay 4-connected
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
    """Return the sign of a turn: below 0 to the right."""
    return float(np.sign(came[0] * goes[1] - came[1] * goes[0]))


def _simple(ring: Floats) -> Floats:
    """Return the ring without corners inside straight lines, from its topmost, then leftmost, corner."""
    points = ring[:-1]
    before, after = points - np.roll(points, 1, 0), np.roll(points, -1, 0) - points
    points = points[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]
    start = int(np.lexsort((points[:, 0], points[:, 1]))[0])
    points = np.roll(points, -start, 0)
    return np.concatenate([points, points[:1]])


def signed_area(ring: Floats) -> float:
    """Return the area of a closed ring (N, 2): positive when it turns from x to y."""
    x, y = (ring - ring[0]).T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)
