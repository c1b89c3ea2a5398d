"""Global layers are found by watching every torch function of a forward pass while part of the input is NaN.

An operation that turns partly NaN into all NaN in an input wide enough mixes the whole image. Hooks tell the layer that
the operation runs in. So functional code is found like modules are, and no list of global classes is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from tilepipe.models.probe.subject import Subject
from tilepipe.models.torch_calls import Call, Calls

NORMS = {"instance_norm": "instance norm", "group_norm": "group norm", "layer_norm": "layer norm over space"}
POOLS = (
    *("adaptive_avg_pool2d", "adaptive_max_pool2d", "avg_pool2d", "max_pool2d", "mean", "sum", "amax", "max"),
    *("var", "std", "norm", "linalg_vector_norm", "var_mean", "std_mean"),
)
ATTENTION = ("softmax", "scaled_dot_product_attention", "multi_head_attention_forward", "matmul", "bmm", "einsum")
KINDS = NORMS | dict.fromkeys(POOLS, "image pooling") | dict.fromkeys(ATTENTION, "attention")
FREEZABLE = {*NORMS.values(), "image pooling", "squeeze-excite"}
"""Kinds of operations that use only a few numbers per channel of a tile."""
SPATIAL = {"conv2d", "conv_transpose2d", "max_pool2d", "avg_pool2d"}
_CHEAP = {"__get__", "size", "dim", "is_contiguous", "_set_grad_enabled", "is_floating_point"}
Key = tuple[str, str]
Seen = tuple[torch.Size, int, int]  # shape, NaN elements, elements of one input


@dataclass
class Findings:
    """Findings of one or more watched passes; keys are (layer, torch function)."""

    global_ops: dict[Key, str] = field(default_factory=dict)
    """Kind of each operation that is global for certain."""
    wide_ops: dict[Key, str] = field(default_factory=dict)
    """Operations that covered the watched input but may be local in a wider one."""
    unsteady: dict[Key, str] = field(default_factory=dict)
    """Batch norm and dropout that are in training mode."""
    swallowed: dict[Key, str] = field(default_factory=dict)
    """Operations that replace NaN by numbers."""

    @property
    def freezable(self) -> bool:
        """Whether every global operation is a normalisation or a pooling to one value per channel."""
        return bool(self.global_ops) and set(self.global_ops.values()) <= FREEZABLE


class Located(Calls):
    """A function mode that knows which named layer of `modules` is running."""

    def __init__(self, modules: tuple[nn.Module, ...]) -> None:
        super().__init__()
        self._modules = modules
        self._path = [""]
        self._hooks: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        for name, layer in (pair for module in self._modules for pair in module.named_modules()):
            self._hooks.append(layer.register_forward_pre_hook(lambda *_, name=name: self._path.append(name)))
            # Also if a layer raises: else its name would stay on the path.
            self._hooks.append(layer.register_forward_hook(self._leave, always_call=True))
        TorchFunctionMode.__enter__(self)
        return self

    def __exit__(self, *problem: object) -> None:
        while self._hooks:
            self._hooks.pop().remove()
        TorchFunctionMode.__exit__(self, *problem)

    def _leave(self, *_: object) -> None:
        self._path.pop()

    def key(self, call: Call) -> Key:
        """Return (layer, function name) of the call at hand."""
        # `relu_` and `__add__` are judged like `relu` and `add`.
        return self._path[-1], call.name.strip("_")


class Watch(Located):
    """Fills `findings` during a forward pass whose input is NaN in less than half of its columns or rows."""

    def __init__(self, modules: tuple[nn.Module, ...]) -> None:
        super().__init__(modules)
        self.findings = Findings()
        self.side = 3, False
        """Axis along which part of the input is NaN, and whether the NaN part is at the far end."""
        self._pooled: Key | None = None

    def made(self, call: Call) -> object:
        """Make the call and judge it by its arguments and by the NaN in its inputs and output."""
        # These only look at a tensor; counting NaN around each of them would take longer than they do.
        if call.name in _CHEAP:
            return call()
        key = self.key(call)
        self._judge_arguments(key, call)
        given = (*call.arguments, *call.keywords.values())
        inputs = [(t.shape, _nan_count(t), t.numel()) for t in _floats(given)]
        if not any(count for _, count, _ in inputs):
            return call()
        if self._pooled and _mixed(inputs):
            if key[1] in ("mul", "imul"):
                self.findings.global_ops[self._pooled] = "squeeze-excite"
            keywords = {name: _without_pooled(value) for name, value in call.keywords.items()}
            call = replace(call, arguments=tuple(map(_without_pooled, call.arguments)), keywords=keywords)
        # A clone, since a layer after the norm may change what it gets in place.
        before = call.arguments[0].clone() if key[1] in NORMS else None
        out = call()
        kind = self._judge_spread(key, inputs, out)
        if kind in NORMS.values():  # the stand-in keeps the halves apart, so that later layers can be judged too
            return before
        if key[1] in SPATIAL and torch.is_tensor(out):
            return self._narrowed(out)
        return out.nan_to_num() if kind == "attention" and torch.is_tensor(out) else out

    def _narrowed(self, y: Tensor) -> Tensor:
        """Return `y` with NaN in a quarter of its lines only: a deep local network must not look global at its end."""
        axis, far = self.side
        if not 0.4 * y.numel() < _nan_count(y) < y.numel():
            return y
        band = max(1, y.shape[axis] // 4)
        y = y.nan_to_num()
        y.narrow(axis, y.shape[axis] - band if far else 0, band).fill_(torch.nan)
        return y

    def _judge_arguments(self, key: Key, call: Call) -> None:
        name = key[1]
        if name == "batch_norm" and call.argument(5, "training"):
            self.findings.unsteady[key] = "batch norm in training mode"
        elif "dropout" in name and call.argument(2, "training", True) and call.argument(1, "p", 0.5):
            self.findings.unsteady[key] = "dropout left on"
        elif name == "interpolate" and call.argument(4, "align_corners"):
            self.findings.global_ops[key] = "align_corners=True"
        elif name == "pad" and call.argument(2, "mode") == "circular":
            self.findings.global_ops[key] = "circular padding"
        elif name in ("adaptive_avg_pool2d", "adaptive_max_pool2d"):
            size = call.argument(1, "output_size")
            if size not in (1, (1, 1), [1, 1]):
                self.findings.global_ops[key] = "adaptive pooling"

    def _judge_spread(self, key: Key, inputs: list[Seen], out: object) -> str:
        """Return the kind of the operation at hand if it is global for certain, else ''."""
        tainted = [seen for seen in inputs if seen[1]]
        part = all(count < 0.6 * size for _, count, size in tainted)
        kind = ""
        for y in _floats((out,)):
            count = _nan_count(y)
            if part and count == y.numel():
                kind = self._spread(key, y.numel() < max(size for _, _, size in tainted))
            elif len(tainted) == 1 and tainted[0][0] == y.shape and count < tainted[0][1]:
                self.findings.swallowed[key] = f"{key[1]} replaces NaN"
        return kind

    def _spread(self, key: Key, shrinks: bool) -> str:
        kind = KINDS.get(key[1], "")
        if not kind or (kind == "image pooling" and not shrinks):
            self.findings.wide_ops.setdefault(key, f"{key[1]} over the whole input")
            return ""
        self._pooled = key if kind == "image pooling" else self._pooled
        return self.findings.global_ops.setdefault(key, kind)


class FixGlobals(Located):
    """Runs a model with local stand-ins: norms return their input, pooled values are 1, corners are not aligned."""

    def __init__(self, modules: tuple[nn.Module, ...], findings: Findings) -> None:
        super().__init__(modules)
        self._findings = findings

    def made(self, call: Call) -> object:
        """Make the call, or its stand-in if it is one of the global operations."""
        kind = self._findings.global_ops.get(self.key(call)) if call.name else None
        if kind in NORMS.values():
            return call.arguments[0].clone()
        if kind == "align_corners=True":
            return call.function(*call.arguments[:4], **{**call.keywords, "align_corners": False})
        if kind == "circular padding":
            return call.function(*call.arguments[:2])
        out = call()
        pooled = kind in ("image pooling", "squeeze-excite", "adaptive pooling") and torch.is_tensor(out)
        return torch.ones_like(out) if pooled else out


def watch(subject: Subject) -> Findings:
    """Watch four passes, each with NaN in the quarter of the input at one side, and return the findings."""
    mode = Watch(subject.modules)
    watched = subject.under(lambda: mode)
    short, long = subject.quantum, 4 * subject.quantum
    for rows, columns in ((short, long), (long, short)):
        x = subject.noise(rows, columns)
        for far in (False, True):
            tainted = x.clone()
            axis = 3 if columns == long else 2
            mode.side = axis, far
            tainted.narrow(axis, long - short if far else 0, short).fill_(torch.nan)
            watched(tainted)
    return mode.findings


def _mixed(inputs: list[Seen]) -> bool:
    """Return whether one input is all NaN and another partly NaN: a pooled value meets the features again."""
    return any(0 < count == size for _, count, size in inputs) and any(0 < count < size for _, count, size in inputs)


def _without_pooled(value: object) -> object:
    if isinstance(value, (tuple, list)):
        return type(value)(_without_pooled(v) for v in value)
    if torch.is_tensor(value) and value.is_floating_point() and value.isnan().all():
        return torch.ones_like(value)
    return value


def _nan_count(t: Tensor) -> int:
    return int(t.isnan().sum())


def _floats(values: Iterable[object]) -> Iterator[Tensor]:
    for value in values:
        if torch.is_tensor(value) and value.is_floating_point() and not isinstance(value, nn.Parameter):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _floats(value)
