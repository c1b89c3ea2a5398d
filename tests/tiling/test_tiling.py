"""Columns in bands against brute force: fewest equal columns, context on each side, each tile a block by itself."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import assume, given
from hypothesis import strategies as st

from tilepipe.tiling.tiling import Bands, Tiling, fitting_width


@st.composite
def tilings(draw: st.DrawFn) -> tuple[Tiling, int, tuple[int, int]]:
    """A tiling in bands, the widest column that was allowed, and the shape of an image."""
    stride = draw(st.sampled_from([1, 2, 4, 8]))
    lead, widest = draw(st.integers(0, 5)) * stride, draw(st.integers(1, 40)) * stride
    shape = draw(st.integers(1, 300)), draw(st.integers(1, 300))
    width = fitting_width(shape[1], widest, lead, stride)
    assume(width)
    band = stride * draw(st.integers(1, 4))
    above = band * draw(st.integers(1, 4))
    bands = Bands(band, above, above + band * draw(st.integers(1, 4)))
    return Tiling(width, 2 * lead, "crop", stride, lead, 0, bands), widest, shape


@given(tilings())
def test_every_tile_is_a_block_and_each_pixel_is_kept_once_with_context(drawn: tuple) -> None:
    tiling, _, shape = drawn
    grid = tiling.grid(shape)
    for axis, need in ((grid.y, tiling.bands.lead), (grid.x, tiling.halo)):
        assert axis.blocks == axis.count
        spans = [axis.kept(k) for k in range(axis.count)]
        assert [axis.tiles_of(k) for k in range(axis.count)] == [range(k, k + 1) for k in range(axis.count)]
        assert spans[0][0] == 0
        assert spans[-1][1] == axis.padded
        assert all(above[1] == below[0] for above, below in pairwise(spans))
        for k, (start, stop) in enumerate(spans):
            first, end = axis.origin(k), axis.origin(k) + axis.tile
            assert first == 0 or start - first >= need
            assert end == axis.padded or end - stop >= need
            assert axis.span(k) == (start, min(stop, axis.size))


@given(tilings())
def test_columns_are_as_few_and_as_narrow_as_can_be(drawn: tuple) -> None:
    tiling, widest, _ = drawn
    stride, lead, axis = tiling.stride, tiling.halo, tiling.grid(drawn[2]).x
    assert axis.tile <= widest
    most = (widest - 2 * lead) // stride * stride
    # Two columns keep half of the image each, and see context on one side; more keep equal parts.
    halves = -(-axis.padded // (2 * stride)) * stride
    fewest = 1 if axis.padded <= widest else 2 if halves + lead <= widest else -(-(axis.padded - lead) // most)
    assert axis.count == fewest
    if fewest > 2:
        narrower = axis.step - stride
        assert narrower * fewest < axis.padded - lead


def test_widths_of_a_known_image() -> None:
    assert fitting_width(8192, 4096 + 192, 96, 16) == 4192  # two columns: 1.02 x one pass
    assert fitting_width(8192, 4096 + 1088, 544, 32) == 4640  # 1.13 x one pass
    assert fitting_width(1000, 300, 144, 8) == 0
