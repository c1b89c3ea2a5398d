"""Label map -> outlines of its regions, exact and whole: a region over any number of blocks is one outline.

The map is read block by block. Each block's regions are traced along pixel corners; those that touch a block border
wait until the row of blocks below is known, and are then put together: edges that two of their parts share cancel, the
others are linked to rings again. Memory grows with a row of blocks and with the largest region, not with the map.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from operator import add

import numpy as np
import skimage
from numpy.typing import NDArray
from rasterio.features import shapes

from tilepipe.box import Box
from tilepipe.products.label_map import LabelMap
from tilepipe.tiling.border_merge import Regions
from tilepipe.tiling.uncertainty import VOID

PART = 1024
"""Side in pixels of the square that is traced at once."""

Floats = NDArray[np.float64]
Corner = tuple[float, float]


@dataclass(frozen=True)
class Certainty:
    """What a layer of uncertainty says of one region, in the codes of the layer."""

    total: int
    """Sum over its pixels that have a code."""
    count: int
    """How many have one."""
    least: int
    """Smallest code; `VOID` if no pixel has one."""

    def __add__(self, other: Certainty) -> Certainty:
        """Return what the layer says of both parts of a region."""
        return Certainty(self.total + other.total, self.count + other.count, min(self.least, other.least))


@dataclass(frozen=True)
class Outline:
    """One region: its class and rings of pixel corners (N, 2) as (x, y), closed, the outer ring first."""

    label: int
    rings: list[Floats]
    certainty: Certainty | None = None
    """Of its pixels, if a layer was read with the labels."""

    @property
    def pixels(self) -> float:
        """Number of pixels."""
        return abs(signed_area(self.rings[0])) - sum(abs(signed_area(ring)) for ring in self.rings[1:])


def outlines(labels: LabelMap, block: int = PART, layer: LabelMap | None = None) -> Iterator[Outline]:
    """Yield the 4-connected regions of each class, nodata left out, and class 0 when it is called 'background'.

    `layer` is a layer of uncertainty on the grid of the labels, which is summed up over each region.
    """
    (height, width), regions = labels.shape, Regions()
    waiting: dict[int, Outline] = {}
    front, front_labels = np.zeros(width, np.int64), np.zeros(width, np.int64)
    for y in range(0, height, block):
        below, below_labels = np.zeros(width, np.int64), np.zeros(width, np.int64)
        left, left_labels = np.zeros(0, np.int64), np.zeros(0, np.int64)
        for x in range(0, width, block):
            box = Box(y, x, min(y + block, height), min(x + block, width))
            pixels, parts = labels.read(box), np.zeros(box.shape, np.int64)
            codes = layer.read(box) if layer else None
            for outline, part in _traced(labels, pixels, box, regions, parts, codes):
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


def _wanted(labels: LabelMap, pixels: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Return which pixels belong to a region."""
    wanted = np.asarray(pixels != labels.legend.nodata)
    return wanted & (pixels != 0) if labels.legend.classes[0].lower() == "background" else wanted


def _traced(
    labels: LabelMap,
    pixels: NDArray[np.integer],
    box: Box,
    regions: Regions,
    parts: NDArray[np.int64],
    codes: NDArray[np.integer] | None,
) -> Iterator[tuple[Outline, int]]:
    """Yield the outlines inside a block, with the number of those that touch another block, else 0.

    `parts` becomes those numbers, pixel by pixel; `codes` are those of the layer.
    """
    wanted = _wanted(labels, pixels)
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
    certain = _certainties(found, codes, len(class_of)) if codes is not None else None
    for shape, k in shapes(found, mask=wanted, connectivity=4):
        n = int(k)
        rings = [np.add(ring, (box.x0, box.y0)) for ring in shape["coordinates"]]
        yield Outline(int(class_of[n]), rings, certain[n] if certain else None), int(number_of[n])


def _certainties(found: NDArray[np.int32], codes: NDArray[np.integer], count: int) -> list[Certainty]:
    """Return what the codes of a layer say of each of `count` regions, by number."""
    known = codes != VOID
    numbers, values = found[known], codes[known].astype(np.int64)
    least = np.full(count, VOID)
    np.minimum.at(least, numbers, values)
    totals = np.bincount(numbers, values, count).astype(np.int64)  # whole numbers below 2**53: exact
    counts = np.bincount(numbers, minlength=count)
    return [Certainty(*of) for of in zip(totals.tolist(), counts.tolist(), least.tolist(), strict=True)]


def _joined(parts: list[Outline], block: int) -> Outline:
    """Return the region that parts of neighbouring blocks make."""
    if len(parts) == 1:
        return parts[0]
    rings = [_split(_turned(part.rings[0]), block) for part in parts]
    kept = _not_shared(rings)
    often = _met_often(rings)
    arcs = [arc for parts_of in zip(rings, kept, often, strict=True) for arc in _arcs(*parts_of, block)]
    found = [_simple(ring) for ring in _linked(arcs)]
    outer = next(k for k, ring in enumerate(found) if signed_area(ring) > 0)
    holes = [
        hole for part in parts for hole in part.rings[1:]
    ]  # of one block: none has an edge on a line between blocks
    return Outline(parts[0].label, [found[outer], *found[:outer], *found[outer + 1 :], *holes], _summed(parts))


def _summed(parts: list[Outline]) -> Certainty | None:
    known = [part.certainty for part in parts if part.certainty is not None]
    return reduce(add, known) if known else None


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


def _met_often(rings: list[Floats]) -> list[NDArray[np.bool_]]:
    """Return for each corner of each ring whether rings of other parts, or this one again, pass it too."""
    points = np.concatenate([ring[:-1] for ring in rings]).astype(np.int64)
    _, where, count = np.unique(points[:, 1] << 32 | points[:, 0], return_inverse=True, return_counts=True)
    return np.split(count[where] > 1, np.cumsum([len(ring) - 1 for ring in rings])[:-1])


def _arcs(ring: Floats, keep: NDArray[np.bool_], often: NDArray[np.bool_], block: int) -> list[Floats]:
    """Return the kept edges of a ring as open lines that begin and end on lines between blocks or where parts meet."""
    first = int(np.argmin(keep)) + 1
    points, keep, often = np.roll(ring[:-1], -first, 0), np.roll(keep, -first), np.roll(often, -first)
    points = np.concatenate([points, points[:1]])
    ends = (points % block == 0).any(1) | np.append(often, False) | ~np.append(keep, False) | ~np.insert(keep, 0, False)
    cut = np.flatnonzero(ends)
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
