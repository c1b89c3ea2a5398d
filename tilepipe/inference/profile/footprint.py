"""Footprint: finds the bytes that a network needs from shapes alone, on torch's meta device."""

from __future__ import annotations

import copy
import weakref
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tilepipe.box import Box
from tilepipe.inference.statistics.capture import FixedStatistics, Nodes
from tilepipe.models.facts import Facts
from tilepipe.models.identity import model_identity
from tilepipe.models.model import Model
from tilepipe.models.unchanged import while_unchanged
from tilepipe.text import JSON
from tilepipe.tiling.statistics_grid import patches_of

UNKNOWN_CHANNELS = 64
"""Number of channels at full resolution that is assumed if a network cannot be run on shapes alone."""
COPIES = 2.5
"""Factor on memory for the reordered copies of input and output that kernels keep (measured with oneDNN on a CPU)."""
KERNEL = 9
"""Number of values of a kernel that is assumed if convolutions cannot be seen."""
_CONVOLUTIONS = {torch.ops.aten.convolution, torch.ops.aten.conv2d, torch.ops.aten.conv_transpose2d}

_NORMS = {torch.ops.aten.batch_norm, torch.ops.aten.group_norm, torch.ops.aten.instance_norm}
"""Operations whose output is as large as their input."""


class LiveBytes(TorchDispatchMode):
    """Adds up the storages that are alive, and keeps the peak."""

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self)
        self.live = 0
        self.peak = 0
        self.columns = 0
        """Largest size of the input that one convolution unfolds [bytes], if kernels unfold it."""
        self._known: set[int] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False: nothing is compiled here, and hiding this mode from torch's compiler imports it, in 2 s."""
        return False

    def __torch_dispatch__(
        self, func: OpOverload, types: object, args: tuple[Any, ...] = (), kwargs: JSON | None = None
    ) -> object:
        result = _known_shape(func.overloadpacket, args)
        result = func(*args, **(kwargs or {})) if result is None else result
        if func.overloadpacket in _CONVOLUTIONS:
            # Kernels make columns on their own, below what torch shows to a mode, so they are computed from the shapes.
            self.columns = max(self.columns, _unfolded(args[0], args[1], result))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._track(leaf.untyped_storage())
        return result

    def _track(self, storage: torch.UntypedStorage) -> None:
        # Views share one storage, and its address tells that it is counted already.
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.live += size
            self.peak = max(self.peak, self.live)
            # torch does not tell when it frees a storage, but the end of the last reference does.
            weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


def _known_shape(operation: object, args: tuple[Any, ...]) -> torch.Tensor | None:
    """Return the output of a norm, of a concatenation or of a sum of two; None for any other operation.

    On shapes alone torch takes these apart in Python, with functions of its compiler, whose import takes 2 s.
    """
    if operation in _NORMS:
        return torch.empty_like(args[0])
    if operation is torch.ops.aten.cat and len({(part.ndim, part.dtype) for part in args[0]}) == 1:
        axis, shape = args[1] if len(args) > 1 else 0, list(args[0][0].shape)
        shape[axis] = sum(part.shape[axis] for part in args[0])
        return torch.empty(shape, dtype=args[0][0].dtype, device=args[0][0].device)
    if operation is torch.ops.aten.add and all(isinstance(part, torch.Tensor) for part in args[:2]):
        one, other = args[:2]
        return torch.empty_like(one) if (one.shape, one.dtype) == (other.shape, other.dtype) else None
    return None


def footprint(model: Model, tile: int = 256, values: int = 0, dtype: str = "float32") -> tuple[int, int]:
    """Return (bytes of the weights, peak bytes of a forward pass per input pixel, with the kernels' copies).

    `values` is how many statistics of global operations are put in, which makes maps of pooled vectors; 0 for none.
    `dtype` is 'float32', or 'float64' for a model in fp64: its weights are a copy, and on a CPU its convolutions unfold
    their input.
    """
    asked = ("footprint", model.card.bands, model.card.stride, len(model.card.classes), tile, values, dtype)
    return while_unchanged(model.module, asked, lambda: _footprint(model, tile, values, dtype))


def _footprint(model: Model, tile: int, values: int, dtype: str) -> tuple[int, int]:
    number: torch.dtype = getattr(torch, dtype)
    # oneDNN has no convolution in double precision, so torch falls back to its own, which unfolds the input.
    wide = number == torch.float64
    weights = sum(t.nbytes for t in model.module.state_dict().values()) * (2 if wide else 1)
    size = -(-tile // model.card.stride) * model.card.stride
    try:
        # `to` changes a module in place, and on the meta device it drops the weights.
        network = copy.deepcopy(model.module).to("meta", number)
        with torch.inference_mode(), LiveBytes() as meter, _statistics(size, values, dtype):
            network(torch.empty(1, model.card.bands, size, size, device="meta", dtype=number))
        peak, columns = meter.peak / size**2, meter.columns / size**2 if wide else 0.0
    except Exception:  # whatever a foreign module does on shapes alone
        peak = float(number.itemsize) * (UNKNOWN_CHANNELS + model.card.bands + len(model.card.classes))
        columns = KERNEL * number.itemsize * UNKNOWN_CHANNELS if wide else 0.0
    return weights, int(peak * COPIES + columns) + 1


def _unfolded(x: torch.Tensor, weight: torch.Tensor, y: torch.Tensor) -> int:
    """Return the bytes of the columns that a convolution without oneDNN makes: what a kernel holds, at every place.

    Places are the pixels of the output, and of the input where a convolution is transposed.
    """
    places = min(x.shape[2:].numel(), y.shape[2:].numel())
    # The columns of a 1 x 1 kernel are the input itself.
    return 0 if weight.shape[2:].numel() == 1 else weight[0].numel() * len(x) * places * x.element_size()


def _statistics(size: int, values: int, dtype: str) -> AbstractContextManager[object]:
    """Return the context that puts statistics in a pass over one tile; it does nothing if there are no statistics."""
    if not values:
        return nullcontext()
    box, patches = Box.of_shape(size, size), patches_of((size, size), size, 1)
    return FixedStatistics([Nodes(box, patches, Box.of_shape(1, 1), np.ones((1, 1, values + 1), dtype))])


def facts_of(model: Model) -> Facts | None:
    """Return the facts for facts.json of a model that was read; None if its content is not fully known."""
    from tilepipe.models.contents import Contents, network_sha256

    if not Contents(model.module).known:
        return None
    weights, peak = footprint(model)
    return Facts(network_sha256(model.module), model.sha256(), model_identity(model, "cpu", "fp32"), weights, peak)
