"""This module compares connected components of two label maps in bounded memory: over-segmentation, and which match.

Maps come as bands of full-width rows, top to bottom. Between bands three things are kept: the last row, the sizes and
classes of the components that touch this row (no other component can grow), and the overlaps that these components may
still change.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage.measure import label

from tilepipe.errors import UsageError
from tilepipe.evaluation.metrics.objects import ObjectScores
from tilepipe.evaluation.metrics.pair import Pair

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Components:
    """The fragments of a prediction and of the truth: 4-connected components of all classes, scored pixels only."""

    predicted: int
    """Number of components of the prediction."""
    true: int
    """Number of components of the truth."""
    predicted_small: int
    """Number of components of the prediction with fewer than `smallest` pixels."""
    true_small: int
    """Number of components of the truth with fewer than `smallest` pixels."""
    smallest: int
    """Size below which a component counts as small (pixels)."""
    split: float
    """Entropy H(prediction | truth) (bits): how much true components are cut up; 0 is best (Meila 2007)."""
    merge: float
    """Entropy H(truth | prediction) (bits): how much predicted components run together; 0 is best."""

    @property
    def ratio(self) -> float:
        """Number of predicted over true components; above 1 is over-segmentation; nan without true components."""
        return self.predicted / self.true if self.true else float("nan")

    @property
    def small_share(self) -> float:
        """Share of the predicted components that are small; nan if there are no components."""
        return self.predicted_small / self.predicted if self.predicted else float("nan")


@dataclass(frozen=True)
class _Known:
    """What is known of the components of one map that are still needed, by component number; arrays (n,)."""

    sizes: Ints
    """Number of pixels so far."""
    classes: Ints
    """Class of each component."""
    counted: Bools
    """Whether the component is finished and has been counted."""

    @classmethod
    def nothing(cls) -> _Known:
        return cls(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, bool))


@dataclass(frozen=True)
class _Front:
    """The open part of one map: labels and component numbers of the last row, and what is known of the components."""

    labels: Ints
    numbers: Ints
    known: _Known


class ComponentCounter:
    """A counter of components over bands: `add` each band of rows from top to bottom, then read `result`."""

    def __init__(self, classes: int, smallest: int = 16) -> None:
        if smallest < 1:
            raise UsageError(f"smallest component of {smallest} pixels: give 1 or more")
        self._nodata, self._smallest = classes, smallest
        self._fronts: list[_Front] = []
        self._pairs = np.zeros((3, 0), np.int64)  # the numbers in prediction and truth, and the pixels in common
        self._count, self._small = [0, 0], [0, 0]
        self._entropy = [0.0, 0.0]  # the sum of n log2 n over finished components, per map
        self._joint, self._pixels = 0.0, 0
        # Per class: the components of each map, and the matches with the sum of their IoU.
        self._objects = np.zeros((2, classes), np.int64)
        self._matched, self._iou = np.zeros(classes, np.int64), np.zeros(classes)
        self._candidates = np.zeros((3, 0), np.int64)  # the pairs that match unless one of the two grows too much

    def add(self, maps: Pair) -> None:
        """Count the next rows. Raises `UsageError` if the band does not have the image's full width."""
        maps = maps.masked()
        grids = maps.prediction.astype(np.int64), maps.truth.astype(np.int64)
        if self._fronts and self._fronts[0].labels.size != grids[0].shape[1]:
            raise UsageError(f"a band {grids[0].shape[1]} px wide after one {self._fronts[0].labels.size} px wide")
        fronts = self._fronts or [_Front(grid[0], np.full(grid.shape[1], -1), _Known.nothing()) for grid in grids]
        joined = [_join(front, grid, self._nodata) for front, grid in zip(fronts, grids, strict=True)]
        (old_p, new_p, _), (old_t, new_t, known_t) = joined
        common = _overlaps(new_p, new_t)
        kept = np.stack([old_p[self._pairs[0]], old_t[self._pairs[1]], self._pairs[2]])
        self._candidates = np.stack([old_p[self._candidates[0]], old_t[self._candidates[1]], self._candidates[2]])
        self._pairs = _merged(np.concatenate([kept, common], 1), known_t.sizes.size)
        self._pixels += int(common[2].sum())
        last = [_Front(grid[-1], new[-1], known) for grid, (_, new, known) in zip(grids, joined, strict=True)]
        self._retire(last)

    def result(self) -> Components:
        """Return the figures of all rows that were added so far."""
        done = self._ended()
        n = max(done._pixels, 1)
        (p, t), (small_p, small_t), (h_p, h_t) = done._count, done._small, done._entropy
        split, merge = max((h_t - done._joint) / n, 0.0), max((h_p - done._joint) / n, 0.0)
        return Components(p, t, small_p, small_t, self._smallest, split, merge)

    def objects(self) -> tuple[ObjectScores, ...]:
        """Return the scores of the components of each class as objects, of all rows that were added so far.

        Two components match if they have one class and an IoU above one half.
        """
        done = self._ended()
        matched, (predicted, true), iou = done._matched.tolist(), done._objects.tolist(), done._iou.tolist()
        return tuple(ObjectScores(*scores) for scores in zip(matched, predicted, true, iou, strict=True))

    def _ended(self) -> ComponentCounter:
        """Return a copy in which all components are finished: more rows may be added to this one later."""
        done = deepcopy(self)
        nothing = np.full(1, -1)
        done._retire([_Front(nothing, nothing, front.known) for front in self._fronts])
        return done

    def _retire(self, last: list[_Front]) -> None:
        """Count the components that do not touch the last row as finished, and renumber the components still needed."""
        if not last:
            return
        alive = [_mark(front.numbers, front.known.sizes.size) for front in last]
        still = _unsettled(self._pairs, *alive)
        self._joint += _n_log_n(self._pairs[2][~still])
        self._match(self._pairs[:, ~still], alive, last[0].known, last[1].known)
        self._pairs = self._pairs[:, still]
        self._fronts = []
        for i, front in enumerate(last):
            known = front.known
            over = ~alive[i] & ~known.counted
            sizes = known.sizes[over]
            self._count[i] += sizes.size
            self._small[i] += int((sizes < self._smallest).sum())
            self._entropy[i] += _n_log_n(sizes)
            self._objects[i] += np.bincount(known.classes[over], minlength=self._nodata)
            # A finished component keeps its number while a pair names it that can still change or match.
            needed = alive[i] | _mark(self._pairs[i], alive[i].size) | _mark(self._candidates[i], alive[i].size)
            fresh = np.append(np.where(needed, np.cumsum(needed) - 1, -1), -1)  # -1 stays -1
            self._pairs[i], self._candidates[i] = fresh[self._pairs[i]], fresh[self._candidates[i]]
            left = _Known(known.sizes[needed], known.classes[needed], ~alive[i][needed])
            self._fronts.append(_Front(front.labels, fresh[front.numbers], left))

    def _match(self, settled: Ints, alive: list[Bools], known_p: _Known, known_t: _Known) -> None:
        """Count the matches among pairs whose pixels in common are final, once both components are finished.

        An IoU above one half needs more than half of either component in common, and components only grow. So each
        component that can still grow has at most one candidate, and memory does not follow the number of overlaps.
        """
        pairs = np.concatenate([self._candidates, settled], 1)
        p, t, common = pairs
        half = 2 * common > np.maximum(known_p.sizes[p], known_t.sizes[t])
        pairs = pairs[:, half & (known_p.classes[p] == known_t.classes[t])]
        grows = alive[0][pairs[0]] | alive[1][pairs[1]]
        self._candidates = pairs[:, grows]
        p, t, common = pairs[:, ~grows]
        union = known_p.sizes[p] + known_t.sizes[t] - common
        found = 2 * common > union
        classes = known_p.classes[p][found]
        self._matched += np.bincount(classes, minlength=self._nodata)
        np.add.at(self._iou, classes, (common / union)[found])


def components_of(maps: Pair, smallest: int = 16) -> Components:
    """Return the component figures of two maps that fit in memory; `smallest` in pixels."""
    counter = ComponentCounter(maps.classes, smallest)
    counter.add(maps)
    return counter.result()


def _join(front: _Front, grid: Ints, nodata: int) -> tuple[Ints, Ints, _Known]:
    """Number the components of `grid` together with the components of the front that they continue.

    Returns the front's new numbers, the grid's numbers (-1 without a label), and what is known by new number.
    """
    found = np.asarray(label(grid, background=nodata, connectivity=1), np.int64) - 1
    known, old, new = front.known, front.known.sizes.size, int(found.max()) + 1
    # Pixels on both sides of the line belong together only if they have the same class and a label.
    touching = (front.labels == grid[0]) & (front.numbers >= 0) & (found[0] >= 0)
    edges = front.numbers[touching], old + found[0][touching]
    # One component of the band may join several of the front, and each of them others; a graph finds them all at once.
    graph = coo_array((np.ones(edges[0].size, bool), edges), shape=(old + new, old + new))
    count, numbers = connected_components(graph, directed=False)
    inside = found >= 0
    classes, counted, total = np.zeros(old + new, np.int64), np.zeros(count, bool), np.zeros(count, np.int64)
    np.add.at(total, numbers, np.concatenate([known.sizes, np.bincount(found[inside], minlength=new)]))
    classes[:old], classes[old + found[inside]] = known.classes, grid[inside]
    of_all = np.zeros(count, np.int64)
    of_all[numbers] = classes
    counted[numbers[:old]] = known.counted  # a component that is counted touches no row, so it is joined to none
    lookup = np.append(numbers[old:], -1).astype(np.int64)
    return numbers[:old].astype(np.int64), lookup[found], _Known(total, of_all, counted)


def _overlaps(prediction: Ints, truth: Ints) -> Ints:
    """Return runs of equal pairs of numbers: (number in prediction, number in truth, pixels), (3, runs)."""
    p, t = prediction.ravel(), truth.ravel()
    # Runs are far fewer than pixels.
    starts = np.flatnonzero(np.append(True, (p[1:] != p[:-1]) | (t[1:] != t[:-1])))
    runs = np.stack([p[starts], t[starts], np.diff(np.append(starts, p.size))])
    return np.asarray(runs[:, runs[0] >= 0])


def _merged(pairs: Ints, width: int) -> Ints:
    """Return `pairs` (3, n) with the pixels of equal pairs summed; the second numbers are below `width`."""
    keys, inverse = np.unique(pairs[0] * max(width, 1) + pairs[1], return_inverse=True)
    pixels = np.zeros(keys.size, np.int64)
    np.add.at(pixels, inverse, pairs[2])
    return np.stack([keys // max(width, 1), keys % max(width, 1), pixels])


def _mark(numbers: Ints, size: int) -> NDArray[np.bool_]:
    """Return a bool array (size,) that is True at the numbers that occur."""
    found = np.zeros(size, bool)
    found[numbers[numbers >= 0]] = True
    return found


def _unsettled(pairs: Ints, p_alive: NDArray[np.bool_], t_alive: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return a bool array (n,): True if a pair can still change.

    A pair grows while both components are alive. A pair can also be merged into another pair: this happens if one
    component is finished but lies on several that are alive, and these turn out to be one.
    """
    p, t = p_alive[pairs[0]], t_alive[pairs[1]]
    several_t = np.bincount(pairs[0][t], minlength=p_alive.size) > 1
    several_p = np.bincount(pairs[1][p], minlength=t_alive.size) > 1
    return np.asarray((p & t) | (t & several_t[pairs[0]]) | (p & several_p[pairs[1]]))


def _n_log_n(sizes: Ints) -> float:
    return float((sizes * np.log2(sizes)).sum())
