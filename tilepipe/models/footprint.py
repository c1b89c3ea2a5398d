"""Footprint: bytes that a network needs, found without computing anything (shapes only, on torch's meta device)."""

from __future__ import annotations

import copy
import weakref
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tilepipe.box import Box
from tilepipe.field import windows_of
from tilepipe.models.model import Model
from tilepipe.models.statistics import Frozen, Nodes

UNKNOWN_CHANNELS = 64
"""Channels at full resolution that are assumed where a network cannot be run on shapes alone."""
COPIES = 2.5
"""Kernels keep reordered copies of their input and output while they work (measured with oneDNN on a CPU)."""


class _LiveBytes(TorchDispatchMode):
    """Adds up the storages that are alive, and keeps the peak."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._track(leaf.untyped_storage())
        return result

    def _track(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.live += size
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


def footprint(model: Model, tile: int = 256, values: int = 0) -> tuple[int, int]:
    """Return (bytes of the weights, peak bytes of a forward pass per input pixel, with the kernels' copies).

    `values` is how many statistics of global operations are put in, which makes maps of pooled vectors; 0 for none.
    """
    weights = sum(t.nbytes for t in model.module.state_dict().values())
    size = -(-tile // model.card.stride) * model.card.stride
    try:
        network = copy.deepcopy(model.module).to("meta")
        with torch.inference_mode(), _LiveBytes() as meter, _statistics(size, values):
            network(torch.empty(1, model.card.bands, size, size, device="meta"))
        peak = meter.peak / size**2
    except Exception:  # whatever a foreign module does on shapes alone
        peak = 4.0 * (UNKNOWN_CHANNELS + model.card.bands + len(model.card.classes))
    return weights, int(peak * COPIES) + 1


def _statistics(size: int, values: int) -> AbstractContextManager[Any]:
    """Return what puts statistics in a pass over one tile; nothing where there are none."""
    if not values:
        return nullcontext()
    box, windows = Box.of_shape(size, size), windows_of((size, size), size, 1)
    return Frozen([Nodes(box, windows, Box.of_shape(1, 1), np.ones((1, 1, values + 1), np.float32))])
