"""tilepipe inside other programs: sent to workers, called a thousand times, asked for what it cannot do."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch
from torch import nn

import tilepipe as tp
from tilepipe.box import Sides
from tilepipe.inference.predictor import Predictor
from tilepipe.testing import random_unet

IMAGE = np.random.default_rng(0).integers(0, 255, (3, 64, 64), dtype=np.uint8)
CARD = {"bands": 3, "classes": ["a", "b"]}
SAMPLE = Path(__file__).parents[2] / "pipelines" / "sample" / "Amazon_24_20.tif"


@pytest.mark.long
def test_a_function_that_uses_tilepipe_can_be_sent_elsewhere(tmp_path: Path) -> None:
    def forest(path: str) -> int:
        return int((tp.predict(path, "forest", tp.Box(0, 0, 64, 64)) == 1).sum())

    (tmp_path / "sent").write_bytes(cloudpickle.dumps(forest))
    code = "import sys, cloudpickle; print(cloudpickle.load(open(sys.argv[1], 'rb'))(sys.argv[2]))"
    command = [sys.executable, "-c", code, str(tmp_path / "sent"), str(SAMPLE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == f"{forest(str(SAMPLE))}\n", done.stderr


@pytest.mark.parametrize("own", [False, True])
def test_a_warm_model_is_called_once_for_a_small_image(own: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network alone: no probe, no footprint, no hash of its weights, no question to tell it by."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 2, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x)

    model = tp.Model.from_torch(Net(), CARD) if own else random_unet()
    tp.predict(IMAGE, model)
    calls: list[tuple[int, ...]] = []
    run = Predictor._run

    def counted(self: Predictor, network: Any, x: torch.Tensor) -> torch.Tensor:
        calls.append(tuple(x.shape))
        return run(self, network, x)

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("the network is called, or its weights are hashed, beside the tile")

    monkeypatch.setattr(Predictor, "_run", counted)
    for place in ("models.probe.procedure._run", "models.probe.procedure.network_sha256", "models.answers.identified"):
        monkeypatch.setattr(f"tilepipe.{place}", refused)
    monkeypatch.setattr("tilepipe.inference.profile.footprint._footprint", refused)
    tp.predict(IMAGE + 1, model)
    assert calls == [(1, 3, 64, 64)]


def test_a_change_of_a_model_is_seen() -> None:
    """What is kept of a warm model is not used for another one."""
    model = tp.Model.from_torch(nn.Sequential(nn.Conv2d(3, 2, 3, padding=1)), CARD)
    assert tp.plan(IMAGE, model).reach.sides == Sides(1, 1, 1, 1)
    model.module[0].dilation, model.module[0].padding = (3, 3), (3, 3)  # type: ignore[index]
    assert tp.plan(IMAGE, model).reach.sides == Sides(3, 3, 3, 3)
    model.module.append(nn.Conv2d(2, 2, 5, padding=2))  # type: ignore[operator]
    assert tp.plan(IMAGE, model).reach.sides == Sides(5, 5, 5, 5)


@pytest.mark.long
def test_many_images_leave_nothing_in_memory() -> None:
    model = random_unet(depth=1)

    def predict(count: int) -> int:
        for k in range(count):
            tp.predict(IMAGE[:, : 40 + k % 20] + np.uint8(k), model)
        gc.collect()
        return len(gc.get_objects())

    predict(25)
    before = predict(5)
    assert predict(60) - before < 100


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: tp.predict(IMAGE, nn.Conv2d(3, 2, 1)), "from_torch"),
        (lambda: tp.predict(IMAGE, "forest", (0, 0, 10)), "four whole numbers"),
        (lambda: tp.predict(IMAGE, "forest", workers=5), "no use for 'workers'"),
        (lambda: tp.predict(IMAGE, "forest", of=["cog"]), "no use for 'of'"),
        (lambda: tp.predict(IMAGE, "forest", tiles=5), "'tiles' is not known"),
        (lambda: tp.labels(IMAGE, "forest", scheduler="tcp://127.0.0.1:1"), "no use for 'scheduler'"),
        (lambda: tp.labels(IMAGE, "forest", region=(0, 0, 9, 9)), "no use for 'region'"),
        (lambda: tp.predict({"red": IMAGE}, "forest"), "not an image"),
        (lambda: tp.Model.from_torch(nn.Conv2d(3, 2, 1), {"bands": 3, "clases": ["a", "b"]}), "classes"),
        (lambda: tp.Model.from_torch(lambda x: x, CARD), "wrap a function"),
        (lambda: tp.predict(IMAGE[0, 0], "forest"), "axes"),
        (lambda: tp.segment(IMAGE, "forest", "x.tif", scheduler=5), "scheduler"),
        (lambda: tp.zonal("missing.tif", []), "missing.tif"),
        (lambda: tp.Model.from_torch(nn.Conv2d(3, 2, 1), None), "a NoneType is no card"),  # type: ignore[arg-type]
        (lambda: tp.Model.from_torch(nn.Conv2d(3, 2, 1), "card"), "a str is no card"),  # type: ignore[arg-type]
        (lambda: tp.open_labels(None), "a NoneType is no path"),  # type: ignore[arg-type]
        (lambda: tp.segment(IMAGE, "forest", 5), "a int is no path"),  # type: ignore[arg-type]
        (lambda: tp.segment(IMAGE, "forest", "."), "names no file"),
        (lambda: tp.segment(IMAGE, "forest", "x.tif", listener=5), "listener"),  # type: ignore[arg-type]
        (lambda: tp.predict(IMAGE, "forest", overlp=5), "did you mean overlap"),
    ],
)
def test_what_a_caller_gets_wrong_is_told_in_a_sentence(call: Any, words: str) -> None:
    with pytest.raises(tp.TilepipeError, match=words):
        call()


def test_what_a_caller_may_give_is_taken() -> None:
    class Dict(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"aux": x[:, 1:], "out": x[:, :2]}

    model = tp.Model.from_torch(Dict(), CARD, key="out")
    wanted = tp.predict(IMAGE, model)
    assert (wanted == (IMAGE[1] > IMAGE[0])).all()
    assert (tp.predict(IMAGE, model, (0, 0, 64, 64), device=torch.device("cpu"), mask=None) == wanted).all()
