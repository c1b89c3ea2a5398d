"""The least certain places of a map: where a layer of uncertainty is worst over a square."""

from __future__ import annotations

import numpy as np

from tilepipe.box import Box
from tilepipe.products.label_map import LabelMap
from tilepipe.view.map_tiles import MapTiles

SQUARE = 64
"""Side of a square [pixels of the map]."""
MOST = 50
"""Largest number of places."""
CERTAIN_IS_LARGE = {"margin": True, "entropy": False, "disagreement": False}
"""Whether large values of a layer stand for certain labels."""
Place = tuple[float, float, float]
"""Centre (y, x) of a square [image pixels], and the layer's mean over it, 0 to 1."""


def least_certain(tiles: MapTiles) -> list[Place]:
    """Return the squares with the worst mean of a layer, the worst first; no two of them touch.

    At least half of a square must hold values. Of a layer without smaller versions, only what has been read counts.
    """
    level = _level_of(tiles)
    legend = level.legend
    assert legend.measure is not None
    sign = 1 if CERTAIN_IS_LARGE.get(legend.name, True) else -1
    means = _means(level, max(1, round(SQUARE * tiles.map.scale[0] / level.scale[0])))
    side = SQUARE * tiles.map.scale[0], SQUARE * tiles.map.scale[1]
    order = np.argsort(sign * means, axis=None, kind="stable")
    taken = np.isnan(means)
    found: list[Place] = []
    for row, column in zip(*np.unravel_index(order, means.shape), strict=True):
        if len(found) == MOST or np.isnan(means[row, column]):
            break
        if taken[row, column]:
            continue
        taken[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2] = True
        y, x = level.origin[0] + (row + 0.5) * side[0], level.origin[1] + (column + 0.5) * side[1]
        found.append((float(y), float(x), round(float(means[row, column]) * legend.measure.step, 4)))
    return found


def _level_of(tiles: MapTiles) -> LabelMap:
    """Return the version with the largest pixels that are no larger than a square, and no larger than needed."""
    largest = max(tiles.map.scale) * SQUARE
    fit = [level for level in tiles.levels if max(level.scale) <= largest]
    return fit[-1]


def _means(level: LabelMap, cells: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return the mean of each square of `cells` x `cells` pixels; NaN where less than half of it holds values."""
    height, width = level.shape
    rows = []
    for y in range(0, height, cells):
        values = level.read(Box(y, 0, min(y + cells, height), width))
        known = values != level.legend.nodata
        edges = np.arange(0, width, cells)
        totals = np.add.reduceat(np.where(known, values, 0).sum(0, dtype=np.int64), edges)
        counts = np.add.reduceat(known.sum(0, dtype=np.int64), edges)
        areas = values.shape[0] * np.diff(np.append(edges, width))
        rows.append(np.where(2 * counts >= areas, totals / np.maximum(counts, 1), np.nan))
    return np.array(rows)
