"""Speed: measures the seconds that a model takes per pixel at each tile size, once per machine and model.

Larger tiles may be faster, since less work is done per tile. They may be slower, since the output of a layer no longer
fits in the processor's cache.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from time import perf_counter, process_time

import numpy as np

from tilepipe.cache import cache_directory, keep, recall
from tilepipe.errors import TilepipeError
from tilepipe.inference.device import Compute
from tilepipe.models.identity import model_identity
from tilepipe.models.model import Model
from tilepipe.text import json_of

TIME = 10.0
"""Longest time that measuring may take [s], once per machine and model; sizes that need longer are left out."""
Speeds = dict[int, float]
"""Seconds per pixel by tile size."""
_KNOWN: dict[str, Speeds] = {}


def speeds(model: Model, sizes: Sequence[int], compute: Compute) -> Speeds:
    """Return the speed of the first of `sizes`, and of the other sizes that could be measured in time.

    Kept in this process and in the cache directory, by weights, sizes, device, precision, batch, versions and threads.
    """
    key = _key(model, sizes, compute)
    if key not in _KNOWN:
        name, folder = f"speed-{key[:32]}.json", cache_directory()
        found = _parsed(recall(name, folder), sizes)
        if found is None:
            found = _measured(model, sizes, compute)
            if len(found) > 1:  # else the machine was busy perhaps; the next process tries again
                keep(name, json.dumps(found) + "\n", folder)
        _KNOWN[key] = found
    return _KNOWN[key]


def takes(model: Model, size: int, compute: Compute) -> bool:
    """Return whether the model can be called on tiles of a size at all."""
    try:
        seconds(model, size, compute)
    except TilepipeError:
        return False
    return True


def seconds(model: Model, size: int, compute: Compute) -> float:
    """Return the time of one batch of tiles [s]: on a CPU in processor time, so that other programs count less."""
    from tilepipe.inference.predictor import Predictor

    predictor = Predictor(model, (size, size), compute)
    # One tile is enough: the predictor fills the batch up.
    tiles = np.zeros((1, model.card.bands, size, size), model.card.dtype or "uint8")
    # A GPU works while the processor waits, which processor time does not count.
    clock = process_time if compute.device == "cpu" else perf_counter
    began = clock()
    predictor.labels(tiles)
    return clock() - began


def _measured(model: Model, sizes: Sequence[int], compute: Compute) -> Speeds:
    """Time the first size twice, as the first call of a model is slow, then the others from the largest down."""
    began, first = perf_counter(), sizes[0]
    found: Speeds = {}
    with suppress(TilepipeError):
        found[first] = min(seconds(model, first, compute) for _ in range(2)) / first**2
        each = (perf_counter() - began) / 2 / first**2
        # The largest first: a size between two measured ones is interpolated, one beyond them is not known.
        for size in sorted(sizes[1:], reverse=True):
            if perf_counter() - began + each * size**2 <= TIME:
                with suppress(TilepipeError):  # too large for the device, or for a file with a fixed size
                    found[size] = seconds(model, size, compute) / size**2
    return found


def _parsed(text: str | None, sizes: Sequence[int]) -> Speeds | None:
    """Return the speeds that were kept; None if the text holds none of use."""
    with suppress(ValueError, TypeError, AttributeError):
        found = {int(size): float(value) for size, value in json_of(text or "").items()}
        if set(found) <= set(sizes) and all(0 < value < math.inf for value in found.values()):
            return found
    return None


def _key(model: Model, sizes: Sequence[int], compute: Compute) -> str:
    from tilepipe.inference.predictor import device_versions, threads

    how = [compute.device, compute.precision, compute.batch, threads(), processor(), device_versions(compute.device)]
    identity = model_identity(model, compute.device, compute.precision)
    settled = [identity, list(sizes), how, version("torch"), version("tilepipe")]
    return hashlib.sha256(json.dumps(settled, sort_keys=True).encode()).hexdigest()


def processor() -> list[str | int | None]:
    """Return the name of the processor, if the system says it, and the number of processors."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return [line.split(":")[-1].strip(), os.cpu_count()]
    return [platform.processor() or platform.machine(), os.cpu_count()]
