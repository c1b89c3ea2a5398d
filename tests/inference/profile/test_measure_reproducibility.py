"""What is not repeatable, depends on its batch or on the size of a pass is found out; levels are measured once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.fakes import global_model, plan_of
from torch import Tensor, nn

import tilepipe as tp
from tilepipe.inference.device import Compute
from tilepipe.inference.profile import measure_reproducibility as module
from tilepipe.inference.profile.measure_reproducibility import Setting, known_reproducibility, measure_reproducibility
from tilepipe.models.card import ModelCard
from tilepipe.models.model import Model
from tilepipe.planning.certify import reproducibility_of
from tilepipe.testing import noise, random_unet

CPU = Compute("cpu", "fp32", 1, 0)
SMALL = Setting((32, 48), 4, 8, CPU)


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, in the process and on disk."""
    monkeypatch.setattr(module, "_KNOWN", {})
    monkeypatch.setenv("TILEPIPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Odd(nn.Module):
    """Two logits per pixel, the same every time, for every batch and shape; others are not."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def more(self, x: Tensor) -> Tensor:
        return x[:, :1]

    def forward(self, x: Tensor) -> Tensor:
        self.shapes.append(tuple(x.shape))
        return torch.cat((x[:, :1], self.more(x)), 1)


class Restless(Odd):
    def more(self, x: Tensor) -> Tensor:
        return x[:, :1] + 1e-6 * (len(self.shapes) == 2)


class ByPlace(Odd):
    def more(self, x: Tensor) -> Tensor:
        return x[:, :1] + 1e-6 * torch.arange(len(x))[:, None, None, None]


class ByCompany(Odd):
    def more(self, x: Tensor) -> Tensor:
        return x[:, :1] + 1e-6 * x.mean()


class ByShape(Odd):
    """What another convolution algorithm for another shape does."""

    def more(self, x: Tensor) -> Tensor:
        return x[:, 1:2] + 0.5 * x.shape[3] / 48


def odd(kind: type[Odd] = Odd) -> Model:
    model = Model.from_torch(kind(), ModelCard(bands=2, classes=["a", "b"], stride=4, halo=8))
    model.module.shapes.clear()  # type: ignore[union-attr, operator]  # what it gives was looked at
    return model


def batches(size: int) -> Setting:
    return replace(SMALL, compute=replace(CPU, batch=size))


@pytest.mark.parametrize("batch", [1, 2, 4, 5])
def test_nothing_is_found_where_nothing_is(batch: int) -> None:
    level = measure_reproducibility(odd(), batches(batch))
    assert level.exact
    assert (level.gap, level.flips, level.rounding) == (0, 0, None)
    assert (level.device, level.precision) == ("cpu", "fp32")


def test_another_answer_to_the_same_tile() -> None:
    assert not measure_reproducibility(odd(Restless), SMALL).repeatable


@pytest.mark.parametrize("kind", [ByPlace, ByCompany])
def test_another_answer_in_another_batch(kind: type[Odd]) -> None:
    level = measure_reproducibility(odd(kind), batches(3))
    assert level.repeatable
    assert not level.independent
    assert measure_reproducibility(odd(kind), SMALL).independent  # one tile has no company


@pytest.mark.parametrize("batch", [1, 4])
def test_another_answer_in_a_larger_pass(batch: int) -> None:
    level = measure_reproducibility(odd(ByShape), batches(batch))
    assert level.repeatable
    assert level.independent
    expected = 0.5 * ((48 - 44) / 48 if batch == 1 else 1) / 4  # the slope of a sigmoid is 1/4 at most
    assert level.gap == pytest.approx(expected, rel=0.1)
    assert level.flips is not None
    assert 0 < level.flips < 0.3
    assert not level.exact


@pytest.mark.parametrize("batch", [1, 4])
def test_the_larger_pass_takes_no_more_than_a_batch(batch: int) -> None:
    model = odd()
    measure_reproducibility(model, batches(batch))
    shapes = model.module.shapes  # type: ignore[union-attr]
    most = batch * 32 * 48
    assert max(n * h * w for n, _, h, w in shapes) == most
    assert len(shapes) <= 8


@pytest.mark.parametrize("setting", [replace(SMALL, halo=None), replace(SMALL, halo=28)])
def test_without_full_context_there_is_nothing_to_compare(setting: Setting) -> None:
    level = measure_reproducibility(odd(), setting)
    assert (level.gap, level.flips) == (None, None)
    assert level.repeatable


class Fixed(Odd):
    def more(self, x: Tensor) -> Tensor:
        assert x.shape[2:] == (32, 48)
        return x[:, 1:]


def test_models_of_one_shape_have_no_larger_pass() -> None:
    assert measure_reproducibility(odd(Fixed), SMALL).gap is None


def test_fp64_is_told_from_fp32() -> None:
    setting = Setting((96, 96), 4, 32, replace(CPU, precision="fp64"), "uint8")
    level = measure_reproducibility(random_unet(), setting)
    assert level.repeatable
    assert level.gap is not None
    assert level.gap < 1e-12
    assert level.rounding is not None
    assert 1e-9 < level.rounding < 1e-4
    assert "Measured on cpu in fp64" in level.sentence


def test_bf16_is_told_from_fp32() -> None:
    model, setting = random_unet(), Setting((96, 96), 4, 32, CPU, "uint8")
    plain = measure_reproducibility(model, setting)
    rough = measure_reproducibility(model, replace(setting, compute=replace(CPU, precision="bf16")))
    assert plain.repeatable
    assert rough.repeatable
    assert plain.rounding is None
    assert plain.gap is not None
    assert plain.gap < 1e-5
    assert rough.rounding is not None
    assert rough.rounding > 100 * max(plain.gap, 1e-7)
    assert rough.rounded is not None
    assert 0 < rough.rounded < 0.1
    assert "fp32 differs by at most" in rough.sentence


@pytest.mark.parametrize("kind", ["instance", "group", "squeeze", "pyramid"])
@pytest.mark.long
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("statistics", ["field", "whole"])
def test_statistics_that_a_run_holds_fixed_are_held(kind: str, batch: int, statistics: str) -> None:
    """With a tile's own statistics no context is enough; with those of a grid the run's is."""
    model = global_model(kind)
    plan = tp.plan(noise(300, 400), model, tile=192, statistics=statistics, batch=batch)
    level = reproducibility_of(plan, model, measure=True)
    assert level is not None
    assert level.repeatable
    assert level.independent
    assert level.gap is not None
    assert level.gap < 1e-5
    live = measure_reproducibility(
        model, Setting((192, 192), plan.tiling.stride, plan.tiling.halo, plan.compute, plan.dtype)
    )
    assert live.gap is not None
    assert live.gap > 1e-3


def test_measured_once_per_process_and_machine(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "model_identity", lambda model, *_: model.sha256())  # its own calls would count too
    model = odd()
    shapes = model.module.shapes  # type: ignore[union-attr]
    assert known_reproducibility(model, SMALL, measure=False) is None
    assert not shapes
    level, calls = known_reproducibility(model, SMALL), len(shapes)
    assert known_reproducibility(model, SMALL) == level
    module._KNOWN.clear()  # another process
    assert known_reproducibility(model, SMALL, measure=False) == level
    assert len(shapes) == calls
    module._KNOWN.clear()
    (kept,) = empty.iterdir()
    kept.write_text("{")
    assert known_reproducibility(model, SMALL) == level
    assert len(shapes) == 2 * calls


def others() -> list[Any]:
    card = ModelCard(bands=2, classes=["a", "b"], stride=4, halo=8, mean=[1.0, 2.0])
    return [
        (odd(), replace(SMALL, tile=(32, 32))),
        (odd(), replace(SMALL, halo=12)),
        (odd(), batches(2)),
        (odd(), replace(SMALL, compute=replace(CPU, precision="bf16"))),
        (Model.from_torch(Odd(), card), SMALL),
    ]


@pytest.mark.parametrize("case", range(5))
def test_whatever_matters_is_in_the_key(case: int, monkeypatch: pytest.MonkeyPatch) -> None:
    known_reproducibility(odd(), SMALL)
    assert known_reproducibility(odd(), SMALL, measure=False) is not None
    assert known_reproducibility(*others()[case], measure=False) is None
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    assert known_reproducibility(odd(), SMALL, measure=False) is None


def test_large_tiles_are_not_measured_whole_on_a_cpu() -> None:
    large = replace(SMALL, tile=(2048, 700), stride=8, halo=600)
    assert module._small_enough(large).tile == (672, 672)
    assert module._small_enough(replace(large, halo=8)).tile == (256, 256)
    assert module._small_enough(SMALL) == SMALL


def test_a_device_that_is_not_there_has_no_level() -> None:
    plan = plan_of(noise(64, 64), random_unet())
    assert reproducibility_of(replace(plan, compute=replace(plan.compute, device="cuda:99")), random_unet()) is None


def test_runs_measure_where_it_matters_and_verify_does_always(tmp_path: Path) -> None:
    image, model = noise(200, 220), random_unet()
    plain = tp.segment(image, model, tmp_path / "plain.tif", tile=128, device="cpu")
    assert plain.certificate.level is None
    rough = tp.segment(image, model, tmp_path / "rough.tif", tile=128, device="cpu", precision="bf16")
    assert rough.certificate.level is not None
    assert rough.certificate.level.precision == "bf16"
    assert rough.record["seams"] == list(rough.certificate.sentences)
    assert len(rough.record["seams"]) == 3
    found = tp.verify(plain, image, model, windows=1)
    assert found.holds
    assert "arithmetic" in str(found)
    again = tp.segment(noise(200, 220, seed=1), model, tmp_path / "next.tif", tile=128, device="cpu")
    assert again.certificate.level is not None
    assert again.certificate.level.precision == "fp32"
