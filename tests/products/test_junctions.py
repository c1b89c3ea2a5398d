"""Junctions on rings against every corner of the whole map, looked at one by one."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tilepipe.box import Box
from tilepipe.products.junctions import Junctions, corners
from tilepipe.products.label_map import Legend, label_map_of
from tilepipe.products.outlines import groups

LEGEND = Legend("cover", ("background", "wood", "town"), ((9, 9, 9), (213, 94, 0), (0, 158, 115)), 255)


def whole_map(labels: NDArray[np.uint8]) -> set[tuple[int, int]]:
    """Return (x, y) of the corners where three of the four edges are borders; background and nodata are one."""
    regions = np.pad(np.where(np.isin(labels, (0, 255)), -1, labels.astype(int)), 1, constant_values=-1)
    found = set()
    for y in range(labels.shape[0] + 1):
        for x in range(labels.shape[1] + 1):
            (a, b), (c, d) = regions[y : y + 2, x : x + 2]
            if sum(map(bool, (a != b, b != d, d != c, c != a))) >= 3:
                found.add((x, y))
    return found


class Watch:
    def __init__(self, junctions: Junctions) -> None:
        self.junctions = junctions
        self.marks = junctions.marks

    def see(self, box: Box, _pixels: object, values: NDArray[np.int64]) -> None:
        self.junctions.see(box, values)


@given(st.integers(1, 25), st.integers(1, 25), st.integers(0, 999), st.integers(1, 3), st.sampled_from([1, 4, 7, 30]))
def test_junctions_of_rings_are_those_of_the_map(height: int, width: int, seed: int, size: int, block: int) -> None:
    coarse = np.random.default_rng(seed).choice([0, 1, 2, 255], size=(height // size + 1, width // size + 1))
    labels = np.kron(coarse, np.ones((size, size)))[:height, :width].astype(np.uint8)
    junctions, wanted = Junctions(labels.shape, block), whole_map(labels)
    for group in groups(label_map_of(labels, LEGEND), block, None, Watch(junctions)):
        for one in group:
            found = junctions.on([one])
            for k, ring in enumerate(one.rings):
                points, at = found.points[found.ring == k], found.junction[found.ring == k]
                along = set(map(tuple, corners([ring]).points.tolist()))
                assert set(map(tuple, points[at].tolist())) == wanted & along
                assert set(map(tuple, points.tolist())) == set(map(tuple, ring.astype(int).tolist())) | wanted & along
