"""What a network returns, read as logits: which tensor of it, and whether that holds logits, probabilities or labels.

Networks of others return a dict, a tuple or an object, one channel for two classes, the result of a sigmoid or softmax,
or finished labels. Each is recognised on one made-up tile, or said by the card (`output`, `key`), or refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from tilepipe.errors import ModelError
from tilepipe.models.card import ModelCard, Output
from tilepipe.models.torch_calls import Call, Calls

NAMES = ("out", "logits")
"""What torchvision and transformers call the tensor that holds the scores."""
SIDE = 96
"""Pixels at least per side of the tile that a network is tried on; 2^5 x 3, which most strides divide."""
LARGEST = 1 << 26
"""Values of a made-up tile beyond which nothing is tried."""
SURE = 100.0
"""Logit of the class that a label names; the others have 0, so that a softmax gives exactly 1 and 0."""
_ENDS = ("sigmoid", "softmax", "hardsigmoid", "expit")
_PASS_ON = (
    *("clamp", "clamp_min", "clamp_max", "clip", "to", "float", "double", "half", "contiguous", "detach", "clone"),
    *("permute", "transpose", "movedim", "view", "reshape", "squeeze", "unsqueeze", "getitem", "interpolate"),
)


@dataclass(frozen=True)
class Form:
    """How to read what a network returns."""

    output: Output
    """What the tensor holds."""
    key: str | int | None
    """Where the tensor lies in a dict, tuple or object; None: it is found by name or shape."""
    plain: bool
    """Whether the network returns logits (B, classes, H, W) and nothing else."""


class Scores(nn.Module):
    """(B, bands, H, W) -> logits (B, classes, H, W), of a network that returns something else."""

    def __init__(self, network: nn.Module, classes: int, output: Output, key: str | int | None = None) -> None:
        """`output` and `key` are those of `Form`."""
        super().__init__()
        self.network = network
        self.classes = classes
        self.output = output
        self.key = key
        self.opaque = isinstance(network, torch.jit.ScriptModule) or bool(getattr(network, "opaque", False))

    @property
    def single(self) -> str:
        """What the network is where it computes in the precision that it is written in; else ''."""
        return str(getattr(self.network, "single", ""))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits. Raises `ModelError` for labels that the card does not name."""
        y = tensor_of(self.network(x), x, self.classes, self.key)
        return as_logits(y, self.classes, self.output)


def bare(module: nn.Module) -> nn.Module:
    """Return the network in a `Scores`, or the module itself."""
    return module.network if isinstance(module, Scores) else module


def readable(module: nn.Module, card: ModelCard, name: str) -> tuple[nn.Module, Output]:
    """Return the module as one that returns logits, and what it returned before.

    It is called once on a made-up tile, and left as it is where it does not take that. `name` is what messages call it.
    Raises `ModelError` where what it returns cannot be read.
    """
    form = recognise(module, card, name)
    if form is None and (card.output is not None or card.key is not None):
        form = Form(card.output or "logits", card.key, plain=False)
    if form is None or form.plain:
        return module, "logits"
    return Scores(module, len(card.classes), form.output, form.key), form.output


def recognise(forward: Callable[[Tensor], object], card: ModelCard, name: str, *, told: bool = False) -> Form | None:
    """Return how to read what a network returns, by one made-up tile; None where it takes none.

    `told`: its file says that it ends in a sigmoid or softmax. What the card says (`output`, `key`) is not judged.
    Raises `ModelError` for values that cannot be read, and for probabilities that are none.
    """
    classes = len(card.classes)
    for x in _tiles(card):
        ends = _Ends()
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]), ends:
                returned = forward(x)
        except Exception:  # whatever a stranger's module raises; it may need tiles of another size
            continue
        y = tensor_of(returned, x, classes, card.key, name)
        told = told or ends.seen(y) or (y is returned and _script_ends(forward))
        output = _judged(y, classes, told, card.output, name)
        plain = y is returned and output == "logits" and y.is_floating_point() and y.ndim == 4 and y.shape[1] == classes
        return Form(output, card.key, plain or misfit(tuple(y.shape), tuple(x.shape), classes, output) != "")
    return None


def tensor_of(
    returned: object, x: Tensor, classes: int, key: str | int | None = None, name: str = "the model"
) -> Tensor:
    """Return the tensor that holds the scores: the one under `key`, `out` or `logits`, or the only one of the shape.

    Raises `ModelError` naming what there is.
    """
    if isinstance(returned, Tensor) and key is None:
        return returned
    parts = _parts(returned)
    tensors = {part: value for part, value in parts.items() if isinstance(value, Tensor)}
    if key is not None and key in tensors:
        return tensors[key]
    fitting = [part for part, value in tensors.items() if _fits(value, x, classes)]
    named = [part for part in NAMES if part in tensors]
    if key is None and (named or len(fitting) == 1):
        return tensors[(named or fitting)[0]]
    listed = ", ".join(f"{part!r} {_kind(value)}" for part, value in list(parts.items())[:8]) or "nothing"
    asked = f"no tensor {key!r} in it" if key is not None else f"{len(fitting) or 'none'} with a score per class"
    raise ModelError(
        f"{name} returns a {type(returned).__name__} ({listed}), {asked}; name the tensor that holds the scores "
        f"(B, {classes}, H, W): key={(fitting or list(tensors) or ['out'])[0]!r} in tilepipe.Model.from_torch, or in "
        "model.json"
    )


def as_logits(y: Tensor, classes: int, output: Output = "logits") -> Tensor:
    """Return logits (B, classes, H, W) of logits, probabilities or labels, with one channel or more.

    A single channel for two classes is that of the second class: the first one's logit is 0 then. Probabilities become
    their logarithms, so that a softmax gives them back (scaled to a sum of 1 where that of independent sigmoids is
    another). Raises `ModelError` for labels that are no class.
    """
    if output == "labels":
        return _of_labels(y, classes)
    if y.ndim == 3:
        y = y.unsqueeze(1)
    single = y.shape[1] == 1 and classes == 2
    if output == "logits":
        y = y if y.is_floating_point() else y.float()
        return torch.cat((torch.zeros_like(y), y), 1) if single else y
    least = torch.finfo(torch.float32).tiny
    y = y if y.dtype == torch.float64 else y.float()
    y = torch.cat((1 - y, y), 1) if single else y
    return y.clamp_min(least).log()


def misfit(shape: tuple[int, ...], given: tuple[int, ...], classes: int, output: Output = "logits") -> str:
    """Return why an output of `shape` is no map of scores for an input (B, bands, H, W); '' where it is one."""
    size = given[2:]
    flat = shape == (given[0], *size)
    if flat and (output == "labels" or classes == 2):
        return ""
    if len(shape) != 4 or shape[0] != given[0]:
        return f"{shape} is no map of scores (batch, classes, height, width)"
    return _misfit(shape, size, 1 if output == "labels" else classes)


def _misfit(shape: tuple[int, ...], size: tuple[int, ...], classes: int) -> str:
    if shape[1:3] == size and shape[3] in (classes, 1) and shape[2:] != size:
        return "its classes are on the last axis (NHWC); end it with y.permute(0, 3, 1, 2)"
    if shape[2:] != size:
        return (
            f"its maps have {shape[2]} x {shape[3]} px for tiles of {size[0]} x {size[1]} px; end it with an "
            "up-sampling to the size of its input, and pad its convolutions"
        )
    if shape[1] != classes and (shape[1], classes) != (1, 2):
        return f"it gives {shape[1]} channels and the card names {classes} classes; name as many"
    return ""


class _Ends(Calls):
    """Notes which tensors are the result of a sigmoid or softmax, as they are or only moved, cut or resized."""

    def __init__(self) -> None:
        super().__init__()
        self._found: dict[int, Tensor] = {}

    def made(self, call: Call) -> object:
        """Make the call and note its result."""
        out = call()
        if isinstance(out, Tensor):
            word = call.name.split(".")[0].strip("_").removeprefix("special_")
            if word in _ENDS or (word in _PASS_ON and call.arguments and id(call.arguments[0]) in self._found):
                self._found[id(out)] = out  # kept alive, so that no other tensor gets its id
        return out

    def seen(self, y: Tensor) -> bool:
        """Return whether `y` is such a result."""
        return id(y) in self._found


def _script_ends(forward: Callable[[Tensor], object]) -> bool:
    """Return whether the last operation of a TorchScript network is a sigmoid or softmax."""
    script = getattr(forward, "script", forward)
    if not isinstance(script, torch.jit.ScriptModule):
        return False
    value = next(iter(script.inlined_graph.outputs()))
    while (word := value.node().kind().removeprefix("aten::").strip("_")) in _PASS_ON:
        value = next(iter(value.node().inputs()))
    return word in _ENDS


def _judged(y: Tensor, classes: int, told: bool, said: Output | None, name: str) -> Output:
    """Return what a tensor holds: as the card says, by its type, or by its values on a made-up tile."""
    if not y.is_floating_point():
        return said or ("labels" if y.ndim == 3 or y.shape[1] == 1 else "logits")
    low, high = float(y.min()), float(y.max())
    shares = low >= 0 and high <= 1
    if said == "probabilities" and not shares and torch.isfinite(y).all():
        raise ModelError(
            f"the card of {name} says that it gives probabilities, and its values go from {low:.3g} to {high:.3g}; "
            "write output: logits into the card, or end the network with a softmax"
        )
    if said is not None:
        return said
    if not shares:
        return "logits"
    channels = 1 if y.ndim == 3 else y.shape[1]
    varied = high - low > 1e-3
    whole = channels > 1 and float((y.sum(1) - 1).abs().max()) < 1e-3 and bool(varied)
    if not told and not whole and channels == 1 and classes == 2 and varied:
        raise ModelError(
            f"{name} gives one channel whose values go from {low:.3g} to {high:.3g}: say whether these are "
            "probabilities or logits of the second class, with output='probabilities' or output='logits' in "
            "tilepipe.Model.from_torch, or in model.json"
        )
    return "probabilities" if told or whole else "logits"


def _of_labels(y: Tensor, classes: int) -> Tensor:
    labels = (y[:, 0] if y.ndim == 4 else y).long()
    if not labels.is_meta and labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ModelError(
            f"the model gives labels from {int(labels.min())} to {int(labels.max())} and the card names {classes} "
            f"classes, 0 to {classes - 1}; name all of them in the card"
        )
    planes = [(labels == k).to(y.dtype if y.is_floating_point() else torch.float32) for k in range(classes)]
    return SURE * torch.stack(planes, 1)


def _parts(returned: object) -> dict[Any, object]:
    """Return what lies in a dict, tuple, named tuple, dataclass or object, by name or place."""
    if isinstance(returned, Mapping):
        return {key if isinstance(key, int) else str(key): value for key, value in returned.items()}
    if isinstance(returned, list | tuple):
        return dict(zip(getattr(returned, "_fields", range(len(returned))), returned, strict=True))
    if is_dataclass(returned) or isinstance(returned, SimpleNamespace) or hasattr(returned, "__dict__"):
        return dict(vars(returned))
    return {}


def _fits(value: Tensor, x: Tensor, classes: int) -> bool:
    output: Output = "logits" if value.is_floating_point() else "labels"
    return misfit(tuple(value.shape), tuple(x.shape), classes, output) == ""


def _kind(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def _tiles(card: ModelCard) -> list[Tensor]:
    """Return normalised tiles (1, bands, side, side) float32 that a network is tried on, one after the other.

    Where the card scales nothing, half of each has the values of 8-bit pixels.
    """
    found = []
    for least in dict.fromkeys((SIDE, card.tile or SIDE)):
        side = -(-least // card.stride) * card.stride
        if side * side * card.bands > LARGEST:
            continue
        x = torch.randn((1, card.bands, side, side), generator=torch.Generator().manual_seed(0))
        if not card.mean:
            x[..., side // 2 :] = 127 + 60 * x[..., side // 2 :]
        found.append(x)
    return found
