"""Tiles show exactly the image's pixels at full size, and its averages below; other values are stretched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.windows import Window

import tilepipe as tp
from tilepipe.sources.array import ArraySource
from tilepipe.sources.resample import Resampled
from tilepipe.view import small_image
from tilepipe.view.averages import averages
from tilepipe.view.image_tiles import ImageTiles
from tilepipe.view.screen import TILE, Screen

SAMPLE = Path(__file__).parents[2] / "pipelines" / "sample"
RNG = np.random.default_rng(0)


def pixels(tiles: ImageTiles, level: int, row: int, column: int) -> NDArray[Any]:
    """Return a tile as (4, height, width), cut to the image."""
    found, box = tiles.tile(level, row, column), tiles.screen.box(level, row, column)
    assert found is not None
    assert box is not None
    tile = np.frombuffer(found, np.uint8).reshape(TILE, TILE, 4).transpose(2, 0, 1)
    assert not tile[:, box.height :].any()
    assert not tile[:, :, box.width :].any()
    return tile[:, : box.height, : box.width]


@pytest.mark.parametrize("name", ["banepa_east_rgb.tif", "CMU-1-Small-Region.svs"])
def test_at_full_size_a_tile_is_the_crop_that_other_readers_find(name: str) -> None:
    import openslide

    tiles = ImageTiles(tp.open_source(SAMPLE / name))
    found = pixels(tiles, 0, 1, 2)
    if name.endswith(".tif"):
        with rasterio.open(SAMPLE / name) as file:
            wanted = file.read(window=Window(2 * TILE, TILE, TILE, TILE))
    else:
        with openslide.OpenSlide(SAMPLE / name) as slide:
            wanted = np.asarray(slide.read_region((2 * TILE, TILE), 0, (TILE, TILE)).convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(found[:3], wanted)


@pytest.mark.parametrize("shape", [(1, 1), (511, 513), (512, 512), (1025, 40), (3000, 2000)])
def test_tiles_of_every_level_cover_the_image_once(shape: tuple[int, int]) -> None:
    screen = Screen(shape)
    assert max(screen.size(screen.last)) <= TILE
    assert screen.last == 0 or max(screen.size(screen.last - 1)) > TILE
    for level in range(screen.last + 1):
        height, width = screen.size(level)
        boxes = [screen.box(level, row, column) for row in range(-1, 8) for column in range(-1, 8)]
        assert sum(box.area for box in boxes if box) == height * width


def test_smaller_levels_are_averages() -> None:
    image = RNG.integers(0, 256, (3, 1024, 1024), dtype=np.uint8)
    found = pixels(ImageTiles(ArraySource(image)), 1, 0, 0)
    wanted = np.floor(image.reshape(3, 512, 2, 512, 2).mean((2, 4)) + 0.5)
    np.testing.assert_array_equal(found[:3], wanted)


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_every_kind_of_image_becomes_a_picture(bands: int, dtype: str) -> None:
    image = np.linspace(100, 3000, bands * 40 * 50).reshape(bands, 40, 50)
    image = (image / 20 if dtype == "uint8" else image).astype(dtype)
    if dtype == "float32":
        image[:, :10, :10] = np.nan
    found = pixels(ImageTiles(ArraySource(image)), 0, 0, 0)
    known = np.isfinite(image).all(0)
    np.testing.assert_array_equal(found[3], 255 * known)
    shown = image[:3] if bands >= 3 else image[[0, 0, 0]]
    if dtype == "uint8":
        np.testing.assert_array_equal(found[:3], shown)
        return
    low, high = np.percentile(shown[:, known], (2, 98))
    wanted = np.clip((shown[:, known].astype(float) - low) * 255 / (high - low), 0, 255)
    assert np.abs(found[:3, known] - wanted).max() <= 1


def test_pixels_without_data_are_transparent_and_tiles_without_any_are_empty() -> None:
    valid = np.zeros((600, 600), bool)
    valid[:100] = True
    tiles = ImageTiles(tp.open_source(np.full((3, 600, 600), 9, np.uint8), valid=valid))
    found = pixels(tiles, 0, 0, 0)
    np.testing.assert_array_equal(found[3] > 0, valid[:512, :512])
    assert tiles.tile(0, 1, 0) is None


def test_a_constant_image_is_shown() -> None:
    assert pixels(ImageTiles(ArraySource(np.full((3, 9, 9), 700, np.uint16))), 0, 0, 0).shape == (4, 9, 9)
    assert ImageTiles(ArraySource(np.full((3, 9, 9), np.nan, np.float32))).tile(0, 0, 0) is None


def test_overviews_of_a_geotiff_are_shown(tmp_path: Path) -> None:
    image = RNG.integers(0, 200, (3, 2048, 2048), dtype=np.uint8)
    place = {"transform": rasterio.Affine(2, 0, 0, 0, -2, 0), "crs": "EPSG:32633"}
    with rasterio.open(tmp_path / "a.tif", "w", "GTiff", 2048, 2048, 3, dtype="uint8", tiled=True, **place) as file:
        file.write(image)
        file.build_overviews([2, 4], Resampling.nearest)
    with rasterio.open(tmp_path / "a.tif", overview_level=1) as file:
        wanted = file.read()
    tiles = ImageTiles(tp.open_source(tmp_path / "a.tif"))
    np.testing.assert_array_equal(pixels(tiles, 2, 0, 0)[:3], wanted)
    assert tp.open_source(tmp_path / "a.tif").coarser(512, 512).shape == (3, 2048, 2048)  # labels depend on none


def test_a_large_image_without_levels_is_read_once_in_the_background(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_image, "READ_AT_ONCE", 1 << 20)
    monkeypatch.setattr(small_image, "LARGEST", 1 << 20)
    monkeypatch.setattr(small_image, "PIECE", 256)
    image = RNG.integers(0, 256, (3, 2048, 2048), dtype=np.uint8)
    source = ArraySource(image)
    tiles = ImageTiles(source)
    small = tiles.small
    assert small is not None
    assert small.level == 2
    assert tiles.tile(2, 0, 0) is None
    assert tiles.tile(1, 0, 0) is not None
    small.fill()
    assert (small.share, small.trouble) == (1.0, "")
    wanted = np.floor(image.reshape(3, 512, 4, 512, 4).mean((2, 4)) + 0.5)
    np.testing.assert_array_equal(pixels(tiles, 2, 0, 0)[:3], wanted)


@given(st.integers(0, 3), st.sampled_from(["uint8", "uint16", "int16", "float32"]), st.booleans(), st.integers(0, 9999))
def test_quick_averages_are_those_of_the_exact_ones(times: int, dtype: str, masked: bool, seed: int) -> None:
    random = np.random.default_rng(seed)
    height, width = 24 << times, 40 << times
    image = random.integers(0, 250, (3, height, width)).astype(dtype)
    valid = random.random((height, width)) < 0.3 if masked else None
    source = ArraySource(image, valid=valid)
    box = tp.Box(3, 5, 20, 40)
    bands, there = averages(source, box, times, [0, 1, 2])
    exact = Resampled(source, 24, 40)
    np.testing.assert_array_equal(
        True if there is None else there, True if (mask := exact.valid(box)) is None else mask
    )
    known = np.ones(box.shape, bool) if there is None else there
    apart = np.abs(np.stack(bands).astype(float) - exact.read(box))[:, known]
    assert apart.max(initial=0.0) <= (0.501 if dtype != "uint8" else 0)
