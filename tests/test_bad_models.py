"""Models that no tiling can make right, or whose card is wrong: each is named, and nothing is written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import noise, whole_image
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everyone uses

import tilepipe as tp
from tilepipe.check import check_model
from tilepipe.cli.main import main
from tilepipe.errors import ModelError


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


def model(*layers: nn.Module, stride: int = 1) -> tp.Model:
    torch.manual_seed(1)
    first, last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 1)
    card = tp.ModelCard(bands=3, classes=["a", "b"], mean=[127] * 3, std=[60] * 3, stride=stride)
    return tp.Model.from_torch(nn.Sequential(first, *layers, last), card)


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


@pytest.mark.parametrize("case", BAD)
def test_no_tiling_makes_them_right(case: str, tmp_path: Path) -> None:
    make, words = BAD[case]
    with pytest.raises(ModelError, match=words):
        tp.segment(noise(64, 80), model(make()), tmp_path / "labels.tif")
    assert list(tmp_path.glob("*.tif")) == []
    with pytest.raises(ModelError, match=words):
        check_model(model(make()))


def test_a_wrong_stride_is_named_and_not_used(tmp_path: Path) -> None:
    layers = nn.AvgPool2d(6), nn.Conv2d(4, 4, 3, padding=1), nn.Upsample(scale_factor=6)
    wrong, right, image = model(*layers, stride=2), model(*layers, stride=6), noise(130, 151)
    assert check_model(wrong).problems[0].startswith("the card says stride 2, measured is 6: a tile's place")
    result = tp.segment(image, wrong, tmp_path / "labels.tif", tile=48)
    assert result.plan.tile_count > 1
    assert (np.asarray(result.labels) == whole_image(right, image)).all()
    with pytest.raises(tp.TilepipeError, match=r"tile 50 is not a multiple of 6 \(the model's total stride\)"):
        tp.segment(image, wrong, tmp_path / "other.tif", tile=50)


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
