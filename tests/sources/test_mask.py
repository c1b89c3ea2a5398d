"""Masks: small bitmaps and other grids against brute force, and values that hold no image data."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

from tilepipe.box import Box
from tilepipe.sources.array import ArraySource
from tilepipe.sources.borders import Cells
from tilepipe.sources.mask import Bitmap, Masked, OnGrid

sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))


@st.composite
def parts(draw: st.DrawFn, size: tuple[int, int]) -> Box:
    y0, x0 = draw(st.integers(0, size[0] - 1)), draw(st.integers(0, size[1] - 1))
    return Box(y0, x0, draw(st.integers(y0 + 1, size[0])), draw(st.integers(x0 + 1, size[1])))


@given(size=sizes, grid=sizes, data=st.data())
def test_on_another_grid_it_is_the_pixel_under_the_centre(
    size: tuple[int, int], grid: tuple[int, int], data: st.DataObject
) -> None:
    mask = np.random.default_rng(0).random(size) > 0.5
    box = data.draw(parts(grid))
    found = OnGrid(lambda box: mask[box.y0 : box.y1, box.x0 : box.x1], size, grid)(box)
    for y in range(box.y0, box.y1):
        for x in range(box.x0, box.x1):
            under = [int((k + Fraction(1, 2)) * Fraction(n, m)) for k, n, m in zip((y, x), size, grid, strict=True)]
            assert found[y - box.y0, x - box.x0] == mask[under[0], under[1]]


@given(small=sizes, size=sizes, data=st.data())
def test_a_bitmap_is_stretched_alike_for_every_box(
    small: tuple[int, int], size: tuple[int, int], data: st.DataObject
) -> None:
    mask = np.random.default_rng(1).random(small) > 0.5
    bitmap = Bitmap(mask, *size)
    box = data.draw(parts(size))
    whole = bitmap(Box.of_shape(*size))
    assert (bitmap(box) == whole[box.y0 : box.y1, box.x0 : box.x1]).all()
    y, x = box.y0, box.x0
    assert whole[y, x] == mask[y * small[0] // size[0], x * small[1] // size[1]]


@given(small=sizes, size=sizes, data=st.data())
def test_a_bitmap_knows_its_cells(small: tuple[int, int], size: tuple[int, int], data: st.DataObject) -> None:
    mask = np.random.default_rng(data.draw(st.integers(0, 9))).random(small) > data.draw(st.floats(0, 1))
    bitmap, box = Bitmap(mask, *size), data.draw(parts(size))
    rows, columns = np.arange(box.y0, box.y1), np.arange(box.x0, box.x1)
    begins, ends = np.arange(box.width), np.minimum(np.arange(box.width) + 2, box.width)
    there = bitmap(box)
    found = bitmap.meet(Cells(rows, columns, begins, ends))
    assert found.tolist() == [bool(there[:, a:b].any()) for a, b in zip(begins, ends, strict=True)]


def test_a_value_narrows_what_the_source_says() -> None:
    rng = np.random.default_rng(2)
    valid, pixels = rng.random((20, 30)) > 0.3, rng.integers(0, 3, (20, 30)).astype(np.uint8)
    source = Masked(ArraySource(pixels, valid=valid), 2)
    found = source.valid(Box(-2, -3, 22, 33))
    assert found is not None
    assert (found == np.pad(valid & (pixels != 2), ((2, 2), (3, 3)))).all(), "False outside the image"
    outside = source.valid(Box(-5, -5, -1, -1))
    assert outside is not None
    assert not outside.any()


def test_masked_by_nothing_is_valid_everywhere() -> None:
    source = ArraySource(np.zeros((20, 30), np.uint8), valid=np.zeros((20, 30), bool))
    free = Masked(source, None)
    assert free.valid(Box(0, 0, 20, 30)) is None
    assert free.coarser(5, 5).valid(Box(0, 0, 20, 30)) is None
    assert (free.shape, free.dtype, free.name) == (source.shape, source.dtype, source.name)
    known = [str(image.identity()) for image in (source, free, Masked(source, 7), Masked(source, 7.5))]
    assert len(set(known)) == 4


def test_a_value_is_nodata_only_where_every_band_has_it() -> None:
    pixels = np.array([[[7, 7, 0]], [[7, 0, 0]]], np.uint8)
    found = Masked(ArraySource(pixels), 7).valid(Box(0, 0, 1, 3))
    assert found is not None
    assert found.tolist() == [[False, True, True]]


@pytest.mark.parametrize("said", [-3.4028234663852886e38, -3.40282306e38, -9999.9, 0.1])
def test_a_value_of_floats_is_compared_as_nodata_is(geotiff: Any, said: float) -> None:
    lowest = said if said > -1e38 else np.finfo(np.float32).min
    pixels = np.array([[[lowest, 5, lowest * 0.99, -1e38, 0, np.nextafter(np.float32(lowest), np.float32(0))]]])
    path = geotiff(pixels.astype(np.float32), crs="EPSG:3857", transform=rasterio.Affine(1, 0, 0, 0, -1, 0))
    with rasterio.open(path, "r+") as dataset:
        dataset.nodata = said
        expected = dataset.dataset_mask() > 0
    found = Masked(ArraySource(pixels.astype(np.float32)), said).valid(Box(0, 0, 1, 6))
    assert found is not None
    assert (found == expected).all()
