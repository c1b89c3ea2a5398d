"""This module keeps how fast runs of a model were on this machine, so that the next plan can estimate a time."""

from __future__ import annotations

import hashlib
import json
import math
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from tilepipe.cache import cache_directory, keep, recall
from tilepipe.inference.device import Compute
from tilepipe.inference.profile.speed import processor
from tilepipe.models.identity import identify
from tilepipe.text import json_of

if TYPE_CHECKING:
    from tilepipe.models.model import Model

SHRINK = 4
"""Largest factor by which a run may be smaller than the kept run and replace it; short runs are mostly start-up."""


@dataclass(frozen=True)
class Throughput:
    """A run that was timed."""

    seconds: float
    """Wall time [s] from the first tile to the finished products."""
    pixels: int
    """Number of pixels that the model saw; a pixel counts each time the model saw it."""


def kept_throughput(model: Model, compute: Compute) -> Throughput | None:
    """Return the throughput of an earlier run of a model with the same `compute`; None if there was none."""
    with suppress(ValueError, TypeError, AttributeError, KeyError):
        found = json_of(recall(_name(model, compute), cache_directory()) or "")
        throughput = Throughput(float(found["seconds"]), int(found["pixels"]))
        if 0 < throughput.seconds < math.inf and throughput.pixels > 0:
            return throughput
    return None


def keep_throughput(model: Model, compute: Compute, throughput: Throughput) -> None:
    """Keep the throughput of a run, unless the throughput of a much larger run is known."""
    known = kept_throughput(model, compute)
    if (
        throughput.pixels > 0
        and throughput.seconds > 0
        and (known is None or throughput.pixels * SHRINK >= known.pixels)
    ):
        keep(_name(model, compute), json.dumps(asdict(throughput)) + "\n", cache_directory())


def _name(model: Model, compute: Compute) -> str:
    how = identify(model, "cpu", "fp32", values=False).key  # the same layers take as long, whatever their values are
    # The variable stands for torch's number of threads, since torch is not imported for a plan.
    settled = [how, asdict(compute), processor(), os.environ.get("OMP_NUM_THREADS")]
    return f"throughput-{hashlib.sha256(json.dumps(settled, sort_keys=True).encode()).hexdigest()[:32]}.json"
