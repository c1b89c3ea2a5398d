"""Afford: less context than the model's reach, where all of it costs too much; how much is measured on the image."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from tilepipe.box import Box, Sides
from tilepipe.errors import InputError, ModelError, UsageError
from tilepipe.inference.device import Compute
from tilepipe.models.card import ModelCard
from tilepipe.planning.resolution import predicted_shape
from tilepipe.planning.settings import MAX_COST, TOLERANCE, Settings
from tilepipe.planning.tile_size import tile_size
from tilepipe.sources.base import Source
from tilepipe.sources.resample import Resampled
from tilepipe.tiling.tiling import cost_factor

if TYPE_CHECKING:
    from tilepipe.inference.profile.edge_errors import EdgeErrors
    from tilepipe.models.model import Model

WINDOWS = 8
"""Windows of the image that the context is chosen on; two forward passes each."""
DRAWS = 25
"""Places tried for each; it must hold image data only."""
_MEASURED: dict[str, EdgeErrors | None] = {}


def reduced_halo(
    model: Model, card: ModelCard, source: Source, settings: Settings, device: str
) -> tuple[Settings, float]:
    """Return settings with an overlap that keeps within `max_cost`, and the tolerance that it was chosen for.

    Both are as they were, with tolerance 0, where the overlap is the user's own, exact labels are cheap enough, or the
    model's reach is unknown. Where no context within `max_cost` keeps the tolerance, tiles are blended with half of a
    tile, uncertified. The choice depends on the whole image, never on the region. Raises `UsageError`.
    """
    tolerance, most = settings.get("tolerance", TOLERANCE), settings.get("max_cost", MAX_COST)
    if not 0 <= tolerance < 1 or most < 1:
        raise UsageError(f"tolerance {tolerance} is not in [0, 1), or max_cost {most} is below 1")
    own = settings.get("overlap", "auto") != "auto" or settings.get("window_shape", "auto") not in ("auto", "crop")
    if card.halo is None or own or tolerance == 0:
        return settings, 0.0
    tile, shape = tile_size(card, settings), predicted_shape(source, card, settings.get("pixel_size"))
    if max(shape) <= tile or cost_factor(tile, Sides(*4 * (card.halo,))) <= most:
        return settings, 0.0
    image = source if shape == source.shape[1:] else Resampled(source, *shape)
    where = device, "fp64" if settings.get("precision") == "fp64" else "fp32"
    halo = _halo(model, card.stride, image, (tolerance, most, tile), where)
    chosen: Settings = {**settings, "overlap": tile // 2 // card.stride * card.stride, "window_shape": "gaussian"}
    if halo is None:
        return chosen, 0.0
    return {**chosen, "overlap": 2 * halo, "window_shape": "crop"}, tolerance


def _halo(
    model: Model, stride: int, image: Source, wanted: tuple[float, float, int], where: tuple[str, str]
) -> int | None:
    """Return the smallest halo that keeps the tolerance within the cost; None where there is none.

    `where` is device and precision.
    """
    from tilepipe.models.identity import model_identity

    tolerance, most, tile = wanted
    fits = (min(image.shape[1:]) - 2 * stride) // (4 * stride) * stride
    margin = min(int(tile * (1 - 1 / math.sqrt(most)) / 2) // stride * stride, fits)
    if margin < stride:
        return None
    seen = hashlib.sha256()
    for window in windows(image, _side(margin, stride)):  # what is measured depends on these alone
        seen.update(window.tobytes())
    key = json.dumps([model_identity(model, *where), seen.hexdigest(), image.shape, margin, stride])
    if key not in _MEASURED:
        _MEASURED[key] = _measure(model, image, (margin, stride), where)
    errors = _MEASURED[key]
    return None if errors is None else errors.halo(tolerance, stride)


def _measure(model: Model, image: Source, sizes: tuple[int, int], where: tuple[str, str]) -> EdgeErrors | None:
    """Return what a cut does in windows of the image; None where there is no window without holes."""
    from tilepipe.inference.profile.edge_errors import model_errors

    with suppress(ModelError):
        return model_errors(model, windows(image, _side(*sizes)), *sizes, Compute(*where))
    return None


def _side(margin: int, stride: int) -> int:
    return 4 * margin + 2 * stride


def windows(image: Source, side: int) -> Iterator[NDArray[Any]]:
    """Yield up to `WINDOWS` windows of `side` x `side` pixels, image data only, at places fixed by the image's size."""
    _, height, width = image.shape
    random = Random(f"{height} {width} {side}")
    for _ in range(WINDOWS):
        for _ in range(DRAWS):
            y, x = random.randint(0, height - side), random.randint(0, width - side)
            box = Box(y, x, y + side, x + side)
            with suppress(InputError):  # a part that cannot be read; the run will say so
                valid = image.valid(box)
                if valid is None or valid.all():
                    yield image.read(box)
                    break
