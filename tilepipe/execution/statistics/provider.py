"""StatisticsProvider: the statistics that the model's global operations take at a tile, from a grid fixed to the image.

A run takes them once, before its tiles (see `passes`), and keeps them on disk. A region takes those that its tiles need
when they need them, in the same way and with the same batch shape, so they are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tilepipe.arrays import Pixels
from tilepipe.box import Box
from tilepipe.errors import InputError, ModelError, StorageError
from tilepipe.execution.filled_image import FilledImage
from tilepipe.execution.ledger import AGAIN, read_records
from tilepipe.execution.statistics.statistics_array import open_statistics
from tilepipe.execution.trials import Found, Trials
from tilepipe.inference.predictor import Predictor
from tilepipe.inference.statistics.capture import FixedStatistics, Nodes, Recorder, Summer, added_up
from tilepipe.models.model import Model
from tilepipe.planning.plan import Plan
from tilepipe.storage import read_json
from tilepipe.tiling.grid import Index
from tilepipe.tiling.statistics_grid import nodes_of

FIELD = "field"
"""Name of the array of statistics."""
WHOLE = "whole.json"
"""Statistics of the whole image, beside the ledger."""
CHUNK = 1 << 18
"""Most values in a chunk of a field, which is a unit of work."""
NEEDS_ALL = "the statistics of the whole image take every tile; --statistics field leaves such a place out"
LEAST = 2.0**-20
"""Weight of a window without image data, with statistics 1: nothing where another window has a say, and no NaN."""


def field_columns(plan: Plan) -> int:
    """Return how many windows of a row a unit of a field holds."""
    assert plan.statistics is not None
    return min(plan.windows.x.count, max(1, CHUNK // (sum(plan.statistics.values) + 1)))


def field_boxes(plan: Plan) -> dict[Index, Box]:
    """Return the windows of each unit of a field, a chunk of its array, as far as the region needs them."""
    nodes, columns, found = plan.nodes, field_columns(plan), {}
    for row in range(nodes.y0, nodes.y1):
        for chunk in range(nodes.x0 // columns, -(-nodes.x1 // columns)):
            box = Box(row, chunk * columns, row + 1, (chunk + 1) * columns) & nodes
            assert box is not None
            found[Index(row, chunk)] = box
    return found


class StatisticsProvider(Protocol):
    """Where statistics come from."""

    def nodes(self, box: Box) -> Nodes:
        """Return the statistics around a tile at `box`."""


class Windows:
    """Takes statistics of windows of the image, live."""

    def __init__(self, plan: Plan, model: Model, image: FilledImage, *, stop: bool = False) -> None:
        """Move the model to its device; with `stop` the first window that fails raises."""
        how = plan.compute
        self.grid, self.stop = plan.windows, stop
        self.image, self.batch, self.dtype = image, how.batch, how.dtype
        self.values = sum(plan.statistics.values) if plan.statistics else 0
        self.trials = Trials(model, plan, stop=stop)
        self.predictor = Predictor(model, self.grid.tile_shape, how)

    def take(self, windows: Sequence[Index]) -> tuple[NDArray[np.floating], list[str]]:
        """Return the statistics and the weight of each window, (n, values + 1), and which failed and why.

        The weight is the share of pixels that hold image data; windows without any, that cannot be read, or that the
        model fails on, count for nothing.
        """
        found = np.ones((len(windows), self.values + 1), self.dtype)
        found[:, -1] = LEAST
        failed: list[str] = []
        rest = self._read(windows, failed)
        while group := list(islice(rest, self.batch)):
            boxes = [self.grid.tile_box(windows[k]) for k, _, _ in group]
            seen = self.trials.of(self._observed, [pixels for _, pixels, _ in group], boxes, lambda _: None)
            for (k, _, weight), values in zip(group, seen, strict=True):
                if isinstance(values, str):
                    failed.append(values)
                else:
                    found[k] = np.append(values, weight)
        return found, failed

    def _observed(self, tiles: Pixels, _under: FixedStatistics | None) -> NDArray[np.floating]:
        """Return the statistics of each window, (n, values)."""
        recorder = Recorder()
        self.predictor.observe(tiles, recorder)
        found = recorder.values()[: len(tiles)]  # the batch may be filled up
        if not np.isfinite(found).all():
            raise ModelError(f"{self.predictor.model.name} gives NaN or infinite statistics")
        return found

    def _read(self, windows: Sequence[Index], failed: list[str]) -> Iterator[tuple[int, Pixels, float]]:
        for k, window in enumerate(windows):
            box = self.grid.tile_box(window)
            if not self.image.seen(box).any():
                continue
            try:
                pixels, valid = self.image.read(box)
            except InputError as error:
                if self.stop:
                    raise
                failed.append(str(error))
                continue
            if valid.any():
                yield k, pixels, float(valid.mean())


class OnDemand:
    """Statistics taken when they are needed, each once, in memory."""

    def __init__(self, windows: Windows) -> None:
        """Begin with none."""
        self.windows = windows
        self._known: dict[Index, NDArray[np.floating]] = {}

    def nodes(self, box: Box) -> Nodes:
        """Return the statistics around a tile at `box`."""
        at = nodes_of(self.windows.grid, box)
        wanted = [Index(row, column) for row in range(at.y0, at.y1) for column in range(at.x0, at.x1)]
        missing = [window for window in wanted if window not in self._known]
        self._known.update(zip(missing, self.windows.take(missing)[0], strict=True))
        values = np.stack([self._known[window] for window in wanted])
        return Nodes(box, self.windows.grid, at, values.reshape(*at.shape, -1))


class Stored:
    """Statistics that a run has on disk."""

    def __init__(self, plan: Plan, directory: Path) -> None:
        """Open them; the pass that takes them comes before the tiles."""
        self.grid, self.array = plan.windows, open_statistics(directory, FIELD)
        self.units, self.columns = field_boxes(plan), field_columns(plan)
        self.done, _ = read_records(directory / f"{FIELD}.jsonl")

    def nodes(self, box: Box) -> Nodes:
        """Return the statistics around a tile at `box`. Raises `StorageError` when they are not those in the ledger."""
        at = nodes_of(self.grid, box)
        return Nodes(box, self.grid, at, np.concatenate([self._row(row, at) for row in range(at.y0, at.y1)]))

    def _row(self, row: int, at: Box) -> NDArray[np.floating]:
        """Return the columns of `at` of one row of windows, (1, at.width, values + 1)."""
        chunks = [Index(row, k) for k in range(at.x0 // self.columns, -(-at.x1 // self.columns))]
        if missing := [unit for unit in chunks if unit not in self.done]:
            raise StorageError(f"the statistics at {tuple(missing[0])} are not in {self.array.run}; {AGAIN}")
        parts = [self.array.checked(self.done[unit].sha256, self.units[unit]) for unit in chunks]
        first = self.units[chunks[0]].x0
        return np.asarray(np.concatenate(parts, axis=1)[:, at.x0 - first : at.x1 - first])


class Constant:
    """Statistics of the whole image, the same for every tile."""

    def __init__(self, plan: Plan, values: NDArray[np.float64]) -> None:
        """`values` are those of the first operations, or of all."""
        self.grid = plan.windows
        self.values = np.append(values, 1).astype(plan.compute.dtype)[None, None]

    def nodes(self, box: Box) -> Nodes:
        """Return them."""
        return Nodes(box, self.grid, Box.of_shape(1, 1), self.values)


class MomentSums:
    """Adds up what an operation sees over the cores of tiles, the operations before it held fixed."""

    def __init__(self, plan: Plan, model: Model, image: FilledImage) -> None:
        """Move the model to its device."""
        self.plan, self.image = plan, image
        self.trials = Trials(model, plan, stop=True)
        self.predictor = Predictor(model, plan.grid.tile_shape, plan.compute)

    def of_block(self, block: Index, known: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sums for the operation after those whose statistics are known; see `Summer`.

        Raises `InputError` where a tile cannot be read, `ModelError` where the model fails on one: the statistics would
        not be those of the whole image.
        """
        grid, found, same = self.plan.grid, list[Found](), Constant(self.plan, known)
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
        """Return what the operation sees over the cores of tiles, (n, values + 2)."""
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
        known = np.append(known, added_up(np.stack([sums.of_block(block, known) for block in blocks])))
    return known


def whole_so_far(directory: Path) -> NDArray[np.float64]:
    """Return the statistics of the whole image that a run has so far, (values,); none where they were damaged."""
    try:
        return np.array(read_json(directory / WHOLE)["values"], np.float64)
    except StorageError:
        return np.zeros(0)


def read_whole(directory: Path, count: int) -> NDArray[np.float64]:
    """Return the first `count` statistics of the whole image that a run has taken. Raises `StorageError`."""
    known = whole_so_far(directory)
    if len(known) < count:
        raise StorageError(f"{directory / WHOLE} is missing or damaged; {AGAIN}")
    return known[:count]


def provider_of(
    plan: Plan, model: Model, image: FilledImage, directory: Path | None, *, stop: bool = False
) -> StatisticsProvider | None:
    """Return where statistics come from: the run's own where it has a directory; None for tiles that take their own.

    With `stop` the first window raises that fails when it is taken.
    """
    if plan.statistics is None:
        return None
    if plan.statistics.kind == "whole":
        count = sum(plan.statistics.values)
        return Constant(plan, read_whole(directory, count) if directory else whole_image(plan, model, image))
    return Stored(plan, directory) if directory else OnDemand(Windows(plan, model, image, stop=stop))
