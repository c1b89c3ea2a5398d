"""Masks of COCO JSON as other programs, and damaged files, write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tilepipe.errors import InputError
from tilepipe.sources.geo_coco import unpacked

PATH = Path("a.json")


def test_a_mask_is_unpacked_column_by_column() -> None:
    found, y, x = unpacked(PATH, [5, 2, 9], (4, 4))
    mask = np.zeros((4, 4), bool)
    mask[y : y + found.shape[0], x : x + found.shape[1]] = found
    assert np.array_equal(np.flatnonzero(mask.T), [5, 6])


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ([2**62] * 4 + [16], "runs of 18,446,744,073,709,551,632 pixels"),
        ([1.7, 14.3], "a run of 1.7 pixels"),
        (["a", "b"], "a run of a pixels"),
        ([-1, 17], "a run of -1 pixels"),
        ([16, True, 0], "a run of True pixels"),
        ([3, 4], "runs of 7 pixels in sum"),
    ],
)
def test_runs_that_are_no_mask_are_refused(counts: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        unpacked(PATH, counts, (4, 4))


def test_a_packed_mask_of_one_endless_number_is_refused() -> None:
    with pytest.raises(InputError, match="a run of more than 60 bits"):
        unpacked(PATH, "o" * 400_000, (4, 4))


def test_a_mask_that_is_too_large_is_refused_as_such() -> None:
    with pytest.raises(InputError, match="write its outlines as polygons"):
        unpacked(PATH, [1 << 30], (1 << 15, 1 << 15))
