"""All labels of a run against one pass over the whole image, which is computed in bands of rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.fakes import global_model
from numpy.typing import NDArray

import tilepipe as tp
from tilepipe.box import Sides
from tilepipe.evaluation.verify.verify import verify
from tilepipe.planning import planner
from tilepipe.planning.receptive_field import measure_receptive_field
from tilepipe.testing import noise, random_unet

SHAPE = (336, 208)
IMAGE = noise(*SHAPE).read(tp.Box(0, 0, *SHAPE))


@pytest.fixture(scope="module")
def model() -> tp.Model:
    return random_unet(width=3)


def in_one_pass(model: tp.Model) -> NDArray[np.int64]:
    """Labels of the image in one call of torch; its sides are multiples of the total stride, so nothing is padded."""
    x = torch.from_numpy(IMAGE[None])
    with torch.inference_mode():
        logits = model.module(model.normalise(x))
    return np.asarray(logits.argmax(1)[0].numpy())


def test_labels_of_an_exact_run_are_those_of_one_pass(model: tp.Model, tmp_path: Path) -> None:
    run = tp.segment(IMAGE, model, tmp_path / "o.tif", tile=96, overlap=64, block=128)
    found = verify(run, IMAGE, model, windows=0, whole=True)
    assert found.holds, found
    assert found.one_pass is not None
    assert (found.one_pass.flips.pixels, found.one_pass.flips.different) == (336 * 208, 0)
    assert "69888 labels on disk are those of one pass over the whole image" in found.verdict
    assert np.array_equal(np.asarray(run.labels), in_one_pass(model))


@pytest.mark.long
def test_blended_labels_differ_where_torch_says_so(model: tp.Model, tmp_path: Path) -> None:
    run = tp.segment(IMAGE, model, tmp_path / "o.tif", tile=64, overlap=16, block=128, window_shape="hann")
    found = verify(run, IMAGE, model, windows=0, whole=True)
    assert found.holds, found  # blended labels claim nothing
    assert found.one_pass is not None
    assert found.one_pass.flips.different == np.count_nonzero(np.asarray(run.labels) != in_one_pass(model)) > 0
    assert found.one_pass.beyond > 0


@pytest.mark.long
def test_a_region_is_compared_alone(model: tp.Model, tmp_path: Path) -> None:
    run = tp.segment(IMAGE, model, tmp_path / "o.tif", tile=96, overlap=64, window=(20, 150, 100, 101))
    found = verify(run, IMAGE, model, windows=1, whole=True)
    assert found.holds, found
    assert found.one_pass is not None
    assert found.one_pass.flips.pixels == 100 * 101


def test_a_claim_that_one_pass_contradicts_does_not_hold(
    model: tp.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reach that is measured too small makes labels near tile borders wrong."""

    def short(model: tp.Model, *rest: Any) -> Any:
        card, reach = measure_receptive_field(model, *rest)
        return card.model_copy(update={"halo": card.stride}), replace(reach, sides=Sides(*4 * (card.stride,)))

    monkeypatch.setattr(planner, "measure_receptive_field", short)
    run = tp.segment(IMAGE, model, tmp_path / "o.tif", tile=48, overlap=2 * model.card.stride, block=128)
    assert run.certificate.mode == "EXACT"
    found = verify(run, IMAGE, model, windows=0, whole=True)
    assert not found.holds
    assert "differ from one pass over the whole image" in found.problems[0]


def test_a_model_that_sees_the_whole_image_is_refused_by_name(tmp_path: Path) -> None:
    squeeze = global_model("squeeze")
    run = tp.segment(IMAGE, squeeze, tmp_path / "o.tif", tile=64, statistics="tile")
    with pytest.raises(tp.TilepipeError, match="cannot be computed in bands of rows"):
        verify(run, IMAGE, squeeze, windows=0, whole=True)


class Choosy(torch.nn.Module):
    """Fails on tiles that hold the value 200."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if bool((x == 200).any()):
            raise ValueError("no 200, please")
        scores: torch.Tensor = self.conv(x)
        return scores


def test_a_run_with_failed_tiles_is_refused_in_a_sentence(tmp_path: Path) -> None:
    image = np.zeros((3, 128, 128), np.uint8)
    image[:, 100, 100] = 200
    choosy = tp.Model.from_torch(Choosy(), tp.ModelCard(bands=3, classes=("a", "b"), halo=0))
    run = tp.segment(image, choosy, tmp_path / "o.tif", tile=64, overlap=0, window_shape="crop")
    assert len(run.failed) == 1
    with pytest.raises(tp.TilepipeError, match="tiles of this run failed"):
        verify(run, image, choosy, windows=0, whole=True)
