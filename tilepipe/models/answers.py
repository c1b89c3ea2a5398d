"""Answers: a model's identity is made of its weights, settings and card, and of its answers to a few fixed tiles.

Two models of one class and the same weights may answer differently: a function handed in, a list as attribute, a
wrapped runtime, a `forward` edited in a notebook cell. So if any part of a model is not of a known package
(`contents`), the model is called on a few fixed tiles in the run's own arithmetic, with one thread. All bits of the
answers are then part of its identity. A model that answers the same tile differently each time has no identity.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import uuid4
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tilepipe.arrays import Pixels
from tilepipe.models.contents import Contents, hash_of
from tilepipe.models.model import Model
from tilepipe.models.precision import arithmetic, dtype_of, on_device
from tilepipe.models.probe.sample_tiles import made_up_tiles

VERSION = 1  # version of the tiles and of the hashing of answers; raise it when either changes
UNIT, LARGEST = 32, 4096
"""Pixels: sides are multiples of the unit, as most networks ask for, and of the stride, up to the largest."""
USUAL = 512
"""Side in pixels that is tried if a model refuses the smaller tiles and its card names no tile."""
_MEMORY: WeakKeyDictionary[nn.Module, set[str]] = WeakKeyDictionary()
"""Parts of a module that change from call to call although its answers repeat: counters, grids kept for later."""


@dataclass(frozen=True)
class Asking:
    """How a model is asked."""

    device: str
    precision: str
    values: bool


def identified(model: Model, card: str, how: Asking) -> tuple[str, str]:
    """Return a model's identity, and the reason if it has none; see `identity.identify`."""
    contents = Contents(model.module)
    if contents.known:
        return _sha256_of_json([VERSION, card, contents.parts]), ""
    answers = _Answers(model, how)
    after = Contents(model.module).parts
    memory = _MEMORY.setdefault(model.module, set())
    memory |= {part for part in {*contents.parts, *after} if contents.parts.get(part) != after.get(part)}
    parts = {part: value for part, value in contents.parts.items() if part not in memory}
    asked = [how.device, how.precision, *answers.hashes]
    # A model in trouble gets a new identity in each call, so that nothing that was kept is found again for it.
    return _sha256_of_json([VERSION, card, parts, asked, uuid4().hex if answers.trouble else ""]), answers.trouble


class _Answers:
    """Hashes of a model's answers to the fixed tiles, and what is wrong with the model."""

    def __init__(self, model: Model, how: Asking) -> None:
        self.trouble = ""
        self.hashes: list[str] = []
        self.device, self.precision, self.values = torch.device(how.device), how.precision, how.values
        cuda = [self.device] if self.device.type == "cuda" else []
        try:
            with torch.random.fork_rng(cuda), arithmetic(self.device, self.precision), _one_thread():
                self._ask(model, on_device(model.module, self.device, self.precision))
        except Exception as error:  # copying an unknown module may raise anything
            self.trouble = f"it fails on the tiles that it is told by ({type(error).__name__})"

    def _ask(self, model: Model, module: nn.Module) -> None:
        tiles = list(fixed_tiles(model) if self.values else spatial_tiles(model))
        said = [self._answer(model, module, tile) for tile in tiles]
        if not any(ok for ok, _ in said):  # a file with a size of its own, perhaps
            side = _multiple(model.card.tile or USUAL, model.card.stride)
            tiles = [_natural(model, (side, side))] if side <= LARGEST else []
            said = [self._answer(model, module, tile) for tile in tiles]
        self.hashes = [text for _, text in said]
        if not any(ok for ok, _ in said):
            self.trouble = f"it fails on the tiles that it is told by ({self.hashes[0] if said else 'stride'})"
        # Two tiles are enough, since asking takes time: what is random or counts its calls shows in any tile.
        elif any(self._answer(model, module, tiles[k]) != said[k] for k in (0, -1)):
            self.trouble = "it answers the same tile differently when it is asked again"

    def _answer(self, model: Model, module: nn.Module, tile: Pixels) -> tuple[bool, str]:
        """Return whether the model takes a tile, and the hash of all bits of its answer or the kind of its error."""
        try:
            x = model.normalise(torch.from_numpy(tile[None]).to(self.device), dtype_of(self.precision))
            return True, hash_of(module(x))
        except Exception as error:  # whatever a stranger's module raises
            return False, type(error).__name__


def fixed_tiles(model: Model) -> Iterator[Pixels]:
    """Yield tiles (bands, height, width) in the image's units; they look like images and span every usual range."""
    card = model.card
    unit = math.lcm(card.stride, UNIT)
    side, low, wide = (_multiple(size, unit) for size in (128, 96, 160))
    if side > LARGEST:
        return
    kind = np.dtype(card.dtype or "uint8")
    top = float(np.iinfo(kind).max) if kind.kind in "iu" else 255.0
    middle, spread = np.array(card.mean or (0.0,)), np.array(card.std or (1.0,))
    yield _natural(model, (side, side))
    yield made_up_tiles(card, 1, (low, wide), "float32")[0]
    # A rule inside the network may hide in one range of values. A ramp crosses every threshold in its range: 8 bit, 16
    # bit, scaled, and 0 to 1.
    yield _ramp(card.bands, side, 0, 255, whole=True)
    yield _ramp(card.bands, side, 0, max(top, 65535.0), whole=True)
    steps = _ramp(card.bands, side, -5, 5)
    yield (middle[:, None, None] + spread[:, None, None] * steps).astype(np.float32)
    yield _ramp(card.bands, side, 0, 1)
    yield np.zeros((card.bands, unit, unit), np.float32)


def spatial_tiles(model: Model) -> Iterator[Pixels]:
    """Yield two small image-like tiles; they are enough to tell what a model's reach depends on."""
    unit = math.lcm(model.card.stride, UNIT)
    if 2 * unit <= LARGEST:
        yield _natural(model, (_multiple(96, unit), _multiple(96, unit)))
        yield _natural(model, (_multiple(32, unit), _multiple(64, unit)))


def _natural(model: Model, shape: tuple[int, int]) -> Pixels:
    return np.asarray(made_up_tiles(model.card, 1, shape, model.card.dtype or "uint8")[0])


def _ramp(bands: int, side: int, low: float, high: float, *, whole: bool = False) -> NDArray[np.float32]:
    """Return values from low to high: all bands are alike in the upper half, each has its own order in the lower."""
    values = np.linspace(low, high, side * side // 2)
    values = np.round(values) if whole else values
    random = np.random.default_rng(1)
    mixed = np.stack([random.permutation(values) for _ in range(bands)])
    both = np.concatenate([np.tile(values, (bands, 1)), mixed], axis=1)
    return both.reshape(bands, side, side).astype(np.float32)


def _multiple(size: int, unit: int) -> int:
    return -(-size // unit) * unit


def _sha256_of_json(parts: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Make torch sum in one order, however many threads this process has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
