"""Stride and reach follow from the layers: they hold for all weights, and never less than any weights need."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import tilepipe as tp
from tilepipe.events import Event
from tilepipe.models.probe import procedure
from tilepipe.models.probe.architecture import architecture_of
from tilepipe.models.probe.procedure import probe_once
from tilepipe.models.probe.subject import adopt

CARD = {"bands": 3, "classes": ["a", "b"]}


class Net(nn.Module):
    """A network in the words of its user, with a branch that a fresh training starts at zero."""

    def __init__(self, kernel: int = 3) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.wide = nn.Conv2d(4, 4, kernel, padding=kernel // 2)
        self.last = nn.Conv2d(4, 2, 1)
        nn.init.zeros_(self.wide.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.first(x)).relu()
        down = self.wide(nn.functional.max_pool2d(x, 2))
        return self.last(x + nn.functional.interpolate(down, scale_factor=2.0))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> list[int]:
    runs: list[int] = []
    run = procedure._run

    def counted(*args: Any) -> Any:
        runs.append(1)
        return run(*args)

    monkeypatch.setenv("TILEPIPE_CACHE", str(tmp_path))
    monkeypatch.setattr(procedure, "_run", counted)
    monkeypatch.setattr(procedure, "_SEEN", {})
    return runs


def test_a_branch_that_starts_at_zero_counts(measured: list[int]) -> None:
    net = Net().eval()
    found = probe_once(net, 3, 1)
    nn.init.normal_(net.wide.weight)
    own = procedure._run(adopt(net, 3, 1), 1)
    assert (found.stride, found.reach) == (own.stride, own.reach)
    assert found.stride == 2


def test_a_training_that_predicts_each_epoch_measures_once(measured: list[int]) -> None:
    net, image = Net(5), np.random.default_rng(0).integers(0, 255, (3, 70, 90), dtype=np.uint8)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    found = []
    for _ in range(3):
        net.train()
        optimizer.zero_grad()
        net(torch.randn(2, 3, 32, 32)).square().mean().backward()
        optimizer.step()
        found.append(tp.predict(image, tp.Model.from_torch(net, CARD)))
    assert len(measured) == 1
    assert net.training
    with torch.no_grad():
        x = torch.nn.functional.pad(torch.from_numpy(image[None]).float(), (0, 0, 0, 0))
        wanted = net.eval()(x).argmax(1)[0].numpy()
    assert (found[-1] == wanted).all()


def test_other_layers_settings_code_or_hooks_are_measured_anew(measured: list[int]) -> None:
    told: list[Event] = []

    class Other(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(nn.functional.avg_pool2d(x, 9, 1, 4))

    nets: list[nn.Module] = [Net().eval(), Net(5).eval(), Other().eval()]
    hooked = Net().eval()
    hooked.last.register_forward_hook(lambda layer, given, out: out.roll(1, 2))
    reaches = [probe_once(net, 3, 1).reach for net in [*nets, hooked]]
    assert len(measured) == 4
    assert len(set(reaches)) == 4
    assert probe_once(Net().eval(), 3, 1, told.append).reach == reaches[0]
    assert len(measured) == 4
    assert "measured before" in told[0].message


def test_code_that_reads_weights_is_measured_with_its_own() -> None:
    class Reads(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            wide = bool(self.wide.weight.abs().sum() > 0)
            return super().forward(nn.functional.avg_pool2d(x, 9, 1, 4) if wide else x)

    net = Reads().eval()
    before = probe_once(net, 3, 1).reach
    nn.init.normal_(net.wide.weight)
    after = probe_once(net, 3, 1).reach
    assert before is not None
    assert after is not None
    assert after.top > before.top + 3


def test_damaged_weights_and_what_is_written_in_c_have_no_architecture() -> None:
    net = Net().eval()
    assert architecture_of(net) == architecture_of(Net().eval())
    with torch.no_grad():
        net.first.weight[0] = torch.nan
    assert architecture_of(net) is None
    held = Net().eval()
    held.lock = threading.Lock()  # type: ignore[assignment]
    assert architecture_of(held) is None
