from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.small_training import Stop, discs, stopped_at, weights

from tilepipe.models.formats.directory import load_model
from tilepipe.training import loop
from tilepipe.training.config import TrainConfig
from tilepipe.training.dataset import Dataset
from tilepipe.training.loop import fit, start, step
from tilepipe.training.state import autocast_type

Configure = Callable[..., TrainConfig]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def known_halo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the measurement of how far the network sees."""
    monkeypatch.setattr(loop, "halo", lambda module, bands: 24)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    image, label = discs()
    return torch.from_numpy((image - 100) / 40).float()[None], torch.from_numpy(label).long()[None]


def test_auto_is_full_precision_on_the_cpu_and_half_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert autocast_type("auto", CPU) is None
    assert [autocast_type(name, CPU) for name in ("fp32", "bf16", "fp16")] == [None, torch.bfloat16, torch.float16]
    for known, wanted in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, known=known: known)
        assert autocast_type("auto", torch.device("cuda:0")) is wanted


@pytest.mark.parametrize(("precision", "half"), [("auto", torch.float32), ("bf16", torch.bfloat16)])
def test_the_network_computes_in_half_and_keeps_its_weights_whole(
    small: Configure, precision: str, half: torch.dtype
) -> None:
    config = small(precision=precision)
    state, seen = start(Dataset(config).scenes, config), set[torch.dtype]()
    state.module.register_forward_hook(lambda module, inputs, logits: seen.add(logits.dtype))
    loss = step(state, *batch(), None, config)
    assert seen == {half}
    assert {t.dtype for t in state.average.values() if t.is_floating_point()} == {torch.float32}
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in state.module.parameters())
    whole = start(Dataset(config).scenes, small())
    assert loss == pytest.approx(step(whole, *batch(), None, small()), rel=2e-2)


def test_fp16_scales_the_loss_and_leaves_out_a_step_that_overflows(small: Configure, tmp_path: Path) -> None:
    config = small(precision="fp16")
    state = start(Dataset(config).scenes, config)
    before = {k: t.clone() for k, t in state.module.state_dict().items() if "weight" in k}
    state.scaler.load_state_dict({**state.scaler.state_dict(), "scale": 1e38})
    step(state, *batch(), None, config)
    assert all(torch.equal(state.module.state_dict()[k], t) for k, t in before.items() if t.ndim > 1)
    assert state.scaler.get_scale() == pytest.approx(5e37, rel=1e-3)
    state.scaler.load_state_dict({**state.scaler.state_dict(), "scale": 1024.0})
    step(state, *batch(), None, config)
    assert any(not torch.equal(state.module.state_dict()[k], t) for k, t in before.items() if t.ndim > 1)
    state.save(tmp_path / "c", config)
    other = start(Dataset(config).scenes, config)
    assert other.resume(tmp_path / "c", config) == ""
    assert other.scaler.state_dict() == state.scaler.state_dict()


@pytest.mark.long
def test_half_precision_too_goes_on_bit_for_bit_and_learns_the_same(small: Configure, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"precision": "bf16", "steps": 8}
    whole = fit(small(**changes, output=str(tmp_path / "whole.model")))
    with pytest.raises(Stop):
        fit(small(**changes), stopped_at(5))
    assert weights(fit(small(**changes))) == weights(whole)
    full = fit(small(steps=8, output=str(tmp_path / "full.model")))
    assert weights(full) != weights(whole)
    losses = [load_model(d).card.training["final_loss"] for d in (full, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["auto", "fp32", "bf16", "fp16"])
def test_trains_on_a_gpu_to_about_the_same(small: Configure, tmp_path: Path, precision: str) -> None:
    how = {"flips": False, "rotate": False, "scale": 1, "color": 0, "bands": 0}
    changes: dict[str, Any] = {"steps": 60, "crop": 64, "augment": how, "learning_rate": 1e-2, "ema": 0.9}
    config = small(**changes, precision=precision, device="cuda")
    card = load_model(fit(config.model_copy(update={"score": config.train}))).card
    cpu = small(**changes, device="cpu", output=str(tmp_path / "cpu.model"))
    other = load_model(fit(cpu.model_copy(update={"score": cpu.train}))).card
    scores = [c.training["scores"]["model"]["mean_iou"] for c in (card, other)]
    assert scores[0] == pytest.approx(scores[1], abs=0.1)
