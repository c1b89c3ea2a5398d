"""Smaller versions of a map are made in pure numpy, each half as large: labels by majority, layers by average."""

from __future__ import annotations

import numpy as np

from tilepipe.arrays import Labels
from tilepipe.products.label_map import Legend


def halvings(shape: tuple[int, int], fit: int) -> list[tuple[int, int]]:
    """Return the (height, width) of all levels, the full one first, until both sides fit `fit` pixels."""
    shapes = [shape]
    while max(shapes[-1]) > fit:
        height, width = shapes[-1]
        shapes.append((-(-height // 2), -(-width // 2)))
    return shapes


def halved(values: Labels, legend: Legend) -> Labels:
    """Return the values (H, W) of a map halved to (ceil(H / 2), ceil(W / 2)): labels by majority, layers by average."""
    return average(values, legend.nodata) if legend.measure else majority(values, legend.nodata)


def average(values: Labels, nodata: int) -> Labels:
    """Return uint8 values (H, W) halved to (ceil(H / 2), ceil(W / 2)): the mean of each 2 x 2 pixels, rounded half up.

    Nodata does not count: a pixel is nodata only if all of its pixels are, as in GDAL's AVERAGE overviews.
    """
    height, width = values.shape
    values = np.pad(values, ((0, height % 2), (0, width % 2)), constant_values=nodata)
    # Twice the sum of four bytes, as the rounding below needs it, fits into 16 bits.
    total = np.zeros((values.shape[0] // 2, values.shape[1] // 2), np.uint16)
    count = np.zeros_like(total)
    for part in (values[::2, ::2], values[::2, 1::2], values[1::2, ::2], values[1::2, 1::2]):
        known = part != nodata
        total += np.where(known, part, 0)
        count += known
    mean = (2 * total + count) // np.maximum(2 * count, 1)
    return np.where(count > 0, mean, nodata).astype(values.dtype)


def majority(labels: Labels, nodata: int) -> Labels:
    """Return labels (H, W) halved to (ceil(H / 2), ceil(W / 2)): the most frequent label of each 2 x 2 pixels.

    Ties go to the lowest label. Nodata does not vote: a pixel is nodata only if all of its pixels are, as in GDAL's
    MODE overviews. `nodata` must be above all labels.
    """
    height, width = labels.shape
    labels = np.pad(labels, ((0, height % 2), (0, width % 2)), constant_values=nodata)
    a, b, c, d = labels[::2, ::2], labels[::2, 1::2], labels[1::2, ::2], labels[1::2, 1::2]
    # When the four are in order, equal labels stand side by side, and nodata, above all labels, comes last.
    a, b, c, d = np.minimum(a, b), np.maximum(a, b), np.minimum(c, d), np.maximum(c, d)  # sort each four
    first, b, c, fourth = np.minimum(a, c), np.maximum(a, c), np.minimum(b, d), np.maximum(b, d)
    second, third = np.minimum(b, c), np.maximum(b, c)
    tail = np.where((third == fourth) & (third != nodata), third, first)
    middle = np.where((second == third) & (second != nodata), second, tail)
    halved: Labels = np.where(first == second, first, middle)
    return halved
