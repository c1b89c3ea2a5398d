"""Trial: a runtime and torch compute the same tiles in turn. Kept in the cache per model, machine, shape and versions.

A runtime agrees with torch if no label of the trial differs, and no probability by more than `DISTANCE`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from time import process_time

import numpy as np

from tilepipe.arrays import Logits, Pixels
from tilepipe.cache import cache_directory, keep, recall
from tilepipe.errors import ModelError
from tilepipe.heap import give_back
from tilepipe.inference.device import Compute
from tilepipe.inference.profile.speed import processor
from tilepipe.inference.runtimes.base import TORCH, GraphError, stated
from tilepipe.models.identity import model_identity
from tilepipe.models.model import Model
from tilepipe.text import json_of

DISTANCE = 1e-4
"""Largest difference of a probability (0 to 1) between runtimes that agree."""
CLEARLY = 0.9
"""Fraction of torch's time below which a runtime is faster; smaller gains are within measurement noise."""
TURNS = 3
"""Number of times that each runtime computes a tile; the fastest time counts, since other programs only slow it."""
FEW = 1 << 18
"""Number of pixels of a tile from which on each tile is computed once only."""
BANDS = 12
"""Number of bands of a trial."""
VERSION = 2  # version of this procedure; raise it when results change
_KNOWN: dict[str, Trial] = {}


@dataclass(frozen=True)
class Trial:
    """What was measured of one runtime beside torch."""

    why_not: str = ""
    """Reason why the runtime cannot compute the model; '' if it can."""
    seconds: float = 0.0
    """Time of a tile in the runtime (seconds of the processor, so that other programs count less)."""
    torch: float = 0.0
    """The same in torch."""
    flips: int = 0
    """Number of pixels whose label is not that of torch in fp32."""
    distance: float = 0.0
    """Largest difference of a probability to torch in fp32 (0 to 1)."""
    pixels: int = 0
    """Number of pixels that were compared."""

    @property
    def agrees(self) -> bool:
        """Whether labels and probabilities are those of torch."""
        return not self.why_not and self.flips == 0 and self.distance <= DISTANCE

    @property
    def is_faster(self) -> bool:
        """Whether the runtime is clearly faster than torch."""
        return not self.why_not and self.seconds < CLEARLY * self.torch

    @property
    def sentence(self) -> str:
        """What was found on the labels, in words that follow the runtime's name."""
        same = "all labels are" if not self.flips else f"all but {self.flips} labels are"
        return (
            f"on {self.pixels} pixels {same} those of torch in fp32, and probabilities differ by at most "
            f"{self.distance:.1e}"
        )


@dataclass(frozen=True)
class Setting:
    """What a trial runs."""

    tile: tuple[int, int]
    """Shape (height, width) of a tile (pixels)."""
    compute: Compute
    """Device, precision and batch size; its runtime is not looked at."""
    dtype: str
    """Type of the pixels."""
    stride: int
    """Total stride of the model (pixels)."""
    bands: int
    """Rows of a band (pixels); 0 if tiles are computed whole. A tile is `BANDS` bands high then."""
    real: Callable[[], Pixels | None]
    """Returns a tile (bands, height, width) of pixels of the image, None if there is none; called if nothing is
    kept."""


def known_trial(model: Model, name: str, setting: Setting) -> Trial:
    """Return the trial of a runtime that was kept; if none was kept, it is made and kept."""
    compute = setting.compute
    how = [stated(name), setting.tile, setting.bands, setting.dtype, compute.precision, compute.batch]
    machine = [processor(), os.environ.get("OMP_NUM_THREADS"), version("torch"), version("tilepipe")]
    identity = model_identity(model, "cpu", "fp32")
    key = hashlib.sha256(json.dumps([VERSION, identity, how, machine]).encode()).hexdigest()
    if key not in _KNOWN:
        file, folder = f"runtime-{key[:32]}.json", cache_directory()
        found = _parsed(recall(file, folder))
        if found is None:
            found = (_tried_in_bands if setting.bands else _tried)(model, name, setting)
            give_back()
            keep(file, json.dumps(asdict(found)) + "\n", folder)
        _KNOWN[key] = found
    return _KNOWN[key]


def _parsed(text: str | None) -> Trial | None:
    with suppress(ValueError, TypeError, AttributeError):
        found = Trial(**json_of(text or ""))
        if found.why_not or found.pixels > 0:
            return found
    return None


def _tried(model: Model, name: str, setting: Setting) -> Trial:
    from tilepipe.inference.predictor import Predictor
    from tilepipe.inference.profile.measure_reproducibility import distances
    from tilepipe.models.probe.sample_tiles import made_up_tiles

    compute = replace(setting.compute, workers=0)
    plain = Predictor(model, setting.tile, replace(compute, runtime=TORCH, precision="fp32"))
    tiles = made_up_tiles(model.card, 1, setting.tile, setting.dtype)
    if (real := setting.real()) is not None:
        tiles = np.concatenate([tiles, real[None].astype(tiles.dtype)])
    try:
        other = Predictor(model, setting.tile, replace(compute, runtime=stated(name)))
        other.logits(tiles[:1])  # the first call of a network is slow
        plain.logits(tiles[:1])
        times: list[list[float]] = [[], []]
        flips, distance = 0, 0.0
        for tile in tiles:
            for _ in range(1 if tile[0].size > FEW else TURNS):
                found = []
                for predictor, taken in zip((plain, other), times, strict=True):
                    began = process_time()
                    found.append(predictor.logits(tile[None]))
                    taken.append(process_time() - began)
            far, share = distances(*found)
            flips, distance = flips + round(share * tile[0].size), max(distance, far)
    except ModelError as problem:
        return Trial(why_not=str(problem))
    return Trial("", min(times[1]), min(times[0]), flips, distance, tiles[:, 0].size)


def _tried_in_bands(model: Model, name: str, setting: Setting) -> Trial:
    """Compute one plane in bands twice; its last two thirds are pixels of the image, if there are any."""
    import torch

    from tilepipe.inference.banded.network import Pass, banded_of
    from tilepipe.inference.profile.measure_reproducibility import distances
    from tilepipe.inference.runtimes.bands import CompiledPass, bands_in_runtime
    from tilepipe.models.precision import arithmetic, dtype_of
    from tilepipe.models.probe.sample_tiles import made_up_tiles

    compute, (rows, width) = replace(setting.compute, workers=0, runtime=TORCH), setting.tile
    plane = made_up_tiles(model.card, 1, setting.tile, setting.dtype)
    if (real := setting.real()) is not None:
        plane[0, :, rows // 3 :] = real[:, rows // 3 :]
    network = banded_of(model, setting.stride, compute)
    try:
        compiled = bands_in_runtime(network, model, replace(compute, runtime=stated(name)), (setting.bands, width))
    except GraphError as problem:
        return Trial(why_not=f"bands of {model.name} cannot be computed by {name}: {problem}")
    times: list[list[float]] = [[], []]
    logits: list[list[Logits]] = [[], []]
    passes: tuple[Pass | CompiledPass, ...] = (network.begin(), compiled.begin(top=True))
    with arithmetic(torch.device(compute.device), compute.precision):
        for k, top in enumerate(range(0, rows, setting.bands)):
            x = model.normalise(torch.from_numpy(plane[:, :, top : top + setting.bands]), dtype_of(compute.precision))
            x = x.contiguous(memory_format=torch.channels_last)
            for going, taken, found in zip(passes, times, logits, strict=True):
                began = process_time()
                found += [part.float().numpy() for part in going.parts(x)]
                if k > compiled.middle.first:  # the first call of the runtime is slow
                    taken.append(process_time() - began)
    if not times[1]:
        return Trial(why_not=f"bands of {model.name} are steady only after {compiled.middle.first} bands")
    one, other = (np.concatenate(found, 2) for found in logits)
    distance, share = distances(one, other)
    pixels = one[0, 0].size
    return Trial("", min(times[1]), min(times[0]), round(share * pixels), distance, pixels)
