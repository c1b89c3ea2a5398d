"""Compares the labels on disk with one pass over the whole image, which is computed in bands of rows."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from tilepipe.box import Box
from tilepipe.errors import UsageError
from tilepipe.evaluation.metrics.seams import Flips
from tilepipe.evaluation.verify.recompute import Passes
from tilepipe.evaluation.verify.stored import Keeper
from tilepipe.events import Event, Listener
from tilepipe.inference.banded.stream import Stream

BAND = 128
"""Least number of rows of a band; thinner bands waste time where the network has subsampled them to a row or two."""
SIDE = 64
"""Least side of the tile whose graph is taken (pixels)."""


@dataclass(frozen=True)
class OnePass:
    """The labels on disk, compared with one pass over the whole image."""

    flips: Flips
    """Number of labels compared, and of those that differ."""
    beyond: int
    """Number of those that differ although the pass's best two classes lie further apart than rounding explains."""


def one_pass(passes: Passes, keeper: Keeper, limit: float, listener: Listener) -> OnePass:
    """Return how the labels of a run differ from one pass over the whole image.

    `limit` is the difference in probability that the run's claim allows. Memory holds a band over the whole width of
    the prediction grid, and what the network keeps of the rows above it.

    The pass uses the statistics that the run holds fixed, if it does. Raises `UsageError` if tiles of the run failed.
    Raises `ModelError` if an operation cannot be computed in bands.
    """
    plan = passes.job.plan
    if passes.lenient:
        raise UsageError(
            "tiles of this run failed, and one pass over the whole image needs every pixel; leave out `whole`"
        )
    stride, region = plan.tiling.stride, plan.predicted_region
    band, (height, width) = math.lcm(stride, BAND), (plan.grid.y.padded, plan.grid.x.padded)
    held, compute = passes.worker.statistics, replace(plan.compute, batch=1)
    under = (lambda first, last: held.nodes(Box(first, 0, last, width))) if held else None
    stream = Stream(passes.job.model, math.lcm(stride, SIDE), compute, plan.statistics, under)
    different, compared, beyond, done = 0, 0, 0, 0
    for top in range(0, height, band):
        bottom = min(top + band, height)
        found = stream.feed(passes.worker.pixels(Box(top, 0, bottom, width)), last=bottom == height)
        if found is None:
            continue
        rows = Box(done, 0, done + found.shape[1], width)
        done = rows.y1
        if (part := rows & region) is not None:
            values = found[:, *part.slices_in(rows)]
            labels = np.where(passes.valid(part), values.argmax(0), plan.nodata).astype(plan.label_dtype)
            flips = keeper.compare(part, labels)
            different, compared = different + flips.different, compared + flips.pixels
            if flips.different:
                best = np.sort(values, axis=0)[-2:]
                # A tie may fall either way, so its pixels are taken as they lie on disk.
                sure = best[1] - best[0] > 2 * limit
                beyond += keeper.compare(part, labels, sure).different
        listener(Event("verify", done, height, message="one pass over the whole image"))
    return OnePass(Flips(compared, different), beyond)
