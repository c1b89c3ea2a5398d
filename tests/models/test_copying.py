"""`from_torch` leaves the caller's module as it is, and what the caller does later leaves the model as it is."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import tilepipe as tp
from tilepipe.errors import ModelError
from tilepipe.models.copying import own_copy

CARD = tp.ModelCard(bands=2, classes=["a", "b"])
X = torch.rand(1, 2, 8, 8, generator=torch.Generator().manual_seed(0))


def state(module: nn.Module) -> list[Any]:
    """All that may have changed of a module: values and types, modes, gradients, names of attributes."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return [
        *((name, t.dtype, t.device, t.requires_grad, id(t), t.grad is None, t.sum().item()) for name, t in tensors),
        *((name, layer.training, sorted(vars(layer))) for name, layer in module.named_modules()),
    ]


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.norm = nn.BatchNorm2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


def plain() -> Small:
    torch.manual_seed(0)
    return Small()


def closing_over_a_method() -> nn.Module:
    net = plain()
    inner = net.forward
    net.forward = lambda x: inner(x) * 2  # type: ignore[method-assign]
    return net


def closing_over_layers() -> nn.Module:
    net = plain()
    layers = {"first": [net.conv], "then": net.norm}
    net.forward = lambda x: layers["then"](layers["first"][0](x)) * 2  # type: ignore[method-assign,operator,index]
    return net


def reading_a_global() -> nn.Module:
    names: dict[str, Any] = {"net": plain()}
    exec("net.forward = lambda x: net.norm(net.conv(x)) * 2", names)
    net: nn.Module = names["net"]
    return net


def by_default() -> nn.Module:
    net = plain()

    def forward(x: Tensor, own: nn.Module = net.norm, *, first: nn.Module = net.conv) -> Tensor:
        return own(first(x)) * 2

    net.forward = forward  # type: ignore[method-assign]
    return net


def hooked() -> nn.Module:
    net = plain()
    net.conv.register_forward_hook(lambda module, inputs, output: output + net.conv.bias.sum())
    return net


def with_a_lock() -> nn.Module:
    net = plain()
    net.session = {"lock": threading.Lock(), "scale": [1.0]}  # type: ignore[assignment]
    return net


def parametrized() -> nn.Module:
    net = plain()
    parametrize.register_parametrization(net.conv, "weight", nn.Identity())
    return net


def with_a_result() -> nn.Module:
    net = plain()
    net.table = net.conv.weight * 2  # type: ignore[assignment]
    return net


KINDS: list[Callable[[], nn.Module]] = [
    plain, closing_over_a_method, closing_over_layers, reading_a_global, by_default, hooked, with_a_lock,
    parametrized, with_a_result,
]  # fmt: skip


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_the_callers_module_stays_as_it_is_and_the_model_too(make: Callable[[], nn.Module]) -> None:
    net = make()
    net.norm.eval()  # type: ignore[operator,union-attr]
    with torch.no_grad():
        wanted = net(X)
    net.double().train()
    net.conv.bias.requires_grad_(False)  # type: ignore[operator,union-attr]
    before = state(net)
    model = tp.Model.from_torch(net, CARD)
    assert state(net) == before
    assert not any(layer.training for layer in model.module.modules())
    with torch.no_grad():
        assert torch.allclose(model.module(X), wanted, atol=1e-6)
        for tensor in (*net.parameters(), *net.buffers()):
            tensor.mul_(0)
        assert torch.allclose(model.module(X), wanted, atol=1e-6), "the caller's weights changed, not the model's"
    assert state(net)[0][-1] == 0


def test_a_list_of_the_caller_is_not_the_models() -> None:
    net = plain()
    net.levels = [1.0]  # type: ignore[assignment]
    model = tp.Model.from_torch(net, CARD)
    net.levels.append(2.0)  # type: ignore[operator,union-attr]
    assert model.module.levels == [1.0]


def test_what_cannot_be_copied_is_shared_and_the_rest_is_not() -> None:
    net = with_a_lock()
    mine = own_copy(net)
    theirs, ours = vars(net)["session"], vars(mine)["session"]
    assert ours["lock"] is theirs["lock"]
    assert ours["scale"] is not theirs["scale"]


def test_tied_weights_stay_tied_and_frozen_ones_frozen() -> None:
    net = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1))
    net[1].weight = net[0].weight
    net[1].bias.requires_grad_(False)  # type: ignore[union-attr]
    mine: Any = own_copy(net)
    assert mine[0].weight is mine[1].weight
    assert mine[0].weight is not net[0].weight
    assert (mine[0].bias.requires_grad, mine[1].bias.requires_grad) == (True, False)


def test_parameters_without_values_are_refused() -> None:
    with torch.device("meta"):
        net = plain()
    for module in (net, nn.LazyConv2d(2, 1)):
        with pytest.raises(ModelError, match="has no values yet; load its weights first"):
            tp.Model.from_torch(module, CARD)


class Stubborn(nn.Module):
    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("not me")


def test_a_module_that_refuses_to_be_copied_is_named() -> None:
    with pytest.raises(ModelError, match=r"a Stubborn cannot be copied .*not me.*__deepcopy__"):
        tp.Model.from_torch(Stubborn(), CARD)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize("made", [torch.jit.script, torch.fx.symbolic_trace])
def test_scripted_and_traced_modules_are_copied(made: Callable[[nn.Module], nn.Module]) -> None:
    net = made(plain().eval())
    with torch.no_grad():
        assert torch.equal(tp.Model.from_torch(net, CARD).module(X), net(X))
