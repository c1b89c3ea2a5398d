"""Masks: tissue on a real slide, small bitmaps and other grids against brute force."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st

from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.sources.array import ArraySource
from tilepipe.sources.borders import Cells
from tilepipe.sources.mask import Bitmap, Masked, OnGrid, tissue
from tilepipe.sources.open import open_source

SLIDE = Path(__file__).parents[2] / "pipelines" / "sample" / "CMU-1-Small-Region.svs"
sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))


@st.composite
def parts(draw: st.DrawFn, size: tuple[int, int]) -> Box:
    y0, x0 = draw(st.integers(0, size[0] - 1)), draw(st.integers(0, size[1] - 1))
    return Box(y0, x0, draw(st.integers(y0 + 1, size[0])), draw(st.integers(x0 + 1, size[1])))


@cache
def small_tissue(margin: float) -> Any:
    """The tissue of the real slide, every eighth pixel."""
    mask = tissue(open_source(SLIDE), margin)
    return mask(Box(0, 0, *mask.shape))[::8, ::8]


def test_tissue_on_a_real_slide() -> None:
    """Pink and purple is in, glass is out."""
    source = open_source(SLIDE)
    _, height, width = source.shape
    pixels = source.read(Box(0, 0, height, width))[:, ::8, ::8].astype(int)
    stained = pixels.max(0) - pixels.min(0) > 60
    glass = pixels.min(0) > 235
    found = small_tissue(8)
    assert stained.mean() > 0.05
    assert found[stained].mean() > 0.995
    assert found.mean() < 0.9
    assert found[glass].mean() < 0.5


def test_a_margin_grows_the_tissue_and_only_grows_it() -> None:
    narrow, wide = small_tissue(8), small_tissue(160)
    assert (wide | ~narrow).all()
    assert wide.sum() > narrow.sum() * 1.05


def test_the_margin_is_in_pixels_of_the_image() -> None:
    pixels = np.full((3, 300, 300), 240, np.uint8)
    pixels[:, 140:160, 140:160] = np.array([180, 60, 140], np.uint8)[:, None, None]
    found = tissue(ArraySource(pixels), 30)(Box(0, 0, 300, 300))
    assert found[150, 159 + 30]
    assert found[140 - 30, 150]
    assert not found[150, 159 + 33]
    assert not found[140 - 33, 150]


def test_a_large_image_is_looked_at_in_small() -> None:
    pixels = np.full((3, 40, 5000), 240, np.uint8)
    pixels[:, :, 2000:2400] = np.array([180, 60, 140], np.uint8)[:, None, None]
    found = tissue(ArraySource(pixels), 100)(Box(20, 0, 21, 5000))[0]
    inside = np.flatnonzero(found)
    assert (np.diff(inside) == 1).all()
    assert abs(inside[0] - 1900) <= 8
    assert abs(inside[-1] - 2500) <= 8


def test_faint_tissue_stays_in() -> None:
    """Pale fat beside strong stain: Otsu's threshold alone would cut it off."""
    pixels = np.full((3, 100, 100), 245, np.uint8)
    pixels[:, 10:40, 10:90] = np.array([120, 20, 100], np.uint8)[:, None, None]
    pixels[:, 60:90, 10:90] = np.array([240, 205, 225], np.uint8)[:, None, None]
    found = tissue(ArraySource(pixels), 1)(Box(0, 0, 100, 100))
    assert found[62:88, 12:88].all()
    assert not found[48:52].any()


def test_a_slide_of_one_colour_is_all_tissue() -> None:
    """Where nothing stands out nothing is left out."""
    assert tissue(ArraySource(np.full((3, 30, 30), 200, np.uint8)), 1)(Box(0, 0, 30, 30)).all()


@pytest.mark.parametrize("array", [np.zeros((4, 20, 20), np.uint8), np.zeros((3, 20, 20), np.uint16)])
def test_tissue_needs_rgb(array: Any) -> None:
    with pytest.raises(InputError, match="a tissue mask needs 3 bands of uint8"):
        tissue(ArraySource(array), 1)


@settings(max_examples=80, deadline=None)
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


@settings(max_examples=60, deadline=None)
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


@settings(max_examples=60, deadline=None)
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
