"""Regions joined across borders, against scipy's components of the whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import label

from tilepipe.tiling.border_merge import Regions


@given(st.integers(0, 9999), st.integers(1, 12), st.integers(1, 12))
def test_rows_joined_one_by_one_are_the_components_of_the_whole(seed: int, height: int, width: int) -> None:
    """Every pixel a part of its own, closed as soon as the row below does not touch it."""
    wanted = np.random.default_rng(seed).random((height, width)) < 0.6
    regions, where = Regions(), {}
    found = []
    front = np.zeros(width, np.int64)
    for y in range(height):
        row = np.zeros(width, np.int64)
        for x in np.flatnonzero(wanted[y]):
            row[x] = regions.add()
            where[int(row[x])] = (y, int(x))
        regions.join_across(front, row, np.ones(width, bool))
        regions.join_across(row[:-1], row[1:], np.ones(width - 1, bool))
        found += regions.closed(row)
        front = row
    found += regions.closed(np.zeros(0, np.int64))
    truth, count = label(wanted)
    assert len(found) == count
    for parts in found:
        (number,) = {int(truth[where[part]]) for part in parts}
        assert len(parts) == (truth == number).sum()


def test_labels_decide_what_is_joined() -> None:
    regions = Regions()
    near, far = np.array([regions.add(), regions.add(), 0]), np.array([regions.add(), regions.add(), regions.add()])
    regions.join_across(near, far, np.array([True, False, True]))
    assert regions.closed(np.array([near[0]])) == [[2], [4], [5]]
    assert regions.closed(np.zeros(0, np.int64)) == [[1, 3]]
    with pytest.raises(KeyError):
        regions.find(1)
