"""Where exact labels cost too much: a halo for a tolerance, measured on the image, or blending with no promise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilepipe as tp
from tilepipe.evaluation.verify.verify import verify
from tilepipe.planning import reduced_halo
from tilepipe.sources.array import ArraySource
from tilepipe.testing import noise, random_unet

IMAGE = noise(330, 400)


@pytest.fixture(scope="module")
def model() -> tp.Model:
    return random_unet(width=3)


@pytest.mark.long
def test_cheap_enough_is_exact(model: tp.Model) -> None:
    plan = tp.plan(IMAGE, model)
    assert plan.tiling.tile == 512
    assert plan.exact
    assert tp.plan(noise(700, 700), model, tile=256, max_cost=4).exact


def test_too_dear_is_within_the_tolerance(model: tp.Model, tmp_path: Path) -> None:
    said = []
    result = tp.segment(IMAGE, model, tmp_path / "labels.tif", tile=80, tolerance=0.05, listener=said.append)
    certificate, cut = result.certificate, result.plan.tiling
    assert certificate.mode == "TOLERANCE"
    assert certificate.tolerance == 0.05
    assert 0 < cut.overlap <= 40
    assert cut.window == "crop"
    assert "at most about 0.05" in certificate.sentences[0]
    assert any("at most about 0.05" in event.message for event in said)
    assert "an overlap of 48 would be exact" in str(result.plan)
    found = verify(result, IMAGE, model, windows=6)
    assert found.holds, found
    assert found.limit == 0.05
    assert 0 < (found.error or 0) <= 0.05


def test_a_region_uses_the_same_context(model: tp.Model, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"tile": 80, "tolerance": 0.05}
    whole = np.asarray(tp.segment(IMAGE, model, tmp_path / "labels.tif", **settings).labels)
    reduced_halo._MEASURED.clear()
    box = tp.Box(100, 90, 230, 260)
    assert (tp.predict(IMAGE, model, box, **settings) == whole[100:230, 90:260]).all()


def test_an_unreachable_tolerance_is_blended_and_uncertified(model: tp.Model) -> None:
    plan = tp.plan(IMAGE, model, tile=80, tolerance=1e-9)
    assert (plan.tiling.window, plan.tiling.overlap) == ("gaussian", 40)
    assert "not certified" in plan.seams


def test_tolerance_0_asks_for_exact_labels_at_any_cost(model: tp.Model) -> None:
    plan = tp.plan(IMAGE, model, tile=80, tolerance=0)
    assert plan.exact
    assert plan.work > 4


def test_the_users_own_settings_stay(model: tp.Model) -> None:
    assert tp.plan(IMAGE, model, tile=80, overlap=16).tiling.overlap == 16
    assert tp.plan(IMAGE, model, tile=80, window_shape="hann").tiling.window == "hann"


def test_patches_without_data_are_not_measured(model: tp.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    valid = np.zeros((330, 400), bool)
    image = ArraySource(IMAGE.read(tp.Box(0, 0, 330, 400)), valid=valid)
    assert list(reduced_halo.patches(image, 64)) == []
    assert tp.plan(image, model, tile=80).tiling.window == "gaussian"
    valid[:200, :200] = True
    holes = ArraySource(IMAGE.read(tp.Box(0, 0, 330, 400)), valid=valid)
    assert all(patch.shape == (3, 64, 64) for patch in reduced_halo.patches(holes, 64))


@pytest.mark.parametrize("wrong", [{"tolerance": -0.1}, {"tolerance": 1.0}, {"max_cost": 0.5}])
def test_numbers_that_cannot_be_meant(model: tp.Model, wrong: dict[str, Any]) -> None:
    with pytest.raises(tp.TilepipeError, match=f"`{next(iter(wrong))}` .* cannot be used"):
        tp.plan(IMAGE, model, **wrong)
