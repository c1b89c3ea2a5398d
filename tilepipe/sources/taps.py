"""Taps: the weights of resampling, which are exact integers per axis and are summed in a fixed order."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilepipe.arrays import Array
from tilepipe.sources.base import all_finite

CHUNK_VALUES = 1 << 16
"""Number of values that are summed together: 512 KiB of float64."""


@dataclass(frozen=True)
class Taps:
    """The source pixels that each output pixel of one axis takes, and their weights."""

    index: NDArray[np.intp]
    """Positions on the source's axis, (pixels, taps)."""
    weight: NDArray[np.float64]
    """Weights (pixels, taps), which are integers; each row has the same sum, and unused taps have weight 0."""

    def each(self, part: slice = slice(None)) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float64]]]:
        """Yield the k-th tap of some output pixels, from the first to the last tap: (positions, weights)."""
        for k in range(self.index.shape[1]):
            yield self.index[part, k], self.weight[part, k]


def taps(start: int, stop: int, size: int, source_size: int) -> Taps:
    """Return the taps of output pixels [start, stop) of an axis of `size` pixels made from one of `source_size`."""
    # Whole numbers in units of a fraction that both grids share: weights of neighbouring boxes are equal to the bit,
    # and so are sums of integers.
    common = math.gcd(size, source_size)
    n, m = size // common, source_size // common  # in units of 1/n source pixel an output pixel is m long
    out = np.arange(start, stop, dtype=np.int64)[:, None]
    if m >= n:
        first = out * m // n
        index = first + np.arange(-(-m // n) + 1)
        weight = np.minimum((out + 1) * m, (index + 1) * n) - np.maximum(out * m, index * n)
    else:
        centre = (2 * out + 1) * m - n  # of the output pixel, from the first source centre, in units of 1/(2n)
        first = centre // (2 * n)
        index = first + np.arange(2)
        upper = centre - first * 2 * n
        weight = np.concatenate([2 * n - upper, upper], axis=1)
    return Taps(np.clip(index, 0, source_size - 1).astype(np.intp), np.maximum(weight, 0).astype(np.float64))


def apply(data: Array, rows: Taps, columns: Taps) -> NDArray[np.float64]:
    """Return the weighted sums of (bands, y, x) `data`, which the taps index; exact for integers below 2**53."""
    result = np.empty((len(data), len(rows.index), len(columns.index)))
    # A few rows are done at once, so that they stay in the processor's cache: this is eight times faster.
    step = max(1, CHUNK_VALUES // (len(data) * data.shape[-1]))
    for start in range(0, len(rows.index), step):
        part = slice(start, start + step)
        over_rows = sum_of(np.take(data, index, axis=1) * weight[:, None] for index, weight in rows.each(part))
        result[:, part] = sum_of(np.take(over_rows, index, axis=2) * weight for index, weight in columns.each())
    return result


def sum_of(terms: Iterator[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the sum of arrays, taken from first to last."""
    total = next(terms)
    for term in terms:
        total += term
    return total


def averages(data: Array, valid: NDArray[np.bool_] | None, rows: Taps, columns: Taps) -> NDArray[np.float64]:
    """Return weighted averages of the valid pixels of `data`, (bands, y, x).

    If a pixel covers no valid pixel, the invalid ones are averaged; the result is NaN if it covers no finite pixel.
    """
    everything = float(rows.weight[0].sum() * columns.weight[0].sum())
    finite = all_finite(data) if data.dtype.kind == "f" else None
    if finite is not None and not finite.all():
        data = np.where(finite, data, 0)
        valid = finite if valid is None else valid & finite
    if valid is None or valid.all():
        return apply(data, rows, columns) / everything
    weight = apply(valid[None], rows, columns)
    some = apply(data * valid, rows, columns) / np.where(weight > 0, weight, 1.0)
    rest = apply(data, rows, columns) / everything
    if finite is not None:
        rest = np.where(apply(finite[None], rows, columns) > 0, rest, np.nan)
    return np.where(weight > 0, some, rest)
