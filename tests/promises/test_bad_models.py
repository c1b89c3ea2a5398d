"""Models that no tiling can make right, or whose card is wrong: each is named, and nothing is written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everyone uses

import tilepipe as tp
from tilepipe.cli.main import main
from tilepipe.errors import ModelError
from tilepipe.evaluation.model_check import check_model
from tilepipe.testing import noise, whole_image


class Step(nn.Module):
    """A module around a function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Counter(nn.Module):
    """Adds how often it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x + self.calls


class Stubborn(nn.BatchNorm2d):
    """Stays in training mode."""

    def train(self, mode: bool = True) -> nn.Module:
        return super().train(True)


def model(*layers: nn.Module, stride: int = 1, halo: int | None = None) -> tp.Model:
    torch.manual_seed(1)
    first, last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 1)
    card = tp.ModelCard(bands=3, classes=["a", "b"], mean=[127] * 3, std=[60] * 3, stride=stride, halo=halo)
    return tp.Model.from_torch(nn.Sequential(first, *layers, last), card)


class Rounding(nn.Conv2d):
    """Rounds otherwise in a batch, as kernels do, and the network after it makes much of that."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1e-3 * (len(x) > 1) * (x.dtype == torch.float32)


def test_rounding_in_a_batch_is_no_dependence() -> None:
    assert tp.probe(model(Rounding(4, 4, 1))).local


BAD = {
    "dropout left on": (lambda: Step(lambda x: F.dropout(x, 0.2)), "dropout left on in layer '1'"),
    "batch norm in training mode": (lambda: Stubborn(4), "batch norm in training mode in layer '1'"),
    "batch norm without statistics": (
        lambda: nn.BatchNorm2d(4, track_running_stats=False),
        "batch norm in training mode in layer '1'",
    ),
    "random": (lambda: Step(lambda x: x + torch.rand(())), "something in it is random or keeps state"),
    "stateful": (Counter, "something in it is random or keeps state"),
    "batch": (lambda: Step(lambda x: x - x.mean(0)), "depends on the other tiles of the batch"),
    "NaN": (lambda: Step(lambda x: x / 0), "NaN or infinit"),
}


def subsampled() -> tuple[nn.Module, ...]:
    return nn.AvgPool2d(6), nn.Conv2d(4, 4, 3, padding=1), nn.Upsample(scale_factor=6)


def refused(bad: tp.Model, words: str, folder: Path, **settings: Any) -> None:
    """Check that plan, segment and predict refuse a model, and leave a folder with an older output as it is."""
    image, old = noise(64, 80), folder / "labels.tif"
    old.write_bytes(b"older labels")
    with pytest.raises(ModelError, match=words):
        tp.plan(image, bad, **settings)
    with pytest.raises(ModelError, match=words):
        tp.segment(image, bad, old, overwrite=True, **settings)
    with pytest.raises(ModelError, match=words):
        tp.predict(image, bad, tp.Box(0, 0, 8, 8), **settings)
    assert [path.name for path in folder.iterdir()] == ["labels.tif"]
    assert old.read_bytes() == b"older labels"


STATED = [pytest.param(case, {"halo": 8}, marks=pytest.mark.long if case != "random" else []) for case in BAD]


@pytest.mark.parametrize(("case", "said"), [*((case, {}) for case in BAD), *STATED])
def test_no_tiling_makes_them_right(case: str, said: dict[str, int], tmp_path: Path) -> None:
    make, words = BAD[case]
    refused(model(make(), **said), words, tmp_path)
    with pytest.raises(ModelError, match=words):
        tp.plan(noise(64, 80), model(make(), **said), overlap=16)
    with pytest.raises(ModelError, match=words):
        check_model(model(make(), **said))


@pytest.mark.parametrize("case", BAD)
def test_nor_where_they_cannot_be_measured(case: str, tmp_path: Path) -> None:
    """As files of one tile size: they are tried on that, without layers to name."""
    make, words = BAD[case]
    bad = model(Step(only_64), make(), halo=8)
    bad = tp.Model(bad.card.model_copy(update={"tile": 64}), bad.module)
    bad.module.opaque = True  # type: ignore[assignment]
    hidden = {"dropout left on": "something in it is random", "batch norm": "depends on the other tiles of the batch"}
    words = next((other for start, other in hidden.items() if case.startswith(start)), words)
    refused(bad, words, tmp_path)


def only_64(x: Tensor) -> Tensor:
    assert x.shape[2:] == (64, 64)
    return x


WRONG: dict[str, tuple[Callable[[], tp.Model], str]] = {
    "stride": (
        lambda: model(*subsampled(), stride=2),
        "the card says stride 2, measured is 6: .* stride 6 and halo 12",
    ),
    "stride beside a halo": (lambda: model(*subsampled(), halo=12), "the card says stride 1, measured is 6"),
    "halo": (
        lambda: model(nn.Conv2d(4, 4, 9, padding=4), halo=3),
        "the card says halo 3, measured reach is 5: .* stride 1 and halo 5",
    ),
    "halo where none is enough": (
        lambda: model(nn.InstanceNorm2d(4), halo=16),
        r"the card says halo 16, but no halo is enough .* instance norm \(1\).* stride 1 and halo null",
    ),
    "halo where place matters": (
        lambda: model(Step(lambda x: x + torch.arange(x.shape[3])), halo=16),
        "the card says halo 16, but no halo is enough",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_card_that_contradicts_the_measure_is_refused(case: str, tmp_path: Path) -> None:
    make, words = WRONG[case]
    refused(make(), words, tmp_path)
    with pytest.raises(ModelError, match=words):
        tp.plan(noise(64, 80), make(), overlap=24)


def test_a_card_that_is_right_or_wasteful_is_taken(tmp_path: Path) -> None:
    image = noise(130, 151)
    for said in ({}, {"stride": 6}, {"stride": 12, "halo": 24}, {"stride": 6, "halo": 48}):
        layers = subsampled()
        bad, right = model(*layers, **said), model(*layers, stride=said.get("stride", 6))
        result = tp.segment(image, bad, tmp_path / "labels.tif", tile=48, overwrite=True)
        assert result.plan.tile_count > 1
        assert (result.plan.tiling.stride, result.certificate.mode) == (right.card.stride, "EXACT")
        assert result.plan.tiling.halo == 12, "what was measured, also where the card says more"
        assert (np.asarray(result.labels) == whole_image(right, image)).all()
    with pytest.raises(tp.TilepipeError, match=r"tile 50 is not a multiple of 6 \(the model's total stride\)"):
        tp.plan(image, model(*subsampled(), stride=6), tile=50)


@pytest.mark.long
def test_what_hides_nan_is_named_and_measured_all_the_same(tmp_path: Path) -> None:
    layers = nn.Conv2d(4, 4, 9, padding=4), Step(torch.nan_to_num)
    found, image = check_model(model(*layers)), noise(130, 151)
    assert any("nan_to_num replaces NaN in layer '2'" in note for note in found.notes)
    result = tp.segment(image, model(*layers), tmp_path / "labels.tif", tile=40)
    assert (result.certificate.mode, result.plan.tiling.halo) == ("EXACT", 5)
    assert (np.asarray(result.labels) == whole_image(model(*layers), image)).all()


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_the_command_line_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a file of another program, whose layers cannot be seen: dropout that stays on."""

    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(x[:, :2], 0.2, training=True)

    file = tmp_path / "noisy.ts"
    torch.jit.save(torch.jit.script(Noisy()), file)
    file.with_suffix(".json").write_text(json.dumps({"bands": 3, "classes": ["a", "b"]}))
    trust = f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    assert main(["model", "check", str(file), "--trust-model", trust]) == 5
    assert "something in it is random or keeps state" in capsys.readouterr().err
    image = "pipelines/sample/Amazon_24_20.tif"
    assert main(["segment", image, str(tmp_path / "x.tif"), "-m", str(file), "--trust-model", trust]) == 5
    assert "something in it is random or keeps state" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["noisy.json", "noisy.ts"]
