"""The fakes that ship with the package give what they say, through the public functions and other programs' readers."""

from __future__ import annotations

import doctest
import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import rasterio

import tilepipe as tp
from tilepipe import testing
from tilepipe.testing import (
    PLACE,
    REACH,
    FakeSource,
    codes_model,
    constant_model,
    local_mean_model,
    noise,
    random_unet,
    whole_image,
    write_geotiff,
    write_model,
    write_slide,
)

BY_HAND = {"tile": 32, "overlap": 24, "window_shape": "crop"}


def test_the_examples_of_the_docstrings_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = doctest.testmod(testing)
    assert found.attempted > 5
    assert found.failed == 0


def test_codes_and_constants() -> None:
    codes = np.random.default_rng(0).integers(0, 7, (70, 90), dtype=np.uint8)
    assert np.array_equal(tp.predict(codes, codes_model(7), **BY_HAND), codes)
    assert (tp.predict(codes, constant_model(0.1, 0.6, 0.3), **BY_HAND) == 1).all()


@pytest.mark.parametrize(("radius", "threshold", "stride"), [(0, 100, 1), (3, 127, 1), (2, 127, 4), (0, 127, 2)])
def test_the_local_mean_is_what_numpy_says(radius: int, threshold: int, stride: int) -> None:
    pixels = np.random.default_rng(radius).integers(0, 256, (44, 52), dtype=np.uint8)
    cells = pixels.reshape(44 // stride, stride, 52 // stride, stride).mean((1, 3))
    wanted = np.zeros(pixels.shape, np.uint8)
    for y, x in np.ndindex(*pixels.shape):
        row, column = y // stride, x // stride
        near = cells[max(row - radius, 0) : row + radius + 1, max(column - radius, 0) : column + radius + 1]
        wanted[y, x] = near.mean() > threshold
    model = local_mean_model(radius, threshold, stride=stride)
    assert 0 < wanted.mean() < 1
    assert np.array_equal(tp.predict(pixels, model, **BY_HAND), wanted)
    assert np.array_equal(whole_image(model, tp.open_source(pixels)), wanted)


@pytest.mark.parametrize(
    "model",
    [
        local_mean_model(3),
        local_mean_model(2, stride=4),
        random_unet(depth=1),
        pytest.param(random_unet(), marks=pytest.mark.long),
    ],
)
def test_cards_say_the_measured_stride_and_reach(model: Any) -> None:
    found = tp.probe(model)
    stride = model.card.stride
    assert stride % found.stride == 0
    assert max(-(-side // stride) * stride for side in found.halo) <= model.card.halo


def test_models_that_differ_are_told_apart(tmp_path: Path) -> None:
    codes = np.zeros((40, 50), np.uint8)
    cut: dict[str, Any] = {"tile": 32, "overlap": 8}
    tp.segment(codes + 100, local_mean_model(1, 99), tmp_path / "a.tif", **cut)
    again = tp.segment(codes + 100, local_mean_model(1, 101), tmp_path / "a.tif", overwrite=True, **cut)
    assert (np.asarray(again.labels) == 0).all()


def test_tiles_of_a_random_network_equal_the_whole_image() -> None:
    image, model = noise(90, 110), random_unet(seed=3)
    labels = tp.predict(image, model, tile=64, overlap=2 * REACH[2], window_shape="crop")
    assert np.array_equal(labels, whole_image(model, image))
    assert len(np.unique(labels)) == 3


def test_an_image_counts_its_reads_and_fails_where_it_is_told_to() -> None:
    pixels = np.random.default_rng(1).integers(0, 4, (60, 80), dtype=np.uint8)
    image = FakeSource(pixels, damaged=tp.Box(59, 79, 60, 80))
    part = tp.Box(0, 0, 20, 30)
    assert np.array_equal(tp.predict(image, codes_model(4), part, tile=32, overlap=8), pixels[:20, :30])
    assert image.reads
    with pytest.raises(tp.TilepipeError, match="rows 59 to 60, columns 79 to 80 are damaged"):
        tp.predict(image, codes_model(4), tile=32, overlap=8)
    image.damaged = None
    assert np.array_equal(tp.predict(image, codes_model(4), tile=32, overlap=8), pixels)
    assert isinstance(image, tp.Source)
    assert pickle.loads(pickle.dumps(image)).identity() == image.identity() == tp.open_source(pixels).identity()


def test_an_image_takes_its_time() -> None:
    image, start = FakeSource(noise(20, 30), delay=0.05), time.monotonic()
    image.read(tp.Box(0, 0, 2, 2))
    assert time.monotonic() - start >= 0.05


def test_files_are_what_other_programs_read(tmp_path: Path) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (4, 70, 90), dtype=np.uint8)
    with rasterio.open(write_geotiff(tmp_path / "a.tif", pixels, nodata=0)) as file:
        assert np.array_equal(file.read(), pixels)
        assert (tuple(file.transform)[:6], file.crs.to_epsg(), file.nodata) == (PLACE, 32633, 0)
    levels = [pixels[:3], pixels[:3, ::2, ::2]]
    with openslide.OpenSlide(write_slide(tmp_path / "a.svs", levels, mpp=0.25)) as slide:
        assert slide.level_dimensions == ((90, 70), (45, 35))
        assert slide.properties["openslide.mpp-x"] == "0.25"
        read = np.asarray(slide.read_region((0, 0), 1, (45, 35)).convert("RGB"))
    assert np.array_equal(np.moveaxis(read, -1, 0), levels[1])


def test_a_model_directory_gives_the_labels_of_the_model(tmp_path: Path) -> None:
    model = random_unet(seed=5)
    path = write_model(tmp_path / "tiny.model", model)
    image = noise(60, 70)
    assert np.array_equal(tp.predict(image, path, **BY_HAND), tp.predict(image, model, **BY_HAND))
    assert (write_model(tmp_path / "other.model") / "weights.safetensors").exists()
    with pytest.raises(tp.TilepipeError, match="not one of tilepipe's architectures"):
        write_model(tmp_path / "codes.model", codes_model())
