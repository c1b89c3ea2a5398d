"""This module provides the statistics that the model's global operations use at a tile.

They come from a grid fixed to the image, or from the whole image. A run takes them once, before its tiles (see
`passes`), and keeps them on disk. A region takes the statistics that its tiles need when they need them, in the same
way and with the same batch shape, so they are the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tilepipe.box import Box
from tilepipe.errors import StorageError
from tilepipe.execution.filled_image import FilledImage
from tilepipe.execution.ledger import AGAIN, read_records
from tilepipe.execution.statistics.field import FIELD, Patches, field_boxes, field_columns
from tilepipe.execution.statistics.statistics_array import open_statistics
from tilepipe.execution.statistics.whole_image import Constant, read_whole, whole_image
from tilepipe.inference.statistics.capture import Nodes
from tilepipe.models.model import Model
from tilepipe.planning.plan import Plan
from tilepipe.tiling.grid import Index
from tilepipe.tiling.statistics_grid import nodes_of


class StatisticsProvider(Protocol):
    """A source of statistics for tiles."""

    def nodes(self, box: Box) -> Nodes:
        """Return the statistics around a tile at `box`."""


class OnDemand:
    """A provider that takes statistics when they are needed, each once, and keeps them in memory."""

    def __init__(self, patches: Patches) -> None:
        """Start without statistics."""
        self.patches = patches
        self._known: dict[Index, NDArray[np.floating]] = {}

    def nodes(self, box: Box) -> Nodes:
        """Return the statistics around a tile at `box`."""
        at = nodes_of(self.patches.grid, box)
        wanted = [Index(row, column) for row in range(at.y0, at.y1) for column in range(at.x0, at.x1)]
        # Tiles share most of their patches with their neighbours.
        missing = [patch for patch in wanted if patch not in self._known]
        self._known.update(zip(missing, self.patches.take(missing)[0], strict=True))
        values = np.stack([self._known[patch] for patch in wanted])
        return Nodes(box, self.patches.grid, at, values.reshape(*at.shape, -1))


class Stored:
    """A provider that reads the statistics that a run has on disk."""

    def __init__(self, plan: Plan, directory: Path) -> None:
        """Open the statistics; the pass that takes them comes before the tiles."""
        self.grid, self.array = plan.patches, open_statistics(directory, FIELD)
        self.units, self.columns = field_boxes(plan), field_columns(plan)
        # The ledger is read once: the pass was over before the first tile began.
        self.done, _ = read_records(directory / f"{FIELD}.jsonl")

    def nodes(self, box: Box) -> Nodes:
        """Return the statistics around a tile at `box`. Raises `StorageError` if they differ from the ledger."""
        at = nodes_of(self.grid, box)
        return Nodes(box, self.grid, at, np.concatenate([self._row(row, at) for row in range(at.y0, at.y1)]))

    def _row(self, row: int, at: Box) -> NDArray[np.floating]:
        """Return the columns of `at` from one row of patches, (1, at.width, values + 1)."""
        chunks = [Index(row, k) for k in range(at.x0 // self.columns, -(-at.x1 // self.columns))]
        if missing := [unit for unit in chunks if unit not in self.done]:
            raise StorageError(f"the statistics at {tuple(missing[0])} are not in {self.array.top}; {AGAIN}")
        parts = [self.array.checked(self.done[unit].sha256, self.units[unit]) for unit in chunks]
        first = self.units[chunks[0]].x0
        return np.asarray(np.concatenate(parts, axis=1)[:, at.x0 - first : at.x1 - first])


def provider_of(
    plan: Plan, model: Model, image: FilledImage, directory: Path | None, *, stop: bool = False
) -> StatisticsProvider | None:
    """Return the provider of statistics: the run's own if it has a directory; None if tiles use their own statistics.

    If `stop` is True, the first patch that fails raises an error.
    """
    if plan.statistics is None:
        return None
    if plan.statistics.kind == "whole":
        count = sum(plan.statistics.values)
        return Constant(plan, read_whole(directory, count) if directory else whole_image(plan, model, image))
    return Stored(plan, directory) if directory else OnDemand(Patches(plan, model, image, stop=stop))
