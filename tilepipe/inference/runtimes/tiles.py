"""This module brings a model to a runtime, for whole tiles of one shape."""

from __future__ import annotations

import math

import torch

from tilepipe.inference.device import Compute
from tilepipe.inference.runtimes.base import Compiled, Subject, name_of
from tilepipe.inference.runtimes.named import runtime
from tilepipe.models.identity import model_identity
from tilepipe.models.model import Model

SIDE = 64
"""Least side of the tile that the graph is taken from (pixels)."""


def on_tiles(model: Model, shape: tuple[int, ...], compute: Compute) -> Compiled:
    """Return a model in the runtime of `compute`, for normalised tiles of `shape` (batch, bands, height, width).

    Raises `GraphError` if the runtime cannot compute the network, and `ModelError` if it is not installed.
    """
    module, side = model.module.eval(), math.lcm(model.card.stride, SIDE)
    example = torch.zeros(1, model.card.bands, side, side)
    subject = Subject(module, (example,), (tuple(shape),), model_identity(model, "cpu", "fp32"), compute.precision)
    return runtime(name_of(compute.runtime)).compiled(subject)
