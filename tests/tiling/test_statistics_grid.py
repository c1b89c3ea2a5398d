"""The field's patches and taps: against brute force, and the same for every tile that a pixel lies in."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tilepipe.box import Box
from tilepipe.tiling.grid import Index
from tilepipe.tiling.statistics_grid import nodes_of, patches_of, taps

SIZES = st.integers(1, 900)
STRIDES = st.sampled_from([1, 2, 8, 12])


def test_patches_lie_side_by_side_and_the_last_is_pulled_back() -> None:
    patches = patches_of((250, 90), 96, 8)
    assert [patches.y.origin(k) for k in range(patches.y.count)] == [0, 96, 160]
    assert patches.tile_box(Index(2, 0)) == Box(160, 0, 256, 96)
    assert (patches.x.count, patches.tile_shape) == (1, (96, 96))


@given(SIZES, st.integers(1, 20), STRIDES, st.data())
def test_taps_interpolate_between_patch_centres(size: int, patch: int, stride: int, data: st.DataObject) -> None:
    axis = patches_of((size, size), patch * stride, stride).y
    count = data.draw(st.integers(1, axis.padded // stride))
    start = stride * data.draw(st.integers(0, axis.padded // stride - count))
    centres = [axis.origin(k) + axis.tile / 2 for k in range(axis.count)]
    values = np.random.default_rng(0).random(axis.count)
    below, above, share = taps(axis, start, count, stride)
    wanted = np.interp(start + (np.arange(count) + 0.5) * stride, centres, values)
    np.testing.assert_allclose((1 - share) * values[below] + share * values[above], wanted, atol=1e-12)
    nodes = nodes_of(patches_of((size, size), patch * stride, stride), Box(start, 0, start + count * stride, 1))
    assert nodes.y0 <= below.min()
    assert above.max() < nodes.y1
    first = data.draw(st.integers(0, count - 1))
    for whole, part in zip(
        (below, above, share), taps(axis, start + first * stride, count - first, stride), strict=True
    ):
        assert (whole[first:] == part).all()


@given(SIZES, st.integers(1, 20), STRIDES)
def test_every_pixel_takes_from_a_patch_that_it_lies_in(size: int, patch: int, stride: int) -> None:
    axis = patches_of((size, size), patch * stride, stride).y
    below, above, share = taps(axis, 0, axis.padded, 1)
    for pixel, (low, high, part) in enumerate(zip(below, above, share, strict=True)):
        taken = [k for k, weight in ((low, 1 - part), (high, part)) if weight > 0]
        assert any(axis.origin(int(k)) <= pixel < axis.origin(int(k)) + axis.tile for k in taken)
