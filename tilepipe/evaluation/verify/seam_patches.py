"""Patches on seams and block borders, compared with one centred pass; and regions on a grid moved by half a core."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

import numpy as np
from numpy.typing import NDArray

from tilepipe.arrays import Labels
from tilepipe.box import Box
from tilepipe.evaluation.metrics.seams import Flips, total_variation
from tilepipe.evaluation.verify.recompute import MovedStatistics, Passes, Probabilities, moved
from tilepipe.tiling.grid import Axis

CORE = 96
"""About how many pixels around a seam are compared, per side of the square."""
DRAWS = 20
"""Places tried for a patch that holds image data."""


@dataclass(frozen=True)
class Difference:
    """Labels and probabilities of the same pixels, computed in two ways."""

    flips: Flips
    """Pixels whose label differs."""
    worst: float
    """Largest total variation distance of probabilities, 0 to 1."""
    total: float
    """Sum of it over the pixels."""

    def __add__(self, other: Difference) -> Difference:
        return Difference(self.flips + other.flips, max(self.worst, other.worst), self.total + other.total)

    @property
    def mean(self) -> float:
        """Mean total variation distance."""
        return self.total / self.flips.pixels if self.flips.pixels else 0.0


NONE = Difference(Flips(0, 0), 0.0, 0.0)


@dataclass(frozen=True)
class Patch:
    """One patch around a seam."""

    box: Box
    """Its pixels, on the prediction grid."""
    place: str
    """'rows' or 'columns' for a seam between these, 'block' for a block's border, 'inside' where there is neither."""
    whole: Difference
    """Tiles against one centred pass."""
    neighbours: Difference
    """Neighbouring tiles against each other where both see a pixel; in a halo they may differ."""
    gap: NDArray[np.float64] = field(repr=False, compare=False)
    """Total variation distance to the centred pass, (height, width), nan where nothing is compared."""
    mismatch: NDArray[np.float64] = field(repr=False, compare=False)
    """The same between neighbours, nan where only one tile sees the pixel."""


def difference(p: Probabilities, q: Probabilities, valid: NDArray[np.bool_]) -> tuple[Difference, NDArray[np.float64]]:
    """Compare two answers where `valid`; also the distance of each pixel, nan elsewhere."""
    gap = np.where(valid, total_variation(p, q), np.nan)
    different = int(((p.argmax(0) != q.argmax(0)) & valid).sum())
    worst = float(np.nanmax(gap)) if valid.any() else 0.0
    return Difference(Flips(int(valid.sum()), different), worst, float(np.nansum(gap))), gap


def context_of(passes: Passes) -> int:
    """Return the context of a centred pass: twice the halo; where it is unknown, what makes it as large as a tile."""
    cut = passes.job.plan.tiling
    return 2 * cut.halo if cut.halo is not None else max(cut.tile // 2 - CORE // 2, 0)


def check_patch(passes: Passes, box: Box, place: str) -> tuple[Patch, Labels]:
    """Compute a patch as tiles and as one pass, and compare; also the tiles' labels, as the run has them."""
    valid = passes.valid(box)
    tiled, mismatch = passes.tiled(box)
    whole, gap = difference(tiled, passes.whole(box, context_of(passes)), valid)
    mismatch = np.where(valid, mismatch, np.nan)
    seen = ~np.isnan(mismatch)
    far = float(mismatch[seen].max()) if seen.any() else 0.0
    between = Difference(Flips(int(seen.sum()), 0), far, float(mismatch[seen].sum()))
    labels = np.where(valid, tiled.argmax(0), passes.job.plan.nodata).astype(passes.job.plan.label_dtype)
    return Patch(box, place, whole, between, gap, mismatch), labels


def noise_of(passes: Passes, box: Box) -> float:
    """Return how far two centred passes with more than enough context are apart: what the arithmetic alone does.

    Both have at least half a tile of it, lest too small a halo be taken for rounding.
    """
    cut = passes.job.plan.tiling
    stride, context = cut.stride, max(context_of(passes), cut.tile // 2 // cut.stride * cut.stride)
    wide, wider = passes.whole(box, context + stride), passes.whole(box, context + 3 * stride)
    return difference(wide, wider, passes.valid(box))[0].worst


def places(passes: Passes, count: int, seed: int) -> Iterator[tuple[Box, str]]:
    """Yield up to `count` patches: seams between rows, between columns, and block borders, in turn, at random.

    A run of one tile has none of these: its patches lie anywhere inside, so that its labels are compared all the same.
    """
    random, plan = Random(seed), passes.job.plan
    region, grid = plan.predicted_region, passes.grid
    rows, columns = _seams(grid.y, region.y0, region.y1), _seams(grid.x, region.x0, region.x1)
    kinds = [("rows", rows, []), ("columns", [], columns), ("block", *_borders(passes))]
    kinds = [kind for kind in kinds if kind[1] or kind[2]] or [("inside", [], [])]
    for k in range(count):
        place, ys, xs = kinds[k % len(kinds)]
        for _ in range(DRAWS):
            y = random.choice(ys) if ys else random.randrange(region.y0, region.y1)
            x = random.choice(xs) if xs else random.randrange(region.x0, region.x1)
            box = Box(y - CORE // 2, x - CORE // 2, y + CORE // 2, x + CORE // 2) & region
            if box is not None and passes.valid(box).any():
                yield box, place
                break


def _seams(axis: Axis, start: int, stop: int) -> list[int]:
    """Return where one tile takes over from the next, inside [start, stop)."""
    if axis.crop:
        lines = [axis.kept(k)[0] for k in range(1, axis.count)]
    else:
        lines = [(axis.origin(k) + axis.origin(k - 1) + axis.tile) // 2 for k in range(1, axis.count)]
    return [line for line in lines if start < line < stop]


def _borders(passes: Passes) -> tuple[list[int], list[int]]:
    """Return where blocks meet, inside the region."""
    region, grid = passes.job.plan.predicted_region, passes.grid
    rows = [y for y in range(grid.y.zone, grid.y.blocks * grid.y.zone, grid.y.zone) if region.y0 < y < region.y1]
    columns = [x for x in range(grid.x.zone, grid.x.blocks * grid.x.zone, grid.x.zone) if region.x0 < x < region.x1]
    return rows, columns


def shifted(passes: Passes, count: int, seed: int) -> Difference | None:
    """Compute `count` squares of one step again on a grid moved by half a core, and compare.

    None where the region is too small for a square that the moved image's own edge does not touch.
    """
    plan, grid, random = passes.job.plan, passes.grid, Random(seed)
    if grid.y.count == grid.x.count == 1:
        return None
    dy, dx = (max(axis.step // 2 // axis.stride, 1) * axis.stride if axis.count > 1 else 0 for axis in (grid.y, grid.x))
    margin = plan.tiling.halo if plan.tiling.halo is not None and not grid.blended else plan.tiling.tile
    region = plan.predicted_region
    y0, x0 = max(region.y0, dy + margin if dy else 0), max(region.x0, dx + margin if dx else 0)
    if y0 >= region.y1 or x0 >= region.x1:
        return None
    own = passes.worker.statistics
    statistics = MovedStatistics(own, dy, dx) if own else None
    other = Passes(moved(passes.job, dy, dx), statistics, lenient=passes.lenient)
    found = NONE
    try:
        for _ in range(count):
            y = random.randint(y0, max(y0, region.y1 - grid.y.step))
            x = random.randint(x0, max(x0, region.x1 - grid.x.step))
            box = Box(y, x, min(y + grid.y.step, region.y1), min(x + grid.x.step, region.x1))
            with passes.attempt():
                there = other.tiled(box.shift(-dy, -dx))[0]
                found += difference(passes.tiled(box)[0], there, passes.valid(box))[0]
    finally:
        other.close()
    return found
