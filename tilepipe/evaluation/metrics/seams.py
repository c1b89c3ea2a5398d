"""This module measures seams: label flips between two tilings, and excess changes along the lines between tiles.

The excess test needs only a label map (or probabilities), the tile size and the step, so it also judges maps that other
programs made. Lines of changes are compared with the same comb of lines moved by multiples of the model's stride:
columns of different phase differ by themselves because of pooling, but columns of equal phase do not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from tilepipe.arrays import Labels
from tilepipe.errors import UsageError

Floats = NDArray[np.float64]
ENOUGH_SEAMS = 30
"""Number of seam lines on both axes together below which the test gives no result."""
ENOUGH_NULLS = 8
"""Number of shifted combs below which their spread is not known well enough."""
FLAG_Z = 4.0
"""Smallest z above which lines are called a seam."""
_CHANCE = 1e-4  # the chance of calling one comb of a clean map a seam, by Student's t for few shifted combs


@dataclass(frozen=True)
class Flips:
    """The number of pixels whose label differs between two maps; sums of blocks equal the whole."""

    pixels: int
    """Number of pixels with a label in at least one map."""
    different: int
    """Number of these pixels whose labels differ, or that have a label in one map only."""

    def __add__(self, other: Flips) -> Flips:
        return Flips(self.pixels + other.pixels, self.different + other.different)

    @property
    def share(self) -> float:
        """Share of pixels that differ, 0 to 1; if the tile grids differ, these are grid-shift flips."""
        return self.different / self.pixels if self.pixels else 0.0


def flips(left: Labels, right: Labels, nodata: int | None = 255) -> Flips:
    """Return how many pixels of two label maps of one shape differ; a pixel that is `nodata` in both is left out."""
    if left.shape != right.shape:
        raise UsageError(f"maps of {left.shape} and {right.shape} cannot be compared")
    empty = np.zeros(left.shape, bool) if nodata is None else (left == nodata) & (right == nodata)
    return Flips(int(np.count_nonzero(~empty)), int(np.count_nonzero((left != right) & ~empty)))


def total_variation(p: Floats, q: Floats) -> Floats:
    """Return half the sum over classes of |p - q| (0 to 1) for probabilities (classes, ...); its shape is (...)."""
    return np.asarray(np.abs(np.asarray(p, np.float64) - q).sum(0) / 2)


class ChangeCounter:
    """A counter of changes between neighbouring pixels per line of an image, by blocks; memory is height + width."""

    def __init__(self, height: int, width: int, nodata: int | None = 255) -> None:
        self.shape, self._nodata = (height, width), nodata
        self._lines = [np.zeros((2, height)), np.zeros((2, width))]  # the changes and the neighbour pairs, by axis

    def add(self, values: NDArray[np.integer], y: int = 0, x: int = 0) -> None:
        """Add a block of labels (h, w) or probabilities (classes, h, w) whose first pixel is at (y, x).

        Blocks after the first on an axis begin one pixel early: their first row or column is the last of the block
        before. For probabilities a change is their total variation. Pixels without a label are nodata, or nan.
        """
        for axis in (0, 1):
            change, known = self._changes(values, axis)
            lead = (y, x)[1 - axis] > 0  # the line was counted with the block before
            along = (slice(None), slice(int(lead), None)) if axis == 0 else (slice(int(lead), None), slice(None))
            start = (y, x)[axis] + 1
            part = self._lines[axis][:, start : start + change.shape[axis]]
            part += np.stack([change[along].sum(1 - axis), known[along].sum(1 - axis)])

    def _changes(self, values: NDArray[np.integer], axis: int) -> tuple[Floats, NDArray[np.bool_]]:
        """Return the change from each pixel to the next along `axis`, and a bool array: True if both are known."""
        here = np.take(values, range(1, values.shape[axis - 2]), axis - 2)
        before = np.take(values, range(values.shape[axis - 2] - 1), axis - 2)
        if values.ndim == 3:
            change = total_variation(here, before)
            return np.nan_to_num(change), ~np.isnan(change)
        known = np.ones(here.shape, bool)
        if self._nodata is not None:
            known = (here != self._nodata) & (before != self._nodata)
        return ((here != before) & known).astype(np.float64), known

    def comb(self, offset: int, step: int) -> tuple[float, int]:
        """Return mean change and number of the lines at `offset`, `offset + step`, ... of both axes.

        Line c lies between pixels c - 1 and c; the mean is over pairs of neighbours, nan if there are none.
        """
        sums, lines = np.zeros(2), 0
        for counts in self._lines:
            # Line 0 is the edge of the image and lies between no pixels, so the comb begins one step later.
            chosen = counts[:, (offset % step) or step :: step]
            sums += chosen.sum(1)
            lines += int(np.count_nonzero(chosen[1]))
        return (float(sums[0] / sums[1]) if sums[1] else float("nan")), lines


@dataclass(frozen=True)
class Comb:
    """The result of the test for one family of lines."""

    where: str
    """Family of lines: 'tile starts', 'tile ends' or 'centres of overlaps'."""
    offset: int
    """Index of the first pixel after the line, modulo the step."""
    seams: int
    """Number of lines on both axes."""
    nulls: int
    """Number of shifted combs that the lines were compared with."""
    excess: float
    """Seam excess SX: mean change on the lines over the mean change on the shifted combs, minus 1; 0 means no seam."""
    z: float
    """Distance of the lines above the mean of the shifted combs (standard deviations of these combs)."""

    @property
    def limit(self) -> float:
        """Value of z above which these lines are called a seam: 4, or more if few shifted combs give the spread."""
        # The mean of few combs is uncertain itself, which the square root accounts for.
        few = float(stdtrit(max(self.nulls - 1, 1), 1 - _CHANCE)) * (1 + 1 / max(self.nulls, 1)) ** 0.5
        return float(max(FLAG_Z, few))


@dataclass(frozen=True)
class SeamExcess:
    """The result of the comb test for a map."""

    tile: int
    """Side of a tile (pixels)."""
    step: int
    """Distance of tile origins (pixels)."""
    stride: int
    """Stride by whose multiples combs were shifted (pixels)."""
    combs: tuple[Comb, ...]
    """Combs, one per family of lines."""

    @property
    def worst(self) -> Comb:
        """Comb with the largest z relative to its limit."""
        return max(self.combs, key=lambda comb: comb.z / comb.limit)

    @property
    def enough(self) -> bool:
        """Whether there are enough seams and shifted combs to judge."""
        return all(comb.seams >= ENOUGH_SEAMS and comb.nulls >= ENOUGH_NULLS for comb in self.combs)

    @property
    def found(self) -> bool:
        """Whether there is a seam: enough lines, and z above its limit."""
        return self.enough and self.worst.z > self.worst.limit

    def __str__(self) -> str:
        fewest = min(self.combs, key=lambda comb: comb.seams)
        if fewest.seams < ENOUGH_SEAMS:
            return f"too few seams to judge: {fewest.seams} lines, {ENOUGH_SEAMS} are needed; give a larger map"
        if not self.enough:
            return (
                f"too few shifted combs to judge: {fewest.nulls} with step {self.step} and stride {self.stride}, "
                f"{ENOUGH_NULLS} are needed; give a smaller stride"
            )
        worst = self.worst
        verdict = "seams at" if self.found else "no seams; most at"
        return f"{verdict} {worst.where}: {worst.excess:+.1%} changes, z {worst.z:.1f} over {worst.seams} lines"


def seam_excess(changes: ChangeCounter, tile: int, step: int, stride: int | None = None) -> SeamExcess:
    """Test the lines where tiles of `tile` pixels every `step` pixels from (0, 0) may have met.

    `stride` is the model's total stride, a divisor of `step`; None takes the largest power of two up to 32 that
    divides `step` at least 16 times. Raises `UsageError` if the three do not fit together.
    """
    if not 1 <= step <= tile:
        raise UsageError(f"step {step} of tile {tile}: give a step from 1 to the tile size")
    stride = _usual_stride(step) if stride is None else stride
    if stride < 1 or step % stride:
        raise UsageError(f"step {step} is not a multiple of stride {stride}; tiles would lie on different phases")
    overlap = tile - step
    # Without overlap all three are the same lines, and the last name stays.
    places = {overlap // 2 % step: "centres of overlaps", overlap % step: "tile ends", 0: "tile starts"}
    combs = tuple(
        _test(changes, offset, where, step, range(0, step, stride), set(places)) for offset, where in places.items()
    )
    return SeamExcess(tile, step, stride, combs)


def _test(changes: ChangeCounter, offset: int, where: str, step: int, shifts: range, places: set[int]) -> Comb:
    seam, lines = changes.comb(offset, step)
    # Lines at which tiles may meet in another way are no clean comparison.
    others = [changes.comb(offset + k, step)[0] for k in shifts if (offset + k) % step not in places]
    null = np.array([value for value in others if not np.isnan(value)])
    if not null.size or np.isnan(seam):
        return Comb(where, offset, lines, null.size, 0.0, 0.0)
    # A map almost without changes has no spread; a single changed pixel must not look like a seam there.
    mean, one_change = float(null.mean()), 1 / changes.shape[0] / changes.shape[1]
    spread = max(float(null.std(ddof=1)) if null.size > 1 else 0.0, one_change)
    excess = (seam - mean) / max(mean, one_change)
    return Comb(where, offset, lines, null.size, excess, (seam - mean) / spread)


def _usual_stride(step: int) -> int:
    return max((s for s in (1, 2, 4, 8, 16, 32) if step % s == 0 and step // s >= 16), default=1)
