"""Windows are an exact partition of unity for every size, tile, step and shape."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilepipe.tiling.grid import make_axis
from tilepipe.tiling.weights import PROFILES, UNITY, weights

SHAPES = ["crop", *PROFILES]


@pytest.mark.parametrize("shape", SHAPES)
@given(
    size=st.integers(1, 300),
    stride=st.sampled_from([1, 2, 4]),
    tile=st.integers(1, 40),
    overlap=st.integers(0, 39),
    zone=st.integers(1, 100),
)
def test_weights_sum_to_unity_at_every_pixel(
    shape: str, size: int, stride: int, tile: int, overlap: int, zone: int
) -> None:
    overlap = min(overlap, tile - 1)
    if shape == "crop":
        tile, overlap = tile + 2 * overlap, 2 * overlap
    axis = make_axis(size, tile * stride, overlap * stride, stride=stride, crop=shape == "crop", zone=zone)
    total = np.zeros(axis.padded, np.int64)
    for k in range(axis.count):
        share = weights(axis, k, shape)
        assert share.min() >= 0
        total[axis.origin(k) : axis.origin(k) + axis.tile] += share
    assert (total == UNITY).all()


@pytest.mark.parametrize("shape", sorted(PROFILES))
def test_the_tile_that_sees_a_pixel_best_weighs_most(shape: str) -> None:
    axis = make_axis(1000, 128, 64, stride=1, crop=False, zone=1)
    left, right = weights(axis, 3, shape), weights(axis, 4, shape)
    assert (np.diff(left[64:]) <= 0).all()
    assert (np.diff(right[:64]) >= 0).all()
    assert (left[64:] == right[:64][::-1]).all()


def test_hann_at_half_overlap_is_the_hann_window() -> None:
    axis = make_axis(1000, 128, 64, stride=1, crop=False, zone=1)
    hann = np.sin(np.pi * (np.arange(128) + 0.5) / 128) ** 2
    assert np.abs(weights(axis, 3, "hann") / UNITY - hann).max() <= 1 / UNITY
