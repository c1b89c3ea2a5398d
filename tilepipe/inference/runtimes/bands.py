"""This module brings the bands of a model to a runtime: it computes the middle of each pass, and torch the ends."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from tilepipe.errors import ModelError
from tilepipe.inference.banded.lookup import NotBandedError
from tilepipe.inference.banded.network import SIDE, BandedNetwork, banded_of
from tilepipe.inference.banded.steady import Middle, kept_rows, middle_of, with_rows
from tilepipe.inference.device import Compute
from tilepipe.inference.runtimes.base import TORCH, Compiled, GraphError, Subject, name_of
from tilepipe.inference.runtimes.named import runtime
from tilepipe.models.identity import model_identity
from tilepipe.models.model import Model
from tilepipe.text import setting
from tilepipe.tiling.statistics_grid import Statistics


@dataclass(frozen=True)
class CompiledBands:
    """A network in bands whose middle another runtime computes."""

    network: BandedNetwork
    """The network by its rules."""
    middle: Middle
    """The steady band."""
    compiled: Compiled
    """The steady band in the runtime."""
    width: int
    """Columns of the plane."""

    def begin(self, *, top: bool) -> CompiledPass:
        """Return a pass from the top of a plane, or from a band further down.

        The latter begins with zeros in the place of rows above. So its first logits are those of the `middle.delay`
        rows above it, and rows within the reach of its first one are wrong.
        """
        return CompiledPass(self, top=top)


class CompiledPass:
    """A pass over one plane; see `banded.network.Pass`."""

    def __init__(self, bands: CompiledBands, *, top: bool) -> None:
        self._bands, self._given = bands, 0
        self._going = bands.network.begin() if top else None
        self._kept = None if top else [torch.zeros(shape) for shape in bands.middle.shapes(bands.width)[1:]]

    def parts(self, rows: Tensor, *, last: bool = False) -> Iterator[Tensor]:
        """Take the next rows and yield the logits that are complete now, as `Pass.parts` does."""
        middle = self._bands.middle
        if self._kept is None and self._given >= middle.first:
            assert self._going is not None
            self._kept = [one.contiguous() for one in kept_rows(self._going.rules)]
        self._given += 1
        if self._kept is not None and not last:
            logits, *self._kept = self._bands.compiled([rows, *self._kept])
            yield logits
            return
        if self._kept is not None:
            rules = with_rows(middle.module.rules, self._kept)
            self._going = self._bands.network.going_on(rules, middle.module.height)
        assert self._going is not None
        yield from self._going.parts(rows, last=last)


def bands_in_runtime(network: BandedNetwork, model: Model, compute: Compute, shape: tuple[int, int]) -> CompiledBands:
    """Return the bands of a model in the runtime of `compute`; `shape` is (rows, columns) of a band.

    Raises `GraphError` if the runtime cannot compute them, and `ModelError` if it is not installed.
    """
    height, width = shape
    try:
        middle = middle_of(network, model.card.bands, height, math.lcm(model.card.stride, SIDE))
    except NotBandedError as problem:
        raise GraphError(str(problem)) from None
    key = f"band {height} {model_identity(model, 'cpu', 'fp32')}"
    subject = Subject(middle.module, middle.examples, middle.shapes(width), key, compute.precision)
    return CompiledBands(network, middle, runtime(name_of(compute.runtime)).compiled(subject), width)


def usable_network(model: Model, stride: int, compute: Compute, statistics: Statistics | None = None) -> BandedNetwork:
    """Return the network of a model in bands; see `banded_of`. Raises `ModelError` if it cannot be computed so."""
    try:
        return banded_of(model, stride, compute, statistics)
    except NotBandedError as problem:
        raise ModelError(f"{model.name} cannot be computed in bands of rows: {problem}") from None


def usable_bands(network: BandedNetwork, model: Model, compute: Compute, shape: tuple[int, int]) -> CompiledBands:
    """Return what `bands_in_runtime` does. Raises `ModelError` with what to type if the runtime cannot compute them."""
    try:
        return bands_in_runtime(network, model, compute, shape)
    except GraphError as problem:
        raise ModelError(
            f"bands of {model.name} cannot be computed by {compute.runtime}: {problem}; use {setting(runtime=TORCH)}"
        ) from None
