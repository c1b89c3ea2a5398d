"""This module takes the statistics of the whole image: sums over the cores of all tiles, one pass per operation."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tilepipe.arrays import Pixels
from tilepipe.box import Box
from tilepipe.errors import ModelError, StorageError
from tilepipe.execution.filled_image import FilledImage
from tilepipe.execution.ledger import AGAIN
from tilepipe.execution.model_watch import NO_WATCH, ModelWatch
from tilepipe.execution.trials import Found, Trials
from tilepipe.inference.predictor import Predictor
from tilepipe.inference.statistics.capture import FixedStatistics, Nodes, Summer
from tilepipe.inference.statistics.operations import added_up
from tilepipe.models.model import Model
from tilepipe.planning.plan import Plan
from tilepipe.storage import read_json
from tilepipe.text import setting
from tilepipe.tiling.grid import Index

WHOLE = "whole.json"
"""Name of the file with the statistics of the whole image, beside the ledger."""
NEEDS_ALL = f"the statistics of the whole image take every tile; {setting(statistics='field')} leaves such a place out"


class Constant:
    """A provider of the statistics of the whole image, which are the same for every tile."""

    def __init__(self, plan: Plan, values: NDArray[np.float64]) -> None:
        """Keep `values`, the statistics of the first operations, or of all operations."""
        self.grid = plan.patches
        self.values = np.append(values, 1).astype(plan.compute.dtype)[None, None]

    def nodes(self, box: Box) -> Nodes:
        """Return the whole-image statistics, which are the same for every `box`."""
        return Nodes(box, self.grid, Box.of_shape(1, 1), self.values)


class MomentSums:
    """A worker that sums what an operation sees over the cores of tiles; the operations before it have fixed
    statistics."""

    def __init__(self, plan: Plan, model: Model, image: FilledImage, watch: ModelWatch = NO_WATCH) -> None:
        """Move the model to its device."""
        self.plan, self.image = plan, image
        # A tile left out would change the statistics, and so the labels everywhere.
        self.trials = Trials(model, plan, watch, stop=True)
        self.predictor = Predictor(model, plan.grid.tile_shape, plan.compute)

    def of_block(self, block: Index, known: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sums for the operation after those whose statistics are known; see `Summer`.

        Raises `InputError` if a tile cannot be read, `ModelError` if the model fails on one: without this tile the
        statistics would not be of the whole image.
        """
        grid, found, same = self.plan.grid, list[Found](), Constant(self.plan, known)
        # Tiles overlap, so only their cores are summed: each pixel counts once.
        cores = {grid.tile_box(tile): grid.kept_box(tile) for tile in grid.tiles_of(block)}
        boxes = iter(cores)

        def summer(boxes: Sequence[Box]) -> Summer:
            return Summer([same.nodes(box) for box in boxes], [cores[box] for box in boxes])

        while group := list(islice(boxes, self.plan.compute.batch)):
            try:
                found += self.trials.of(self._summed, [self.image.read(box)[0] for box in group], group, summer)
            except ModelError as error:
                raise ModelError(f"{error}; {NEEDS_ALL}") from error
        total: NDArray[np.float64] = np.stack(found).sum(0)
        return total

    def _summed(self, tiles: Pixels, summer: FixedStatistics | None) -> NDArray[np.float64]:
        """Return the sums of what the operation sees over the cores of tiles, (n, values + 2)."""
        assert isinstance(summer, Summer)
        self.predictor.observe(tiles, summer)
        found: NDArray[np.float64] = np.stack(summer.found)
        if not np.isfinite(found).all():
            raise ModelError(f"{self.predictor.model.name} gives NaN or infinite statistics")
        return found


def whole_image(plan: Plan, model: Model, image: FilledImage) -> NDArray[np.float64]:
    """Return the statistics of the whole image, (values,): one pass over its tiles per operation."""
    known, sums = np.zeros(0), MomentSums(plan, model, image)
    blocks = list(plan.grid.blocks_over(Box.of_shape(*plan.predicted)))
    for _ in plan.statistics.values if plan.statistics else ():
        # Sums are taken block by block, as a run takes them: a sum of floats depends on its order.
        known = np.append(known, added_up(np.stack([sums.of_block(block, known) for block in blocks])))
    return known


def whole_so_far(directory: Path) -> NDArray[np.float64]:
    """Return the whole-image statistics that a run has so far, (values,); an empty array if they were damaged."""
    try:
        return np.array(read_json(directory / WHOLE)["values"], np.float64)
    except StorageError:
        return np.zeros(0)


def read_whole(directory: Path, count: int) -> NDArray[np.float64]:
    """Return the first `count` whole-image statistics that a run has taken. Raises `StorageError`."""
    known = whole_so_far(directory)
    if len(known) < count:
        raise StorageError(f"{directory / WHOLE} is missing or damaged; {AGAIN}")
    return known[:count]
