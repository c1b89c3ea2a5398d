"""This module chooses less context than the model's reach if full context costs too much; it measures on patches."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

from tilepipe.arrays import Pixels
from tilepipe.box import Box, Sides
from tilepipe.errors import InputError, ModelError
from tilepipe.inference.device import Compute
from tilepipe.planning.settings import Request
from tilepipe.sources.base import Source
from tilepipe.tiling.tiling import Tiling, cost_factor

if TYPE_CHECKING:
    from tilepipe.inference.profile.edge_errors import EdgeErrors
    from tilepipe.models.model import Model

PATCHES = 8
"""Number of patches of the image that the context is chosen on; each takes two forward passes."""
DRAWS = 25
"""Number of places tried for each patch; a patch must hold image data only."""
# The choice is the same for every region of an image, and `predict` plans anew for each of them.
_MEASURED: dict[str, EdgeErrors | None] = {}


def reduced_halo(
    model: Model, image: Source, request: Request, tiling: Tiling, compute: Compute
) -> tuple[Tiling, float]:
    """Return the tiling with an overlap that keeps within `max_cost`, and the tolerance that it was chosen for.

    `image` lies on the prediction grid. The tiling is returned unchanged, with tolerance 0, if the user chose the
    overlap, if exact labels are cheap enough, or if the model's reach is unknown. If no context within `max_cost` keeps
    the tolerance, tiles overlap by half and are blended, without a certificate. The choice depends on the whole image,
    never on the region.
    """
    tile, stride, halo = tiling.tile, tiling.stride, tiling.halo
    own = request.overlap is not None or request.window_shape not in ("auto", "crop")
    if halo is None or own or request.tolerance == 0:
        return tiling, 0.0
    if max(image.shape[1:]) <= tile or cost_factor(tile, Sides(halo, halo, halo, halo)) <= request.max_cost:
        return tiling, 0.0
    less = _halo(model, image, request, tiling, compute)
    if less is None:
        # Tiles that see too little differ near their edges; a window that fades hides the jump that crop windows would
        # show.
        return replace(tiling, overlap=tile // 2 // stride * stride, window="gaussian"), 0.0
    return replace(tiling, overlap=2 * less, window="crop"), request.tolerance


def _halo(model: Model, image: Source, request: Request, tiling: Tiling, compute: Compute) -> int | None:
    """Return the smallest halo (pixels) that keeps the tolerance within the cost; None if there is none."""
    from tilepipe.models.identity import model_identity

    stride, compute = tiling.stride, Compute(compute.device, "fp64" if compute.precision == "fp64" else "fp32")
    # A patch has a side of four margins and two strides (`_side`) and must lie inside the image.
    fits = (min(image.shape[1:]) - 2 * stride) // (4 * stride) * stride
    # With margin m on each side of a tile of t pixels, one pass costs t^2 / (t - 2m)^2: this is the largest m that
    # keeps within max_cost.
    margin = min(int(tiling.tile * (1 - 1 / math.sqrt(request.max_cost)) / 2) // stride * stride, fits)
    if margin < stride:
        return None
    seen = hashlib.sha256()
    for patch in patches(image, _side(margin, stride)):  # the measured errors depend on these patches alone
        seen.update(patch.tobytes())
    key = json.dumps(
        [model_identity(model, compute.device, compute.precision), seen.hexdigest(), image.shape, margin, stride]
    )
    if key not in _MEASURED:
        _MEASURED[key] = _measure(model, image, margin, stride, compute)
    errors = _MEASURED[key]
    return None if errors is None else errors.halo(request.tolerance, stride)


def _measure(model: Model, image: Source, margin: int, stride: int, compute: Compute) -> EdgeErrors | None:
    """Return the errors that a cut makes in patches of the image; None if every patch has pixels without image data."""
    from tilepipe.inference.profile.edge_errors import model_errors

    with suppress(ModelError):
        return model_errors(model, patches(image, _side(margin, stride)), margin, stride, compute)
    return None


def _side(margin: int, stride: int) -> int:
    # Cutting a margin off on both sides must leave pixels at every distance up to one stride beyond the largest halo
    # that is tried; `EdgeErrors.halo` needs that much.
    return 4 * margin + 2 * stride


def patches(image: Source, side: int) -> Iterator[Pixels]:
    """Yield up to `PATCHES` patches of `side` x `side` pixels, image data only, at places fixed by the image's size."""
    _, height, width = image.shape
    # The seed is made from text: unlike hash(), it is the same in every process.
    random = Random(f"{height} {width} {side}")
    for _ in range(PATCHES):
        for _ in range(DRAWS):
            y, x = random.randint(0, height - side), random.randint(0, width - side)
            box = Box(y, x, y + side, x + side)
            with suppress(InputError):  # a part of the image cannot be read; the run will say so
                valid = image.valid(box)
                if valid is None or valid.all():
                    yield image.read(box)
                    break
