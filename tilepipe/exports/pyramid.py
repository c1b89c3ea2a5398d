"""Smaller versions of a label map, each half of the one before, by majority; pure numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def halvings(shape: tuple[int, int], fit: int) -> list[tuple[int, int]]:
    """Return the (height, width) of all levels, the full one first, until both sides fit `fit` pixels."""
    shapes = [shape]
    while max(shapes[-1]) > fit:
        height, width = shapes[-1]
        shapes.append((-(-height // 2), -(-width // 2)))
    return shapes


def majority(labels: NDArray[Any], nodata: int) -> NDArray[Any]:
    """Return labels (H, W) halved to (ceil(H / 2), ceil(W / 2)): the most frequent label of each 2 x 2 pixels.

    Ties go to the lowest label. Nodata does not vote: a pixel is nodata only where all of its pixels are, as in GDAL's
    MODE overviews. `nodata` must be above all labels.
    """
    height, width = labels.shape
    labels = np.pad(labels, ((0, height % 2), (0, width % 2)), constant_values=nodata)
    a, b, c, d = labels[::2, ::2], labels[::2, 1::2], labels[1::2, ::2], labels[1::2, 1::2]
    a, b, c, d = np.minimum(a, b), np.maximum(a, b), np.minimum(c, d), np.maximum(c, d)  # sort each four
    first, b, c, fourth = np.minimum(a, c), np.maximum(a, c), np.minimum(b, d), np.maximum(b, d)
    second, third = np.minimum(b, c), np.maximum(b, c)
    tail = np.where((third == fourth) & (third != nodata), third, first)
    middle = np.where((second == third) & (second != nodata), second, tail)
    halved: NDArray[Any] = np.where(first == second, first, middle)
    return halved
