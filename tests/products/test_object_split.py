"""Splitting at necks: discs that touch are parted where they meet, what has no neck stays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage.measure import label

from tilepipe.products.object_split import split

Y, X = np.mgrid[:80, :120]


def disc(y: float, x: float, radius: float) -> NDArray[np.bool_]:
    return (Y - y) ** 2 + (X - x) ** 2 < radius**2


def test_discs_that_touch_are_parted_where_they_meet() -> None:
    left, right = disc(40, 40, 20), disc(40, 72, 15)
    found = split(left | right, 0.8)
    assert found.max() == 2
    np.testing.assert_array_equal(found > 0, left | right)
    for one in (left, right):
        alone = one & ~(left & right)
        numbers, counts = np.unique(found[alone], return_counts=True)
        assert counts.max() > 0.97 * alone.sum()
        assert numbers[counts.argmax()] > 0


@pytest.mark.parametrize(
    ("what", "count"),
    [
        (disc(40, 60, 20), 1),
        (disc(40, 50, 20) | disc(40, 56, 20), 1),
        (disc(40, 50, 20) & ~disc(40, 50, 8), 1),
        (disc(40, 60, 2.5) | disc(40, 64, 2.5), 1),
        ((abs(Y - 40) < 6) & (abs(X - 60) < 45), 1),
        (disc(20, 20, 12) | disc(20, 42, 12) | disc(20, 64, 12), 3),
    ],
    ids=["disc", "two that overlap much", "ring", "specks", "bar", "chain"],
)
def test_what_has_no_neck_is_one_object(what: NDArray[np.bool_], count: int) -> None:
    filled = disc(40, 50, 20) if count == 1 and not what[40, 50] else None
    assert split(what, 0.8, filled).max() == count


def test_a_neck_is_narrow_beside_the_thinner_part() -> None:
    what = disc(40, 40, 20) | disc(40, 72, 16)
    neck = what[:, 50:66].sum(0).min() / 32
    assert split(what, neck * 0.85).max() == 1
    assert split(what, neck * 1.15).max() == 2


def test_a_dent_of_one_pixel_is_no_neck() -> None:
    thin = (abs(Y - 40) < 3) & (abs(X - 60) < 15)
    thin[38, 58:62] = thin[42, 58:62] = False
    assert split(thin, 0.8).max() == 1


def test_a_hollow_object_is_parted_from_its_neighbour() -> None:
    what = disc(40, 40, 20) | disc(40, 72, 15)
    hollow = what & ~disc(40, 40, 8)
    found = split(hollow, 0.8, what)
    assert found.max() == 2
    np.testing.assert_array_equal(found, np.where(hollow, split(what, 0.8), 0))


@given(st.integers(0, 999), st.sampled_from([0.6, 0.8, 0.95]))
def test_objects_are_connected_and_cover_the_component(seed: int, neck: float) -> None:
    random = np.random.default_rng(seed)
    blobs = [disc(*random.uniform((20, 20), (60, 100)), random.uniform(4, 16)) for _ in range(9)]
    numbers = label(np.logical_or.reduce(blobs), connectivity=1)
    for number in range(1, numbers.max() + 1):
        mask = numbers == number
        holes = label(~np.pad(mask, 1), connectivity=1)
        filled = (holes != holes[0, 0])[1:-1, 1:-1]
        found = split(mask, neck, filled if (filled != mask).any() else None)
        np.testing.assert_array_equal(found > 0, mask)
        assert all(label(found == k, connectivity=1).max() == 1 for k in range(1, found.max() + 1))
