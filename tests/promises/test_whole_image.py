"""Tiled inference equals whole-image inference at every pixel, once the overlap covers the model's reach."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.fakes import run_labels

import tilepipe as tp
from tilepipe.sources.resample import Resampled
from tilepipe.testing import REACH, noise, random_unet, whole_image

SAMPLE = Path(__file__).parents[2] / "pipelines" / "sample"


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("shape", [(150, 233), (97, 64)])
def test_unet_with_its_halo_equals_the_whole_image(depth: int, shape: tuple[int, int], tmp_path: Path) -> None:
    model, source = random_unet(depth=depth), noise(*shape)
    halo = REACH[depth]
    truth = whole_image(model, source)
    assert 0.05 < (truth == 0).mean() < 0.95
    tile = 2 * halo + 4 * model.card.stride
    labels = run_labels(source, model, tmp_path, tile=tile, overlap=2 * halo, block=2 * tile)
    assert (labels == truth).all()


def test_without_halo_it_does_not(tmp_path: Path) -> None:
    model, source = random_unet(depth=3), noise(150, 233)
    labels = run_labels(source, model, tmp_path, tile=48, overlap=0, window_shape="crop")
    assert (labels != whole_image(model, source)).mean() > 0.001


@pytest.mark.parametrize("window", ["gaussian", "hann", "linear"])
def test_an_image_of_one_tile_needs_no_halo(window: str, tmp_path: Path) -> None:
    model, source = random_unet(depth=3), noise(61, 90)
    labels = run_labels(source, model, tmp_path, tile=96, overlap=48, window_shape=window)
    assert (labels == whole_image(model, source)).all()


@pytest.mark.long
def test_a_real_image_with_the_bundled_model_equals_the_whole_image() -> None:
    """899 x 904 pixels at the model's resolution, in 512-pixel tiles; the truth is one forward pass."""
    model, image = tp.load_model("buildings"), tp.open_source(SAMPLE / "banepa_east_rgb.tif")
    plan = tp.plan(image, model, resolution="model")
    assert plan.exact
    assert plan.tile_count > 1
    truth = whole_image(model, Resampled(image, *plan.predicted))
    assert 0.1 < (truth == 1).mean() < 0.9
    assert (tp.predict(image, model, resolution="model") == truth).all()
