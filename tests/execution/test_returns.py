"""`predict(returns=...)`: what the run stores at the same pixels, and the logits of torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tilepipe as tp
from tilepipe.box import Box
from tilepipe.errors import UsageError
from tilepipe.inference.predictor import Predictor
from tilepipe.sources.array import ArraySource
from tilepipe.testing import noise, random_unet

PIXELS = noise(120, 160).read(Box(0, 0, 120, 160))
VALID = np.ones((120, 160), bool)
VALID[40:70, 60:120] = False
IMAGE, MODEL = ArraySource(PIXELS, valid=VALID), random_unet(depth=1)
CUTS: dict[str, Any] = {
    "crop": {"tile": 64, "overlap": 32, "window_shape": "crop", "block": 64},
    "hann": {"tile": 64, "overlap": 32, "window_shape": "hann", "block": 64},
}
PART = Box(30, 20, 90, 130)


@pytest.mark.parametrize("name", CUTS)
def test_it_is_what_the_run_stores(name: str, tmp_path: Path) -> None:
    layers = ["margin", "entropy", *(["disagreement"] if name == "hann" else [])]
    run = tp.segment(IMAGE, MODEL, tmp_path / "a.tif", of="cog,probabilities", layers=layers, **CUTS[name])
    found = tp.predict(IMAGE, MODEL, PART, returns="probabilities", **CUTS[name])
    assert (found.shape, found.dtype) == ((3, 60, 110), np.uint8)
    assert np.array_equal(found, np.stack([layer[30:90, 20:130] for layer in run.probabilities]))
    assert (found[:, ~VALID[30:90, 20:130]] == 255).all()
    for layer in layers:
        values = tp.predict(IMAGE, MODEL, PART, returns=layer, **CUTS[name])
        assert np.array_equal(values, run.layers[layer][30:90, 20:130])


def test_logits_are_those_of_torch_and_their_largest_is_the_label() -> None:
    found = tp.predict(IMAGE, MODEL, returns="logits", **CUTS["crop"])
    filled = np.where(VALID, PIXELS, 127).astype(np.uint8)
    with torch.inference_mode():
        wanted = MODEL.module(MODEL.normalise(torch.from_numpy(filled[None])))[0].numpy()
    assert (found.shape, found.dtype) == ((3, 120, 160), np.float32)
    assert np.isnan(found[:, ~VALID]).all()
    assert np.abs(found - wanted)[:, VALID].max() < 1e-3
    labels = tp.predict(IMAGE, MODEL, **CUTS["crop"])
    assert (found.argmax(0) == labels)[VALID].all()


@pytest.mark.parametrize("returns", ["labels", "probabilities", "logits", "margin"])
def test_each_tile_is_predicted_once(returns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tp.predict(IMAGE, MODEL, **CUTS["crop"])  # what is measured once is known then
    calls, called = [], Predictor._called

    def counted(self: Any, network: Any, tiles: Any, under: Any) -> Any:
        calls.append(len(tiles))
        return called(self, network, tiles, under)

    monkeypatch.setattr(Predictor, "_called", counted)
    plan = tp.plan(IMAGE, MODEL, **CUTS["crop"])
    tp.predict(IMAGE, MODEL, returns=returns, **CUTS["crop"])
    assert 0 < sum(calls) <= plan.tile_count


def test_several_models_and_other_grids() -> None:
    models = [MODEL, random_unet(depth=1, seed=1)]
    found = tp.predict(IMAGE, models, returns="mutual-information")
    assert (found.shape, found.dtype, (found[~VALID] == 255).all()) == ((120, 160), np.uint8, True)
    assert tp.predict(IMAGE, models, returns="probabilities").shape == (3, 120, 160)


@pytest.mark.parametrize(
    ("model", "settings", "said"),
    [
        (MODEL, {"returns": "softmax"}, "`returns` 'softmax' cannot be used; give one of labels, probabilities"),
        (MODEL, {"returns": "logits", **CUTS["hann"]}, "tiles are blended here"),
        (MODEL, {"returns": "logits", "tta": "d4"}, "gives no logits: its answer is a mean of probabilities"),
        (MODEL, {"returns": "margin", "layers": "entropy"}, "predict returns one array"),
        (MODEL, {"returns": "mutual-information"}, "compares the answers of several models"),
    ],
)
def test_what_cannot_be_returned_is_refused(model: Any, settings: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        tp.predict(IMAGE, model, **settings)
