"""The grid against brute force: each tile in one block, each pixel kept, real context, strips to later neighbours."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tilepipe.box import Box
from tilepipe.tiling.grid import Axis, Grid, Index, make_axis


@st.composite
def axes(draw: st.DrawFn) -> Axis:
    stride = draw(st.sampled_from([1, 2, 3, 4, 8]))
    crop = draw(st.booleans())
    halo = draw(st.integers(0, 4)) * stride
    step = draw(st.integers(1, 12)) * stride
    overlap = 2 * halo if crop else min(halo, 11 * step)
    size = draw(st.integers(1, 200))
    return make_axis(size, step + overlap, overlap, stride=stride, crop=crop, zone=draw(st.integers(1, 90)))


@settings(max_examples=100, deadline=None)
@given(axes())
def test_every_tile_belongs_to_exactly_one_block(axis: Axis) -> None:
    owned = [k for block in range(axis.blocks) for k in axis.tiles_of(block)]
    assert sorted(owned) == list(range(axis.count))
    assert all(k in axis.tiles_of(axis.block_of(k)) for k in range(axis.count))


@settings(max_examples=100, deadline=None)
@given(axes())
def test_tiles_lie_on_the_stride_and_keep_every_pixel(axis: Axis) -> None:
    kept = [0] * axis.padded
    for k in range(axis.count):
        start, stop = axis.kept(k)
        assert axis.origin(k) % axis.stride == 0
        assert axis.origin(k) <= start < stop <= axis.origin(k) + axis.tile <= axis.padded
        for pixel in range(start, stop):
            kept[pixel] += 1
    assert min(kept) >= 1
    if axis.crop:
        assert max(kept) == 1


@settings(max_examples=100, deadline=None)
@given(axes())
def test_crop_has_real_context_on_every_side_that_is_not_the_edge(axis: Axis) -> None:
    for k in range(axis.count):
        start, stop = axis.kept(k)
        origin, end = axis.origin(k), axis.origin(k) + axis.tile
        assert origin == 0 or start - origin >= axis.lead
        assert end == axis.padded or end - stop >= axis.lead


@settings(max_examples=100, deadline=None)
@given(axes())
def test_a_tile_reaches_at_most_into_the_next_zone(axis: Axis) -> None:
    for k in range(axis.count):
        last = min(axis.kept(k)[1], axis.size) - 1
        writer = min(last // axis.zone, axis.blocks - 1)
        assert writer - axis.block_of(k) <= (0 if axis.crop else 1)


@settings(max_examples=100, deadline=None)
@given(axes())
def test_no_two_tiles_see_the_same_pixels(axis: Axis) -> None:
    origins = [axis.origin(k) for k in range(axis.count)]
    assert origins == sorted(set(origins))


@settings(max_examples=100, deadline=None)
@given(axes())
def test_blocks_write_every_pixel_once(axis: Axis) -> None:
    written = [pixel for block in range(axis.blocks) for pixel in range(*axis.span(block))]
    assert written == list(range(axis.size))


@settings(max_examples=100, deadline=None)
@given(axes(), st.data())
def test_tiles_over_is_brute_force(axis: Axis, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, axis.size - 1))
    stop = data.draw(st.integers(start + 1, axis.size))
    truth = [k for k in range(axis.count) if axis.kept(k)[0] < stop and start < axis.kept(k)[1]]
    assert list(axis.tiles_over(start, stop)) == truth


@settings(max_examples=100, deadline=None)
@given(axes(), axes(), st.data())
def test_blocks_over_a_region_own_its_tiles_and_write_its_pixels(y: Axis, x: Axis, data: st.DataObject) -> None:
    if y.crop != x.crop:
        return
    grid = Grid(y, x)
    y0, x0 = data.draw(st.integers(0, y.size - 1)), data.draw(st.integers(0, x.size - 1))
    box = Box(y0, x0, data.draw(st.integers(y0 + 1, y.size)), data.draw(st.integers(x0 + 1, x.size)))
    blocks = set(grid.blocks_over(box))
    assert {grid.block_of(tile) for tile in grid.tiles_over(box)} <= blocks
    writers = {(i, j) for i in range(y.blocks) for j in range(x.blocks) if grid.zone(Index(i, j)) & box}
    assert writers <= blocks


def test_an_image_within_one_tile_is_one_tile_of_its_padded_size() -> None:
    axis = make_axis(50, 512, 64, stride=16, crop=True, zone=1024)
    assert (axis.count, axis.tile, axis.padded, axis.blocks) == (1, 64, 64, 1)


def test_neighbours() -> None:
    axis = make_axis(100, 16, 8, stride=1, crop=False, zone=32)
    grid = Grid(axis, axis)
    assert grid.earlier(Index(0, 0)) == []
    assert grid.earlier(Index(1, 1)) == [(1, 0), (0, 1), (0, 0)]
    assert grid.later(Index(axis.blocks - 1, axis.blocks - 1)) == []
