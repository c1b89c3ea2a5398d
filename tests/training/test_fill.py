"""Training sees what prediction sees: the pixels that both give to a network, on every kind of missing data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import rasterio
import torch
import zarr
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from torch import Tensor, nn

import tilepipe as tp
from tilepipe.box import Box
from tilepipe.models.formats.directory import load_model
from tilepipe.sources.open import open_source
from tilepipe.training.config import TrainConfig
from tilepipe.training.dataset import Dataset
from tilepipe.training.loop import fit
from tilepipe.training.sampling import Sampler
from tilepipe.training.scenes import held, open_scenes
from tilepipe.training.threshold_baseline import best_threshold
from tilepipe.training.validation import score

Write = Callable[..., Path]
Configure = Callable[..., TrainConfig]

SIDE = 48
RANDOM = np.random.default_rng(0)
BYTES = RANDOM.integers(1, 255, (3, SIDE, SIDE), dtype=np.uint8)
FLOATS = (RANDOM.random((3, SIDE, SIDE)) * 0.1 + 0.2).astype(np.float32)
LABEL = RANDOM.integers(0, 2, (SIDE, SIDE), dtype=np.uint8)
HOLE = np.add.outer(np.arange(SIDE), np.arange(SIDE)) < 30
STILL = {"flips": False, "rotate": False, "scale": 1, "color": 0, "bands": 0}


class Seen(nn.Module):
    """Class 0 everywhere; keeps what it was given."""

    inputs: ClassVar[list[Tensor]] = []
    """Of all copies: a model is made from a copy of a module."""

    def forward(self, x: Tensor) -> Tensor:
        self.inputs.append(x.clone())
        return torch.cat([torch.ones_like(x[:, :1]), torch.zeros_like(x[:, :1])], 1)


def with_hole(pixels: NDArray[Any], value: float) -> NDArray[Any]:
    return np.where(HOLE, np.array(value, pixels.dtype), pixels)


def _alpha(write: Write, folder: Path) -> Path:
    rgba = np.concatenate([with_hole(BYTES, 7), np.where(HOLE, 0, 255).astype(np.uint8)[None]])
    path = write("i.tif", rgba, photometric="rgb")
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    return path


def _mask(write: Write, folder: Path) -> Path:
    path = write("i.tif", with_hole(BYTES, 7))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(np.where(HOLE, 0, 255).astype(np.uint8))
    return path


def _png(write: Write, folder: Path) -> Path:
    return write("i.png", np.concatenate([with_hole(BYTES, 7), np.where(HOLE, 0, 255).astype(np.uint8)[None]]))


def _zarr(write: Write, folder: Path) -> Path:
    array = zarr.create_array(folder / "i.zarr", shape=FLOATS.shape, chunks=(3, 16, 16), dtype="float32")
    array[:] = with_hole(FLOATS, np.nan)
    return folder / "i.zarr"


KINDS: dict[str, Callable[[Write, Path], Path]] = {
    "nodata": lambda write, _: write("i.tif", with_hole(BYTES, 0), nodata=0),
    "nodata in strips": lambda write, _: write("i.tif", with_hole(BYTES, 0), nodata=0, blockysize=1),
    "float nodata": lambda write, _: write("i.tif", with_hole(FLOATS, -9999), nodata=-9999),
    "nan": lambda write, _: write("i.tif", with_hole(FLOATS, np.nan), nodata=np.nan),
    "nan that is not said": lambda write, _: write("i.tif", with_hole(FLOATS, np.nan)),
    "inf": lambda write, _: write("i.tif", with_hole(FLOATS, np.inf)),
    "alpha": _alpha,
    "mask": _mask,
    "png": _png,
    "zarr": _zarr,
}


@pytest.mark.parametrize("resolution", [None, 0.8], ids=["own pixels", "resampled"])
@pytest.mark.parametrize("kind", KINDS)
def test_training_gives_the_network_what_prediction_gives_it(
    write: Write, configure: Configure, tmp_path: Path, kind: str, resolution: float | None
) -> None:
    image = KINDS[kind](write, tmp_path)
    entry = {"image": str(image), "label": str(write("l.png", LABEL)), "resolution": 0.5}
    side = SIDE if resolution is None else 30
    config = configure(train=[entry], crop=side, batch=1, augment=STILL, resolution=resolution)
    dataset = Dataset(config)
    crop, labels = Sampler(dataset.scenes, dataset.found, config).batch(0)

    module = Seen()
    module.inputs.clear()
    statistics = {"mean": dataset.found.mean.tolist(), "std": dataset.found.std.tolist()}
    card = tp.ModelCard(bands=3, classes=["a", "b"], halo=0, resolution=resolution, **statistics)
    model = tp.Model.from_torch(module, card)
    source = open_source(image, resolution=0.5)
    predicted = tp.predict(source, model, tile=64, device="cpu", precision="fp32")

    seen = next(x for x in reversed(module.inputs) if x.shape[-2:] == (side, side))
    assert torch.isfinite(seen).all()
    torch.testing.assert_close(model.normalise(crop), seen[:1], rtol=0, atol=0)
    if resolution is None:  # without image data there is no prediction, and nothing to learn from
        np.testing.assert_array_equal(labels[0].numpy() == -1, HOLE)
        np.testing.assert_array_equal(predicted == 255, HOLE)


@pytest.mark.parametrize("kind", KINDS)
def test_statistics_are_of_image_data_only(write: Write, configure: Configure, tmp_path: Path, kind: str) -> None:
    image = KINDS[kind](write, tmp_path)
    entry = {"image": str(image), "label": str(write("l.png", LABEL))}
    found = Dataset(configure(train=[entry])).found
    data = (BYTES if open_source(image).dtype == np.uint8 else FLOATS)[:, ~HOLE].astype(np.float64)
    np.testing.assert_allclose(found.mean, data.mean(1), rtol=1e-5)
    np.testing.assert_allclose(found.std, data.std(1), rtol=1e-5)
    assert found.counts.sum(0).tolist() == np.bincount(LABEL[~HOLE]).tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_a_scene_in_memory_knows_its_holes(write: Write, configure: Configure, tmp_path: Path, kind: str) -> None:
    entry = {"image": str(KINDS[kind](write, tmp_path)), "label": str(write("l.png", LABEL)), "rows": [4, 40]}
    config = configure(train=[entry])
    (scene,) = open_scenes(config.train, config)
    box = Box(-3, 2, 39, 51)
    for first, second in zip(scene.pixels([9, 9, 9]).read(box), held(scene).pixels([9, 9, 9]).read(box), strict=True):
        np.testing.assert_array_equal(first, second)


def test_reflectance_is_scaled_by_the_deviation_that_the_card_says(write: Write, configure: Configure) -> None:
    """Three decimals would say 0 for the deviation of radiance in W/m2/sr/nm."""
    faint = (FLOATS * 1e-3).astype(np.float32)
    config = configure(
        train=[{"image": str(write("i.tif", faint)), "label": str(write("l.png", LABEL))}],
        arch={"name": "unet", "width": 2, "depth": 1}, steps=1, batch=1, crop=16,
    )  # fmt: skip
    card = load_model(fit(config)).card
    np.testing.assert_allclose(card.mean, faint.mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(card.std, faint.std((1, 2)), rtol=1e-5)


@pytest.fixture
def mosaic(write: Write, configure: Configure) -> Callable[[float | None], TrainConfig]:
    """A mosaic whose turned footprint leaves two empty corners, with the value given there; bright is class 1."""
    random = np.random.default_rng(0)
    label = (random.random((8, 8)) > 0.5).astype(np.uint8).repeat(16, 0).repeat(16, 1)
    image = (label * 0.2 + random.random((3, 128, 128)) * 0.1).astype(np.float32)
    across = np.add.outer(np.arange(128), np.arange(128))
    image_of = {None: image}

    def _mosaic(value: float | None, *, declared: bool = True) -> TrainConfig:
        pixels = image_of[None] if value is None else np.where((across < 50) | (across > 205), np.float32(value), image)
        entry = {
            "image": str(write("i.tif", pixels, nodata=value if declared else None)),
            "label": str(write("l.tif", label)),
        }
        return configure(
            train=[entry], score=[entry], arch={"name": "unet", "width": 4, "depth": 2},
            steps=60, batch=4, crop=32, warmup=5, learning_rate=5e-3, ema=0.9,
        )  # fmt: skip

    return _mosaic


@pytest.mark.parametrize("value", [np.nan, pytest.param(-9999.0, marks=pytest.mark.long)])
def test_holes_do_not_spoil_a_model(mosaic: Callable[[float | None], TrainConfig], value: float) -> None:
    scores = load_model(fit(mosaic(value))).card.training["scores"]
    assert scores["model"]["accuracy"] > 0.95
    assert scores["threshold"]["accuracy"] > 0.95


def test_a_value_like_one_for_no_data_that_no_file_declares_is_said(mosaic: Callable[..., TrainConfig]) -> None:
    """It is trained on, as nobody said what it is; mean and std are spoilt by it."""
    config = mosaic(-9999.0)
    assert not open_scenes(config.train, config)[0].notes
    config = mosaic(-9999.0, declared=False)
    (said,) = open_scenes(config.train, config)[0].notes
    assert "holds -9999 in" in said
    assert "gdal_edit.py -a_nodata -9999" in said
    config = config.model_copy(update={"mask": "none"})
    assert not open_scenes(config.train, config)[0].notes


def test_baselines_and_scores_leave_out_the_same_pixels(mosaic: Callable[[float | None], TrainConfig]) -> None:
    config = mosaic(-9999.0)
    scenes = open_scenes(config.train, config)
    valid = scenes[0].source.valid(scenes[0].full)
    assert valid is not None
    card = tp.ModelCard(bands=3, classes=["a", "b"], halo=0)
    scored = score(tp.Model.from_torch(Seen(), card), scenes)
    rule = best_threshold(scenes, scenes)[0]
    assert scored.pixels == rule.pixels == valid.sum()
