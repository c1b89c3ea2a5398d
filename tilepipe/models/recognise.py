"""Recognise: one made-up tile shows whether a network returns logits, probabilities or labels, and in which tensor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tilepipe.errors import ModelError
from tilepipe.models.calling_convention import CallingConvention
from tilepipe.models.card import ModelCard, Output
from tilepipe.models.output import Scores, misfit, tensor_of, wrapped
from tilepipe.models.torch_calls import Call, Calls

SIDE = 96
"""Least side in pixels of the tile that a network is tried on; 2^5 x 3, which most strides divide."""
LARGEST = 1 << 26
"""Largest number of values of a made-up tile; no larger tile is tried."""
_ENDS = ("sigmoid", "softmax", "hardsigmoid", "expit")
_PASS_ON = (
    *("clamp", "clamp_min", "clamp_max", "clip", "to", "float", "double", "half", "contiguous", "detach", "clone"),
    *("permute", "transpose", "movedim", "view", "reshape", "squeeze", "unsqueeze", "getitem", "interpolate"),
)


@dataclass(frozen=True)
class Form:
    """How to read what a network returns."""

    output: Output
    """Kind of values in the tensor."""
    key: str | int | None
    """Place of the tensor in a dict, tuple or object; if None, the tensor is found by name or shape."""
    plain: bool
    """Whether the network returns logits (B, classes, H, W) and nothing else."""


def readable(module: nn.Module, card: ModelCard, name: str) -> tuple[nn.Module, Output]:
    """Return a module that returns logits, and the kind of output that the given module has.

    The module is called once on a made-up tile; it stays as it is if it does not take the tile. Messages call it
    `name`. Raises `ModelError` if its output cannot be read.
    """
    form, convention = recognise(module, card, name), CallingConvention.of(card)
    if form is None and (card.output is not None or card.key is not None):
        form = Form(card.output or "logits", card.key, plain=False)
    if form is None or form.plain:
        return wrapped(module, card), "logits"
    return Scores(module, len(card.classes), form.output, form.key, convention), form.output


def recognise(
    forward: Callable[[Tensor], object],
    card: ModelCard,
    name: str,
    *,
    told: bool = False,
    convention: CallingConvention | None = None,
) -> Form | None:
    """Return how to read a network's output, by one made-up tile; None if the network takes no such tile.

    `told` means that the file says the network ends in a sigmoid or softmax. `convention` replaces that of the card.
    The card's `output` and `key` are believed.
    Raises `ModelError` for values that cannot be read, and for probabilities that are not from 0 to 1.
    """
    classes, convention = len(card.classes), convention or CallingConvention.of(card)
    for x in _tiles(card):
        ends = _Ends()
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]), ends:
                returned = convention.call(forward, x)
        except Exception:  # an unknown module may raise anything; it may need tiles of another size
            continue
        y = tensor_of(returned, x, classes, card.key, name)
        told = told or ends.seen(y) or (y is returned and _script_ends(forward))
        output = _judged(y, classes, told, card.output, name)
        plain = y is returned and output == "logits" and y.is_floating_point() and y.ndim == 4 and y.shape[1] == classes
        # An output of a wrong shape is left as it is: the first tile of a run refuses it with both shapes.
        return Form(output, card.key, plain or misfit(tuple(y.shape), tuple(x.shape), classes, output) != "")
    return None


class _Ends(Calls):
    """Notes the tensors that are the result of a sigmoid or softmax, also if they are then moved, cut or resized."""

    def __init__(self) -> None:
        super().__init__()
        self._found: dict[int, Tensor] = {}

    def made(self, call: Call) -> object:
        """Make the call and note its result."""
        out = call()
        if isinstance(out, Tensor):
            word = call.name.split(".")[0].strip("_").removeprefix("special_")
            if word in _ENDS or (word in _PASS_ON and call.arguments and id(call.arguments[0]) in self._found):
                self._found[id(out)] = out  # the tensor is kept alive, so that no other tensor gets its id
        return out

    def seen(self, y: Tensor) -> bool:
        """Return whether `y` is a noted tensor."""
        return id(y) in self._found


def _script_ends(forward: Callable[[Tensor], object]) -> bool:
    """Return whether the last operation of a TorchScript network is a sigmoid or softmax."""
    script = getattr(forward, "script", forward)
    if not isinstance(script, torch.jit.ScriptModule):
        return False
    graph = script.inlined_graph  # the variable keeps the graph alive: its values would be freed with it
    value = next(iter(graph.outputs()))
    while (word := value.node().kind().removeprefix("aten::").strip("_")) in _PASS_ON:
        value = next(iter(value.node().inputs()))
    return word in _ENDS


def _judged(y: Tensor, classes: int, told: bool, said: Output | None, name: str) -> Output:
    """Return the kind of values in a tensor: from the card, the tensor's type, or its values on a made-up tile."""
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


def _tiles(card: ModelCard) -> list[Tensor]:
    """Return normalised tiles (1, bands, side, side) float32 that a network is tried on, one after the other.

    If the card scales nothing, half of each tile has the values of 8-bit pixels.
    """
    found = []
    for least in dict.fromkeys((SIDE, card.tile or SIDE)):
        side = -(-least // card.stride) * card.stride
        if side * side * card.bands > LARGEST:
            continue
        x = torch.randn((1, card.bands, side, side), generator=torch.Generator().manual_seed(0))
        # Without a mean the card does not tell whether the network takes small numbers or the values of pixels, so it
        # gets both.
        if not card.mean:
            x[..., side // 2 :] = 127 + 60 * x[..., side // 2 :]
        found.append(x)
    return found
