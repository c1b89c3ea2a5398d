"""What is kept of a network goes with its state: any change makes it anew, and nothing keeps a dead network."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from tilepipe.models.prepared import prepared
from tilepipe.models.unchanged import fingerprint, while_unchanged

CPU = torch.device("cpu")


class Own(nn.Module):
    """A class of a caller's, with a list and a number in it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.factor, self.steps = nn.Conv2d(3, 2, 3), 2.0, [1, 2]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layer(x) * self.factor
        return found


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Conv2d(4, 2, 3)), Own()).eval()


def change_in_place(module: Any) -> None:
    with torch.no_grad():
        module[2][0].weight.mul_(2)


def replace_weight(module: Any) -> None:
    module[0].weight = nn.Parameter(module[0].weight.detach().clone())


def step(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    torch.optim.SGD(module.parameters(), lr=0.1).step()


CHANGES: dict[str, Callable[[Any], object]] = {
    "weights in place": change_in_place,
    "another parameter": replace_weight,
    "a buffer": lambda module: module[1].running_mean.add_(1),
    "a setting": lambda module: setattr(module[0], "dilation", (2, 2)),
    "a number of an own class": lambda module: setattr(module[3], "factor", 3.0),
    "a list of an own class": lambda module: module[3].steps.append(3),
    "a hook": lambda module: module[0].register_forward_hook(lambda *_: None),
    "a layer more": lambda module: module.append(nn.ReLU()),
    "a layer in place of another": lambda module: module[2].__setitem__(0, nn.Conv2d(4, 2, 3)),
    "training mode": lambda module: module.train(),
    "weights loaded": lambda module: module.load_state_dict(net().state_dict()),
    "an optimizer's step": step,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_is_seen(change: Callable[[Any], object]) -> None:
    module, found = net(), iter(range(9))
    assert [while_unchanged(module, "key", lambda: next(found)) for _ in range(3)] == [0, 0, 0]
    assert fingerprint(module).fits(fingerprint(module))
    change(module)
    assert [while_unchanged(module, "key", lambda: next(found)) for _ in range(3)] == [1, 1, 1]


def test_a_value_that_lies_where_another_one_has_lain_is_seen() -> None:
    module: Any = net()
    seen = [
        while_unchanged(module, "key", lambda: (module[0].dilation, module[3].factor, module[0].weight.sum().item()))
    ]
    for k in range(200):
        # What was looked at is replaced twice, so that its place in memory is free when the second value is made.
        for n in (1000 * k, 1000 * k + 1):
            module[0].dilation, module[3].factor = (n, n + 1), n / 7
            module[0].weight = nn.Parameter(torch.full((4, 3, 3, 3), float(n)))
        seen.append(while_unchanged(module, "key", lambda: module[3].factor))
        assert seen[-1] == module[3].factor


def test_nothing_keeps_a_network_that_is_gone() -> None:
    module = net()
    for precision in ("fp32", "fp64"):
        prepared(module, CPU, precision)
    while_unchanged(module, "key", lambda: 1)
    gone = weakref.ref(module)
    del module
    gc.collect()
    assert gone() is None


def test_a_network_is_prepared_once_for_a_precision() -> None:
    module = net().train()
    assert prepared(module, CPU, "fp32") is module
    assert not module.training
    wide = prepared(module, CPU, "fp64")
    assert prepared(module, CPU, "fp64") is wide
    assert (wide[0].weight.dtype, module[0].weight.dtype) == (torch.float64, torch.float32)  # type: ignore[index]
    change_in_place(module)
    again = prepared(module, CPU, "fp64")
    assert again is not wide
    assert torch.equal(again[2][0].weight.float(), module[2][0].weight)  # type: ignore[index]
    module.train()
    prepared(module, CPU, "fp32")
    assert not any(layer.training for layer in module.modules())
