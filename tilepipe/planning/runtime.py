"""This module chooses the runtime: the fastest that agrees with torch, or the one that was asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from tilepipe.arrays import Pixels
from tilepipe.errors import ModelError
from tilepipe.inference.device import Compute
from tilepipe.inference.runtimes.base import TORCH, check_precision, missing, stated
from tilepipe.planning.band_tiling import work_of
from tilepipe.planning.fit_row import FitRow
from tilepipe.planning.memory import Load, format_bytes
from tilepipe.planning.reduced_halo import patches
from tilepipe.planning.settings import Request
from tilepipe.sources.base import Source
from tilepipe.tiling.tiling import Tiling

if TYPE_CHECKING:
    from tilepipe.inference.runtimes.trial import Trial
    from tilepipe.models.model import Model

AUTO = "auto"
TRIED = ("onnxruntime", "openvino")
"""Runtimes that are tried by themselves; torch.compile takes minutes for a network, so it must be asked for."""
WORTH = 16_000_000
"""Number of pixels that the model must see for other runtimes to be tried: the trial takes seconds, once per model."""
SIDE = 1024
"""Largest side of the tile of a trial (pixels). Larger ones take more memory than the run, and more time, to show the
same."""


@dataclass(frozen=True)
class Chosen:
    """A runtime, and what is said of it."""

    compute: Compute
    """Where and how the model runs, with the runtime."""
    rows: tuple[FitRow, ...] = ()
    """Row of the fit table; none if nothing was asked for and nothing was tried."""
    agreement: str = ""
    """Sentence of the certificate; '' for torch itself."""


def choose_runtime(
    model: Model, request: Request, tiling: Tiling, load: Load, seen: Source, *, statistics: bool
) -> Chosen:
    """Return the runtime for the tiles of a plan; `seen` is the image on the prediction grid.

    The choice depends on the whole image, never on the region. `statistics` says that statistics are held fixed, which
    torch alone can. Raises `UsageError` and `ModelError` for a runtime that was asked for and cannot be used.
    """
    compute, asked = load.compute, request.runtime
    if asked == TORCH:
        return Chosen(compute)
    if asked == AUTO:
        work = work_of(tiling, load) * math.prod(load.predicted)
        if work < WORTH or compute.precision != "fp32" or _only_torch(model, compute, statistics=statistics):
            return Chosen(compute)
        return _within(request.memory, _fastest(model, compute, _setting(tiling, load, seen)), tiling, load)
    check_precision(asked, compute.precision)
    if why := _only_torch(model, compute, statistics=statistics):
        return Chosen(compute, (FitRow("runtime", "note", f"torch computes and not {asked}, since {why}"),))
    return _asked(model, asked, compute, _setting(tiling, load, seen))


def _only_torch(model: Model, compute: Compute, *, statistics: bool) -> str:
    """Return why torch alone can compute this; '' if other runtimes can."""
    if compute.device != "cpu":
        return f"other runtimes are used on the CPU only, and the device is {compute.device}"
    if statistics:
        return "norms or poolings over the whole image are held fixed, which is done in torch"
    if model.answers_often:
        return "several answers are averaged"
    return "the model is a file with a program of its own" if getattr(model.module, "opaque", False) else ""


def _fastest(model: Model, compute: Compute, setting: _Setting) -> Chosen:
    """Return the fastest runtime that agrees with torch."""
    found = {name: setting.trial(model, name, compute) for name in TRIED if not missing(name)}
    good = {name: trial for name, trial in found.items() if trial.agrees and trial.is_faster}
    if not good:
        said = "; ".join(f"{stated(name)}: {_why(trial)}" for name, trial in found.items())
        return Chosen(compute, (FitRow("runtime", "ok", f"torch; {said}"),) if said else ())
    name = min(good, key=lambda each: good[each].seconds)
    return _chosen(compute, name, good[name], "ok")


def _within(limit: int | None, chosen: Chosen, tiling: Tiling, load: Load) -> Chosen:
    """Return the choice, or torch if the libraries of another runtime do not fit into the memory that was given."""
    # Smaller blocks change no label, so the smallest ones count.
    least = tiling if tiling.columns else replace(tiling, block=tiling.tile)
    needed = replace(load, compute=chosen.compute).promise(least).total
    if limit is None or needed <= limit or chosen.compute == load.compute:
        return chosen
    said = f"torch; {chosen.compute.runtime} would be faster, and needs `memory` {format_bytes(needed)}"
    return Chosen(load.compute, (FitRow("runtime", "note", said),))


def _asked(model: Model, name: str, compute: Compute, setting: _Setting) -> Chosen:
    """Return the runtime that was asked for. Raises `ModelError` if it cannot compute the model."""
    if why := missing(name):
        raise ModelError(why)
    trial = setting.trial(model, name, compute)
    if trial.why_not:
        raise ModelError(trial.why_not)
    return _chosen(compute, name, trial, "ok" if trial.agrees else "note")


def _chosen(compute: Compute, name: str, trial: Trial, state: str) -> Chosen:
    compute = replace(compute, runtime=stated(name))
    speed = f"{compute.runtime}, {trial.torch / trial.seconds:.1f} x as fast as torch" if trial.seconds else name
    row = FitRow("runtime", "ok" if state == "ok" else "note", f"{speed}; {trial.sentence}")
    precision = "" if compute.precision == "fp32" else f" in {compute.precision}"
    return Chosen(compute, (row,), f"Computed with {compute.runtime}{precision}: {trial.sentence}.")


def _why(trial: Trial) -> str:
    if trial.why_not:
        return trial.why_not
    return (
        trial.sentence if not trial.agrees else f"{trial.torch / trial.seconds:.2f} x as fast, which is no clear gain"
    )


@dataclass(frozen=True)
class _Setting:
    """The tiles of a trial."""

    tiling: Tiling
    tile: tuple[int, int]
    dtype: str
    seen: Source

    def trial(self, model: Model, name: str, compute: Compute) -> Trial:
        """Return the trial of a runtime."""
        # This import opens what measuring needs; a plan with a small image does without.
        from tilepipe.inference.runtimes.trial import BANDS, Setting, known_trial

        height, stride = self.tiling.bands.height if self.tiling.bands else 0, self.tiling.stride
        tall, wide = (min(side, -(-SIDE // stride) * stride) for side in self.tile)
        tile = (BANDS * height or tall, wide)
        setting = Setting(tile, compute, self.dtype, stride, height, partial(self.real, tile))
        return known_trial(model, name, setting)

    def real(self, tile: tuple[int, int]) -> Pixels | None:
        """Return pixels (bands, *tile), put together of eight places of the image; None if no place is image data."""
        height, width = tile
        tall, wide = -(-height // 2), -(-width // 4)
        side = max(tall, wide)
        if side > min(self.seen.shape[1:]):
            return None
        found = list(_eight(patches(self.seen, side)))
        if not found:
            return None
        rows = [np.concatenate([patch[:, :tall, :wide] for patch in found[k : k + 4]], 2) for k in (0, 4)]
        return np.concatenate(rows, 1)[:, :height, :width]


def _eight(found: Iterator[Pixels]) -> Iterator[Pixels]:
    """Yield eight patches; if there are fewer, those that there are come again."""
    kept = list(found)
    yield from (kept[k % len(kept)] for k in range(8) if kept)


def _setting(tiling: Tiling, load: Load, seen: Source) -> _Setting:
    return _Setting(tiling, tiling.grid(load.predicted).tile_shape, str(load.source.dtype), seen)
