"""This module takes the field of statistics: the statistics of patches of the image, on a grid fixed to the image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from tilepipe.arrays import Pixels
from tilepipe.box import Box
from tilepipe.errors import InputError, ModelError
from tilepipe.execution.filled_image import FilledImage
from tilepipe.execution.model_watch import NO_WATCH, ModelWatch
from tilepipe.execution.trials import Trials
from tilepipe.inference.predictor import Predictor
from tilepipe.inference.statistics.capture import FixedStatistics, Recorder
from tilepipe.models.model import Model
from tilepipe.planning.plan import Plan
from tilepipe.tiling.grid import Index

FIELD = "field"
"""Name of the array of statistics."""
CHUNK = 1 << 18
"""Largest number of values in a chunk of a field; a chunk is a unit of work."""
LEAST = 2.0**-20
"""Weight of a patch without image data, whose statistics are 1. It adds nothing if another patch has weight, and it
avoids NaN."""


def field_columns(plan: Plan) -> int:
    """Return how many patches of one row a unit of a field holds."""
    assert plan.statistics is not None
    return min(plan.patches.x.count, max(1, CHUNK // (sum(plan.statistics.values) + 1)))


def field_boxes(plan: Plan) -> dict[Index, Box]:
    """Return the patches of each unit of a field that the region needs; a unit is a chunk of the field's array."""
    nodes, columns, found = plan.nodes, field_columns(plan), {}
    for row in range(nodes.y0, nodes.y1):
        for chunk in range(nodes.x0 // columns, -(-nodes.x1 // columns)):
            box = Box(row, chunk * columns, row + 1, (chunk + 1) * columns) & nodes
            assert box is not None
            found[Index(row, chunk)] = box
    return found


class Patches:
    """A reader that takes statistics of patches directly from the image."""

    def __init__(
        self, plan: Plan, model: Model, image: FilledImage, watch: ModelWatch = NO_WATCH, *, stop: bool = False
    ) -> None:
        """Move the model to its device; if `stop` is True, the first patch that fails raises an error."""
        how = plan.compute
        self.grid, self.stop = plan.patches, stop
        self.image, self.batch, self.dtype = image, how.batch, how.dtype
        self.values = sum(plan.statistics.values) if plan.statistics else 0
        self.trials = Trials(model, plan, watch, stop=stop)
        self.predictor = Predictor(model, self.grid.tile_shape, how)

    def take(self, patches: Sequence[Index]) -> tuple[NDArray[np.floating], list[str]]:
        """Return the statistics and the weight of each patch, (n, values + 1), and which patches failed and why.

        The weight is the share of pixels that hold image data. A patch has no weight if it holds no image data, if it
        cannot be read, or if the model fails on it.
        """
        # The values are ones and not zeros, since a variance of zero would be divided by.
        found = np.ones((len(patches), self.values + 1), self.dtype)
        found[:, -1] = LEAST
        failed: list[str] = []
        rest = self._read(patches, failed)
        while group := list(islice(rest, self.batch)):
            boxes = [self.grid.tile_box(patches[k]) for k, _, _ in group]
            # No statistics are put in here: a patch is computed with its own, which is what is recorded.
            seen = self.trials.of(self._observed, [pixels for _, pixels, _ in group], boxes, lambda _: None)
            for (k, _, weight), values in zip(group, seen, strict=True):
                if isinstance(values, str):
                    failed.append(values)
                else:
                    found[k] = np.append(values, weight)
        return found, failed

    def _observed(self, tiles: Pixels, _under: FixedStatistics | None) -> NDArray[np.floating]:
        """Return the statistics of each patch, (n, values)."""
        recorder = Recorder()
        self.predictor.observe(tiles, recorder)
        found = recorder.values()[: len(tiles)]  # the predictor may have filled up the batch
        if not np.isfinite(found).all():
            raise ModelError(f"{self.predictor.model.name} gives NaN or infinite statistics")
        return found

    def _read(self, patches: Sequence[Index], failed: list[str]) -> Iterator[tuple[int, Pixels, float]]:
        for k, patch in enumerate(patches):
            box = self.grid.tile_box(patch)
            # The mask is asked first, so that no pixels are read for a patch that counts for nothing.
            if not self.image.seen(box).any():
                continue
            try:
                pixels, valid = self.image.read(box)
            except InputError as error:
                if self.stop:
                    raise
                failed.append(str(error))
                continue
            # Only the pixels show which of them are no numbers, and these count as missing.
            if valid.any():
                yield k, pixels, float(valid.mean())
