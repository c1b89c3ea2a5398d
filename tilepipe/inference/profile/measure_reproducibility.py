"""Measures the reproducibility of a model on a device in a precision, on a few made-up tiles.

Runs four comparisons at the run's own tile shape and batch size: (1) the same tiles twice, (2) the same tiles in
another order, (3) a tile and a larger pass in which it has full context, and (4) the same tiles in fp32. These take at
most eight passes, or four on a CPU. If the run holds statistics fixed, one or two more passes take the statistics. The
results are kept in the process and in the cache, under a key of everything they depend on.
"""

from __future__ import annotations

import hashlib
import json
import math
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import scipy
from numpy.typing import NDArray

from tilepipe import cache
from tilepipe.arrays import Logits, Pixels
from tilepipe.box import Box
from tilepipe.errors import StorageError
from tilepipe.inference.device import Compute
from tilepipe.inference.predictor import Predictor, device_versions
from tilepipe.inference.profile.reproducibility import Reproducibility
from tilepipe.inference.statistics.capture import FixedStatistics, Recorder
from tilepipe.inference.statistics.held import hold
from tilepipe.models.identity import model_identity
from tilepipe.models.model import Model
from tilepipe.models.precision import surroundings
from tilepipe.models.probe.sample_tiles import made_up_tiles
from tilepipe.tiling.statistics_grid import Statistics

VERSION = 1  # version of the procedure; raise it when results change
SIDE, CORE = 256, 64
"""Largest side of a tile on a CPU, unless a halo and a core need more, and the side of that core [pixels].

On a CPU, the side decides how long measuring takes.
"""
_KNOWN: dict[str, Reproducibility] = {}


@dataclass(frozen=True)
class Setting:
    """Settings for which reproducibility is measured, beside model and machine."""

    tile: tuple[int, int]
    """Shape (height, width) of a tile [pixels]."""
    stride: int
    """Total stride (S)."""
    halo: int | None
    """Full context [pixels]; None if no context suffices."""
    compute: Compute
    """Device, precision and batch size."""
    dtype: str = "float32"
    """Type of the pixels."""
    statistics: Statistics | None = None
    """Statistics of global operations that the run holds fixed; None if it holds none."""


def known_reproducibility(model: Model, setting: Setting, *, measure: bool = True) -> Reproducibility | None:
    """Return the reproducibility that was kept for a setting.

    If none was kept, it is measured and kept if `measure`, and is None if not. Raises the errors of
    `measure_reproducibility`.
    """
    setting = _small_enough(setting)
    settled = [
        VERSION,
        model_identity(model, setting.compute.device, setting.compute.precision),
        repr(setting),
        surroundings(),
        device_versions(setting.compute.device),
    ]
    key = hashlib.sha256(json.dumps(settled).encode()).hexdigest()
    name, directory = f"level-{key[:32]}.json", cache.cache_directory()
    if key not in _KNOWN:
        with suppress(StorageError):
            _KNOWN[key] = Reproducibility.from_json(cache.recall(name, directory) or "")
    if key not in _KNOWN and measure:
        _KNOWN[key] = measure_reproducibility(model, setting)
        cache.keep(name, _KNOWN[key].to_json(), directory)
    return _KNOWN.get(key)


def measure_reproducibility(model: Model, setting: Setting) -> Reproducibility:
    """Measure reproducibility. Raises `DeviceError` if the device is too small, `ModelError` if the model fails."""
    how = setting.compute
    tiles = made_up_tiles(model.card, how.batch, setting.tile, setting.dtype)
    measurement = _Measurement(model, setting, tiles)
    first = measurement.logits()
    # Kernels that race on a GPU do not show it every time.
    repeatable = all(np.array_equal(measurement.logits(), first) for _ in range(1 if how.device == "cpu" else 3))
    independent = True
    if how.batch > 1:
        turned = measurement.logits(slice(None, None, -1))[::-1]
        # The first tile is computed once more with zeros beside it, as in the last batch of a block.
        independent = np.array_equal(turned, first) and np.array_equal(measurement.logits(slice(1))[0], first[0])
    gap = measurement.larger(first)
    rounding: tuple[float | None, float | None] = None, None
    if how.precision != "fp32":
        plain = replace(setting, compute=replace(how, precision="fp32"))
        rounding = distances(_Measurement(model, plain, tiles).logits(), first)
    name = device_versions(how.device).get("device", "cpu")
    return Reproducibility(name, how.precision, repeatable, independent, *gap, *rounding)


class _Measurement:
    """Calls a model, as the run would, on tiles that lie two to a row; statistics are fixed if the run fixes them."""

    def __init__(self, model: Model, setting: Setting, tiles: Pixels) -> None:
        self.model, self.setting, self.tiles = model, setting, tiles
        height, width = setting.tile
        corners = [(k // 2 * height, k % 2 * width) for k in range(len(tiles))]
        self.places = [Box(y, x, y + height, x + width) for y, x in corners]
        self.predictor, self.held = Predictor(model, setting.tile, setting.compute), None
        if setting.statistics:
            recorder = Recorder()
            self.predictor.observe(tiles, recorder)
            values = recorder.values().astype(setting.compute.dtype)
            self.held = hold(setting.statistics, values, (2 * height, 2 * width), setting.stride)

    def logits(self, chosen: slice = slice(None)) -> Logits:
        """Return the logits of some of the tiles, (n, classes, height, width)."""
        return self.predictor.logits(self.tiles[chosen], self._under(self.places[chosen]))

    def larger(self, first: Logits) -> tuple[float | None, float | None]:
        """Return distance and share of flips between the corner of a larger pass and a tile that begins there.

        The larger pass takes no more memory than a batch. With batches of four or more, it is two tiles wide and high.
        With smaller batches, it is the tile, and the other pass is the tile without its first S rows and columns. The
        result is (None, None) if no tile has full context.
        """
        (height, width), halo, stride = self.setting.tile, self.setting.halo, self.setting.stride
        wide = self.setting.compute.batch >= 4
        cut = (height, width) if wide else (stride, stride)
        if halo is None or min(height, width) - (0 if wide else stride) <= halo:
            return None, None
        try:
            if wide:
                rows = [np.concatenate(pair, axis=2) for pair in (self.tiles[:2], self.tiles[2:4])]
                whole = self._one(np.concatenate(rows, axis=1), Box(0, 0, 2 * height, 2 * width), batch=1)
                part = first[3]
            else:
                tile, batch = self.tiles[0, :, stride:, stride:], self.setting.compute.batch
                whole, part = first[0], self._one(tile, Box(stride, stride, height, width), batch)
        except Exception:  # a stranger's module may raise anything for tiles of another shape
            return None, None
        # Both passes end at the same lower and right edges, so context is missing above and on the left alone.
        kept = np.s_[..., halo:, halo:]
        return distances(whole[:, cut[0] :, cut[1] :][kept], part[kept])

    def _one(self, tile: Pixels, place: Box, batch: int) -> Logits:
        """Return the logits of a tile of another shape, (classes, height, width)."""
        predictor = Predictor(self.model, place.shape, replace(self.setting.compute, batch=batch))
        return np.asarray(predictor.logits(tile[None], self._under([place]))[0])

    def _under(self, places: list[Box]) -> FixedStatistics | None:
        return self.held.under(places) if self.held else None


def distances(p: Logits, q: Logits) -> tuple[float, float]:
    """Return the largest total variation distance and the share of other labels of logits (..., classes, H, W)."""
    pairs = list(zip(p.reshape(-1, *p.shape[-3:]), q.reshape(-1, *q.shape[-3:]), strict=True))
    worst = max(float(np.abs(_probabilities(a) - _probabilities(b)).sum(0).max()) / 2 for a, b in pairs)
    return worst, float(np.mean([(a.argmax(0) != b.argmax(0)).mean() for a, b in pairs]))


def _probabilities(logits: Logits) -> NDArray[np.float64]:
    return np.asarray(scipy.special.softmax(logits.astype(np.float64), axis=0))


def _small_enough(setting: Setting) -> Setting:
    """Return a setting whose tiles are not larger than needed on a CPU."""
    if setting.compute.device != "cpu":
        return setting
    stride = setting.stride
    most = max(SIDE, (setting.halo or 0) + stride + CORE)
    height, width = (min(side, math.ceil(most / stride) * stride) for side in setting.tile)
    return replace(setting, tile=(height, width))
