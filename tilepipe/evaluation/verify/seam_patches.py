"""Compares patches on seams and block borders with one centred pass, and squares with a grid moved by half a core."""

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
"""Side in pixels of the square around a seam that is compared."""
DRAWS = 20
"""Number of places that are tried for a patch until one holds image data."""


@dataclass(frozen=True)
class Difference:
    """Labels and probabilities of the same pixels, computed in two ways."""

    flips: Flips
    """Number of pixels that were compared, and of those whose label differs."""
    worst: float
    """Largest total variation distance of probabilities, from 0 to 1."""
    total: float
    """Sum of the total variation distances of all pixels."""

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
    """Pixels of the patch on the prediction grid."""
    place: str
    """'rows' or 'columns' for a seam between these, 'block' for a block's border, 'inside' if the run has one tile."""
    whole: Difference
    """Difference between tiles and one centred pass."""
    neighbours: Difference
    """Difference between neighbouring tiles at pixels that both see; in a halo tiles may differ."""
    gap: NDArray[np.float64] = field(repr=False, compare=False)
    """Total variation distance to the centred pass, (height, width); nan at pixels that are not compared."""
    mismatch: NDArray[np.float64] = field(repr=False, compare=False)
    """Total variation distance between neighbours, (height, width); nan if only one tile sees the pixel."""


def difference(p: Probabilities, q: Probabilities, valid: NDArray[np.bool_]) -> tuple[Difference, NDArray[np.float64]]:
    """Return the difference of two answers at `valid` pixels, and the distance of each pixel (else nan)."""
    gap = np.where(valid, total_variation(p, q), np.nan)
    different = int(((p.argmax(0) != q.argmax(0)) & valid).sum())
    worst = float(np.nanmax(gap)) if valid.any() else 0.0
    return Difference(Flips(int(valid.sum()), different), worst, float(np.nansum(gap))), gap


def context_of(passes: Passes) -> int:
    """Return the context of a centred pass in pixels: twice the halo, or what makes the pass as large as a tile."""
    cut = passes.job.plan.tiling
    return 2 * cut.halo if cut.halo is not None else max(cut.tile // 2 - CORE // 2, 0)


def check_patch(passes: Passes, box: Box, place: str) -> tuple[Patch, Labels]:
    """Compute a patch by tiles and by one pass, and compare both; return the patch and the labels of the tiles."""
    valid = passes.valid(box)
    tiled, mismatch = passes.tiled(box)
    whole, gap = difference(tiled, passes.whole(box, context_of(passes)), valid)
    mismatch = np.where(valid, mismatch, np.nan)
    seen = ~np.isnan(mismatch)
    far = float(mismatch[seen].max()) if seen.any() else 0.0
    # Inside the overlap tiles may differ, so flips between neighbours are not counted.
    between = Difference(Flips(int(seen.sum()), 0), far, float(mismatch[seen].sum()))
    labels = np.where(valid, tiled.argmax(0), passes.job.plan.nodata).astype(passes.job.plan.label_dtype)
    return Patch(box, place, whole, between, gap, mismatch), labels


def noise_of(passes: Passes, box: Box) -> float:
    """Return the largest distance, 0 to 1, of two centred passes with ample context: the rounding of the arithmetic.

    Both passes have at least half a tile of context, so that a halo that is too small is not taken for rounding.
    """
    cut = passes.job.plan.tiling
    # A column is far wider than one pass may be.
    ample = 0 if cut.bands else cut.tile // 2 // cut.stride * cut.stride
    stride, context = cut.stride, max(context_of(passes), ample)
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
    """Return the rows or columns in [start, stop) at which the next tile takes over."""
    if axis.crop:
        lines = [axis.kept(k)[0] for k in range(1, axis.count)]
    else:
        # Two blended tiles weigh the same in the middle of their overlap.
        lines = [(axis.origin(k) + axis.origin(k - 1) + axis.tile) // 2 for k in range(1, axis.count)]
    return [line for line in lines if start < line < stop]


def _borders(passes: Passes) -> tuple[list[int], list[int]]:
    """Return the rows and the columns inside the region at which blocks meet."""
    region, grid = passes.job.plan.predicted_region, passes.grid
    rows = [y for y in range(grid.y.zone, grid.y.blocks * grid.y.zone, grid.y.zone) if region.y0 < y < region.y1]
    columns = [x for x in range(grid.x.zone, grid.x.blocks * grid.x.zone, grid.x.zone) if region.x0 < x < region.x1]
    return rows, columns


def shifted(passes: Passes, count: int, seed: int) -> Difference | None:
    """Compute `count` squares of at most one step again on a grid moved by half a core, and compare.

    None if no square of the region is clear of the edge of the moved image.
    """
    plan, grid, random = passes.job.plan, passes.grid, Random(seed)
    if grid.y.count == grid.x.count == 1:
        return None
    # The grid moves by a multiple of the stride; by another distance every network gives other labels, whatever its
    # context.
    dy, dx = (max(axis.step // 2 // axis.stride, 1) * axis.stride if axis.count > 1 else 0 for axis in (grid.y, grid.x))
    margin = plan.tiling.halo if plan.tiling.halo is not None and not grid.blended else plan.tiling.tile
    region = plan.predicted_region
    # Tiles at the new edge of the moved image lack the real pixels that the run has seen there.
    y0, x0 = max(region.y0, dy + margin if dy else 0), max(region.x0, dx + margin if dx else 0)
    if y0 >= region.y1 or x0 >= region.x1:
        return None
    own = passes.worker.statistics
    statistics = MovedStatistics(own, dy, dx) if own else None
    other = Passes(
        moved(passes.job, dy, dx),
        statistics,
        lenient=passes.lenient,
        ended=[box.shift(-dy, -dx) for box in passes.ended],
    )
    found = NONE
    tall, wide = (min(axis.step, SQUARE) if plan.tiling.columns else axis.step for axis in (grid.y, grid.x))
    try:
        for _ in range(count):
            y = random.randint(y0, max(y0, region.y1 - tall))
            x = random.randint(x0, max(x0, region.x1 - wide))
            box = Box(y, x, min(y + tall, region.y1), min(x + wide, region.x1))
            with passes.attempt():
                there = other.tiled(box.shift(-dy, -dx))[0]
                found += difference(passes.tiled(box)[0], there, passes.valid(box))[0]
    finally:
        other.close()
    return found


SQUARE = 512
"""Largest side of a square that is computed again in columns, which are far wider than tiles (pixels)."""
