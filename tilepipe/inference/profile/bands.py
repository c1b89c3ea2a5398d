"""Bands: finds whether a model can be computed in bands of rows, and what memory that takes. Kept in the cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

from tilepipe.cache import cache_directory, keep, recall
from tilepipe.heap import give_back
from tilepipe.inference.device import Compute
from tilepipe.models.identity import model_identity
from tilepipe.models.model import Model
from tilepipe.text import json_of
from tilepipe.tiling.statistics_grid import Statistics
from tilepipe.tiling.tiling import Bands

if TYPE_CHECKING:
    import torch

    from tilepipe.inference.banded.network import BandedNetwork
    from tilepipe.inference.statistics.held import Held

WIDTH = 128
"""Least width of the plane of the trial (pixels)."""
KERNELS = 1.25
"""Factor on the memory of a band for the reordered copies that kernels keep (measured on a CPU)."""
VERSION = 3  # version of this procedure; raise it when results change
_KNOWN: dict[str, BandNeeds] = {}


@dataclass(frozen=True)
class BandNeeds:
    """What a model needs to be computed in bands."""

    why_not: str = ""
    """Reason why it cannot be computed in bands; '' if it can."""
    width: int = 0
    """Memory of a band and of the rows that are kept (bytes per pixel of a tile's width)."""


def known_bands(
    model: Model, bands: Bands, stride: int, compute: Compute, statistics: Statistics | None = None
) -> BandNeeds:
    """Return whether a model of this total stride can be computed in such bands, and what memory that takes.

    With `statistics`, those of norms and poolings over the whole image are held fixed.
    Torch takes seconds to find it out, once per model and machine.
    """
    # What bands need follows from the layers. Where the card describes these, other weights need no other trial.
    identity = model.card.arch or model_identity(model, compute.device, compute.precision)
    versions = [VERSION, version("torch"), version("tilepipe")]
    values = statistics.values if statistics else ()
    layers = [identity, model.card.bands, len(model.card.classes), stride, values]
    settled = [layers, bands.height, bands.lead, compute.device, compute.precision, versions]
    key = hashlib.sha256(json.dumps(settled).encode()).hexdigest()
    if key not in _KNOWN:
        name, folder = f"bands-{key[:32]}.json", cache_directory()
        found = _parsed(recall(name, folder))
        if found is None:
            found = _tried(model, bands, stride, compute, statistics)
            give_back()
            keep(name, json.dumps(asdict(found)) + "\n", folder)
        _KNOWN[key] = found
    return _KNOWN[key]


def _parsed(text: str | None) -> BandNeeds | None:
    with suppress(ValueError, TypeError, AttributeError):
        found = BandNeeds(**json_of(text or ""))
        if found.why_not or found.width > 0:
            return found
    return None


def _tried(model: Model, bands: Bands, stride: int, compute: Compute, statistics: Statistics | None) -> BandNeeds:
    """Compute a narrow plane twice in bands, once from its top and once from its second band on, and compare."""
    import torch

    from tilepipe.inference.banded.lookup import NotBandedError
    from tilepipe.inference.banded.network import banded_of
    from tilepipe.inference.profile.footprint import LiveBytes
    from tilepipe.inference.statistics.held import made_up
    from tilepipe.models.precision import arithmetic, dtype_of, on_device

    height, lead = bands.height, bands.lead
    side = height if statistics else stride
    width = -(-WIDTH // side) * side
    try:
        network = banded_of(model, stride, compute, statistics)
    except NotBandedError as problem:
        return BandNeeds(why_not=str(problem))
    drawn = torch.randn((1, model.card.bands, 3 * height + lead, width), generator=torch.Generator().manual_seed(0))
    plane = drawn.to(compute.device, dtype_of(compute.precision)).contiguous(memory_format=torch.channels_last)
    with arithmetic(torch.device(compute.device), compute.precision):
        held: Held | None = None
        if statistics:
            module = on_device(model.module, torch.device(compute.device), compute.precision)
            held = made_up(module, plane, statistics, side)
        with LiveBytes() as meter:
            for _ in _bands(network, plane, height, held):
                pass
        whole = torch.cat(list(_bands(network, plane, height, held)), 2)
        part = torch.cat(list(_bands(network, plane, height, held, top=height)), 2)
    if not torch.equal(whole[:, :, height + lead :], part[:, :, lead:]):
        return BandNeeds(why_not="its results change with the row at which a pass begins")
    return BandNeeds("", int(KERNELS * meter.peak / width) + 1)


def _bands(
    network: BandedNetwork, plane: torch.Tensor, height: int, held: Held | None, top: int = 0
) -> Iterator[torch.Tensor]:
    """Yield the results of a pass that begins at row `top` of the plane."""
    rows, width = plane.shape[2:]
    going = network.begin(held.rows(width, top) if held else None)
    for first in range(top, rows, height):
        yield from going.parts(plane[:, :, first : first + height], last=first + height >= rows)
