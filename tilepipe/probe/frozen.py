"""Whether the global operations of a model can run on given statistics, tried out on one window."""

from __future__ import annotations

import copy
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import nn

from tilepipe.box import Box
from tilepipe.errors import ModelError
from tilepipe.field import windows_of
from tilepipe.models.statistics import Frozen, Nodes, Recorder, operation
from tilepipe.probe.cache import cache_key
from tilepipe.probe.result import Probe
from tilepipe.probe.watch import Located

WINDOW = 128
"""Pixels of the window, or more where the stride asks for it."""
TOLERANCE = 1e-3
"""Of the outputs' spread: what a window's own statistics, put back in, may change."""
_SEEN: WeakKeyDictionary[nn.Module, tuple[str, tuple[int, ...] | str]] = WeakKeyDictionary()


class _Names(Located):
    """Notes the layers whose operations `models.statistics` knows."""

    def __init__(self, modules: tuple[nn.Module, ...]) -> None:
        super().__init__(modules)
        self.layers: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if operation(func, args, kwargs or {}) is not None:
            self.layers.add(self.key(func)[0])
        return func(*args, **(kwargs or {}))


def operations(module: nn.Module, bands: int, found: Probe) -> tuple[int, ...]:
    """Return the statistics that each global operation of a probed model has per tile, in order of call.

    The model is run on a window, and again with the window's own statistics put in: the answer must be the same.
    Raises `ModelError` with the reason where its operations cannot all be replaced.
    """
    key = cache_key(module, bands, found.stride)
    known = _SEEN.get(module)
    if known is None or known[0] != key:
        known = _SEEN[module] = key, _tried(module, bands, found)
    if isinstance(known[1], str):
        raise ModelError(known[1])
    return known[1]


def _tried(module: nn.Module, bands: int, found: Probe) -> tuple[int, ...] | str:
    if found.frozen_reach is None or found.stride is None:
        return "its reach is not bounded with the statistics of these layers held fixed"
    side = -(-WINDOW // found.stride) * found.stride
    net = copy.deepcopy(module).to("cpu", torch.float32)
    x = torch.randn(1, bands, side, side, generator=torch.Generator().manual_seed(0))
    names, recorder = _Names((net,)), Recorder()
    try:
        with torch.no_grad():
            with names, recorder:
                live = net(x)
            missing = {layer for layer, _ in found.global_layers} - names.layers
            if missing:
                return f"the operation in layer '{min(missing)}' has no statistics that could be held fixed"
            values = np.append(recorder.values()[0], np.float32(1))[None, None]
            box, windows = Box.of_shape(side, side), windows_of((side, side), side, found.stride)
            with Frozen([Nodes(box, windows, Box.of_shape(1, 1), values)]):
                frozen = net(x)
            same = frozen.shape == live.shape and float((frozen - live).abs().max()) <= TOLERANCE * float(live.std())
    except Exception as problem:  # whatever a stranger's module raises where a vector has become a map
        return f"it does not take statistics per pixel ({type(problem).__name__})"
    return tuple(part.shape[1] for part in recorder.found) if same else "it gives another answer with them put in"
