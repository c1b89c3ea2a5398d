"""Trial: tests on one patch whether the global operations of a model can run on given statistics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tilepipe.box import Box, Sides
from tilepipe.errors import ModelError
from tilepipe.inference.statistics.capture import FixedStatistics, Nodes, Recorder
from tilepipe.inference.statistics.operations import operation
from tilepipe.models.probe.global_layers import FREEZABLE, Located
from tilepipe.models.probe.probe_cache import cache_key
from tilepipe.models.probe.result import Probe
from tilepipe.models.probe.stride_and_field import AXES
from tilepipe.models.probe.subject import Subject, adopt
from tilepipe.models.torch_calls import Call
from tilepipe.tiling.statistics_grid import patches_of

PATCH = 128
"""Side of the patch, or more if the stride needs it [pixels]."""
TOLERANCE = 1e-3
"""Largest change of outputs, as a fraction of their spread, if a patch's own statistics are put back in."""
_SEEN: dict[str, tuple[int, ...] | str] = {}


class _Names(Located):
    """A mode that notes the layers whose operations `capture` knows."""

    def __init__(self, modules: tuple[nn.Module, ...]) -> None:
        super().__init__(modules)
        self.layers: set[str] = set()

    def made(self, call: Call) -> object:
        if operation(call) is not None:
            self.layers.add(self.key(call)[0])
        return call()


def operations(module: nn.Module, bands: int, found: Probe) -> tuple[int, ...]:
    """Return the number of statistics that each global operation of a probed model has per tile, in order of call.

    The model is run on a patch, and again with the patch's own statistics put in. The output must be the same, and
    pixels beyond the reach must not change it. Raises `ModelError` with the reason if an operation cannot be replaced.
    """
    key = cache_key(module, bands, found.stride)
    known = _SEEN.get(key or "")
    if known is None:
        known = _tried(module, bands, found)
    if key is not None:
        _SEEN[key] = known
    if isinstance(known, str):
        raise ModelError(known)
    return known


def _tried(module: nn.Module, bands: int, found: Probe) -> tuple[int, ...] | str:
    other = [f"{kind} ({layer})" for layer, kind in found.global_layers if kind not in FREEZABLE]
    if other or found.frozen_reach is None or found.stride is None:
        return f"{other[0] if other else 'a layer without bounds'} has no statistics that could be held fixed"
    try:
        return _put_in(adopt(module, bands, found.stride), found, found.frozen_reach)
    except Exception as problem:  # a stranger's module may raise anything if a vector has become a map
        return f"it does not take statistics per pixel ({type(problem).__name__})"


def _put_in(subject: Subject, found: Probe, reach: Sides) -> tuple[int, ...] | str:
    side = -(-PATCH // subject.quantum) * subject.quantum
    x = subject.noise(side, side)
    names, recorder = _Names(subject.modules), Recorder()
    with names:
        live = subject.under(lambda: recorder)(x)
    # The probe finds every layer that mixes a tile; `capture` knows only some of the calls that do so.
    missing = {layer for layer, _ in found.global_layers} - names.layers
    if missing:
        return f"the operation in layer '{min(missing)}' has no statistics that could be held fixed"
    fixed = _Fixed(subject, np.append(recorder.values()[0], 1).astype(np.float32)[None, None])
    if float((fixed(x) - live).abs().max()) > TOLERANCE * float(live.std()):
        return "it gives another answer with them put in"
    if not _stays_local(fixed, reach):
        return "something beside the statistics mixes the whole of a tile too"
    return tuple(part.shape[1] for part in recorder.found)


@dataclass(frozen=True)
class _Fixed:
    """A model with the statistics of one patch put in everywhere."""

    subject: Subject
    values: NDArray[np.float32]
    """Statistics (1, 1, values of all operations + 1); see `Nodes`."""

    def __call__(self, x: Tensor) -> Tensor:
        side, box = max(x.shape[2:]), Box.of_shape(*x.shape[2:])
        nodes = Nodes(box, patches_of(box.shape, side, 1), Box.of_shape(1, 1), self.values)
        return self.subject.under(lambda: FixedStatistics([nodes]))(x)


def _stays_local(fixed: _Fixed, reach: Sides) -> bool:
    """Return whether pixels beyond the reach make no difference, on both axes.

    They make one if an operation without statistics is left, like a maximum beside the mean in one layer.
    """
    quantum = fixed.subject.quantum
    cut = (max(reach) // quantum + 1) * quantum
    for axis in AXES:
        x = fixed.subject.noise(*((quantum, cut + quantum) if axis == 3 else (cut + quantum, quantum)))
        changed = x.clone()
        far = changed.narrow(axis, cut, quantum)
        far *= 1e3  # for operations that swallow NaN
        far[:, :, ::2, ::2] = torch.nan
        near = (y.narrow(axis, 0, cut - max(reach)) for y in (fixed(x), fixed(changed)))
        if not torch.equal(*near):
            return False
    return True
