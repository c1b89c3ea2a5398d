"""Models with operations over the whole image: no label depends on the tiles, for every such operation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.fakes import global_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tilepipe as tp
from tilepipe.box import Box
from tilepipe.evaluation.verify.recompute import Passes
from tilepipe.evaluation.verify.verify import verify
from tilepipe.execution.job import make_job
from tilepipe.planning.settings import Request
from tilepipe.sources.array import ArraySource
from tilepipe.testing import noise, whole_image

IMAGE = noise(200, 260)
KINDS = {"instance": (96, 128), "group": (112, 512), "squeeze": (96, 64), "linear": (96, 64), "pyramid": (240, 512)}
"""Two tile sizes for each."""


SLOW = ("instance", "group", "pyramid")


@pytest.fixture(params=[pytest.param(kind, marks=pytest.mark.long if kind in SLOW else ()) for kind in KINDS])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_tile_size_does_not_matter_and_verify_holds(kind: str, tmp_path: Path) -> None:
    model, (tile, other) = global_model(kind), KINDS[kind]
    chosen: dict[str, Any] = {"tile": tile, "statistics": "field"}
    result = tp.segment(IMAGE, model, tmp_path / "a.tif", **chosen)
    labels = np.asarray(result.labels)
    assert result.certificate.mode == "FIELD"
    assert np.bincount(labels.ravel()).max() < 0.96 * labels.size
    # Sums of other tiles round otherwise: two logits that differ by less than that may change places.
    first, second = np.sort(np.asarray(tp.predict(IMAGE, model, returns="logits", **chosen)), 0)[:-3:-1]
    tied = first - second < 1e-6
    assert tied.sum() < 5
    assert ((tp.predict(IMAGE, model, **chosen | {"tile": other}) == labels) | tied).all()
    box = tp.Box(31, 77, 150, 201)
    assert (tp.predict(IMAGE, model, box, **chosen) == labels[31:150, 77:201]).all()
    own = tp.predict(IMAGE, model, statistics="tile", tile=64)
    assert (own != labels).mean() > 0.001
    found = verify(result, IMAGE, model, windows=2)
    assert found.holds, found
    assert found.shifted is None or found.shifted.flips.different == 0


def test_statistics_of_the_whole_image_give_whole_image_inference(kind: str) -> None:
    model, chosen = global_model(kind), {"tile": KINDS[kind][0], "statistics": "whole"}
    job = make_job(IMAGE, model, Request.of(chosen))
    passes = Passes(job)
    tiled = passes.tiled(Box.of_shape(200, 260))[0]
    with torch.inference_mode():
        side = Box(0, 0, 200, -(-260 // model.card.stride) * model.card.stride)
        live = model.module(model.normalise(torch.from_numpy(IMAGE.read(side))[None])).softmax(1)[0, :, :, :260]
    passes.close()
    assert np.abs(tiled - live.double().numpy()).max() <= 1e-5
    assert (tiled.argmax(0) == whole_image(model, IMAGE)).all()


def test_in_fp64_statistics_are_not_rounded_to_fp32() -> None:
    model, (tile, other) = global_model("squeeze"), KINDS["squeeze"]
    truth = whole_image(model, IMAGE, torch.float64)
    for size in (tile, other):
        job = make_job(IMAGE, model, Request.of({"tile": size, "statistics": "whole", "precision": "fp64"}))
        passes = Passes(job)
        tiled, near = passes.tiled(Box.of_shape(200, 260))[0], passes.worker.predictor
        passes.close()
        assert near.dtype == torch.float64
        assert (tiled.argmax(0) == truth).all()
    fixed = [tp.predict(IMAGE, model, tile=size, statistics="field", precision="fp64") for size in (tile, 128)]
    assert (fixed[0] == fixed[1]).all()


@pytest.mark.long
def test_a_field_of_one_window_gives_whole_image_inference() -> None:
    model = global_model("instance", crop=132)
    assert (tp.predict(IMAGE, model, tile=96) == whole_image(model, IMAGE)).all()


@given(st.data())
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_region_is_a_crop_for_any_size_and_tile(data: st.DataObject) -> None:
    model = global_model("squeeze", crop=data.draw(st.sampled_from([16, 24, 50])))
    height, width = data.draw(st.integers(40, 150)), data.draw(st.integers(40, 150))
    y, x = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    box = tp.Box(y, x, data.draw(st.integers(y + 1, height)), data.draw(st.integers(x + 1, width)))
    image, batch = noise(height, width), data.draw(st.integers(1, 3))
    whole = tp.predict(image, model, tile=64, batch=batch, statistics="field")
    assert (
        tp.predict(image, model, box, tile=64, batch=batch, statistics="field") == whole[y : box.y1, x : box.x1]
    ).all()
    assert (tp.predict(image, model, tile=40, statistics="field") == whole).all()


def test_pixels_without_data_leave_the_others_alone() -> None:
    model, pixels = global_model("instance"), noise(160, 320).read(tp.Box(0, 0, 160, 320))
    valid = np.ones((160, 320), bool)
    valid[:, 128:] = False
    pixels[:, :, 128:] = 255
    labels = tp.predict(ArraySource(pixels, valid=valid), model, tile=96)
    alone = tp.predict(pixels[:, :, :128], model, tile=96)
    assert (labels[:, 128:] == 255).all()
    assert (labels[:, :104] == alone[:, :104]).all()  # beyond lies the context, which is filled and not mirrored
    kept = tp.Box(0, 0, 160, 100)
    assert (tp.predict(ArraySource(pixels, valid=valid), model, kept, tile=96) == labels[:, :100]).all()
    empty = ArraySource(pixels, valid=np.zeros((160, 320), bool))
    assert (tp.predict(empty, model, tile=96) == 255).all()
