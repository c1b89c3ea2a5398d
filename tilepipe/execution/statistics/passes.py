"""This module takes statistics before the tiles of a run, in passes made of units; units are resumable, like blocks.

A field is one pass over its patches. The statistics of the whole image take one pass over all tiles per operation, in
the order in which the operations are called. In each pass the statistics of the earlier operations are fixed, and the
pass ends at its own operation. Every executor gives the same result.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

import numpy as np

from tilepipe.arrays import Array
from tilepipe.box import Box
from tilepipe.errors import StorageError
from tilepipe.events import Event, Listener
from tilepipe.execution.block_queue import Queue, Work
from tilepipe.execution.durable_array import DurableArray, Layout
from tilepipe.execution.filled_image import FilledImage
from tilepipe.execution.job import FAIL, Job
from tilepipe.execution.ledger import Ledger, Record
from tilepipe.execution.model_watch import PATCHES, TILES, watch_of
from tilepipe.execution.statistics.field import FIELD, Patches, field_boxes, field_columns
from tilepipe.execution.statistics.statistics_array import create_statistics, open_statistics
from tilepipe.execution.statistics.whole_image import WHOLE, MomentSums, read_whole, whole_so_far
from tilepipe.inference.statistics.operations import added_up
from tilepipe.storage import write_json
from tilepipe.tiling.grid import Index


class Engine(Protocol):
    """A function that runs the missing units of a queue."""

    def __call__(self, job: Job, queue: Queue, *, make: Callable[[Job], Work]) -> None:
        """Run the missing units; `make` returns the worker of a process."""


class Units:
    """A queue over the chunks of an array of statistics; no unit waits for another."""

    def __init__(
        self, array: DurableArray, ledger: Ledger, boxes: dict[Index, Box], listener: Listener, message: str
    ) -> None:
        """Compare the stored units with the ledger; `boxes` says where each unit writes. Damaged ones are redone."""
        self.array, self.ledger = array, ledger
        self.boxes, self.listener, self.message = boxes, listener, message
        lost = [unit for unit in self.ledger.done if unit not in boxes or not self._as_written(unit)]
        if lost:
            self.ledger.forget(lost)
        if lost or self.ledger.damaged:
            listener(Event("statistics", message="statistics kept on disk were damaged; they are taken again"))

    def read(self, unit: Index) -> Array:
        """Return what a unit has written. Raises `StorageError` if the values have changed since."""
        return self.array.checked(self.ledger.done[unit].sha256, self.boxes[unit])

    def _as_written(self, unit: Index) -> bool:
        try:
            self.read(unit)
        except StorageError:
            return False
        return True

    def missing(self) -> list[Index]:
        """Return the units that are not committed yet."""
        return [unit for unit in self.boxes if unit not in self.ledger.done]

    def ready(self, block: Index) -> bool:
        """Return True, since no unit waits for another."""
        return True

    def later(self, block: Index) -> list[Index]:
        """Return no units."""
        return []

    def dependencies(self, block: Index) -> tuple[Record, ...]:
        """Return no records."""
        return ()

    def commit(self, record: Record) -> None:
        """Append the record to the ledger."""
        self.ledger.append(record)
        done, total = len(self.ledger.done), len(self.boxes)
        self.listener(Event("statistics", done, total, self.message, data={"failed": len(record.failed)}))

    def say(self, message: str) -> None:
        """Tell the listener a sentence about the work."""
        self.listener(Event("statistics", len(self.ledger.done), len(self.boxes), message))


class _Unit:
    """A worker on the units of a pass in one process."""

    def __init__(self, job: Job, name: str) -> None:
        assert job.directory is not None
        self.plan = job.plan
        self.array = open_statistics(job.directory, name)
        self.image = FilledImage(job.source, job.model.card.mean or (0.0,) * job.plan.bands)

    def run(self, block: Index, strips_from: Iterable[Record] = ()) -> Record:
        """Take the statistics of a unit, write them and return the line for the ledger."""
        start = time.monotonic()
        box, values, failed = self.take(block)
        return Record(block, self.array.write(values, box), box.area, failed, round(time.monotonic() - start, 3))

    def take(self, unit: Index) -> tuple[Box, Array, tuple[str, ...]]:
        """Return the box that a unit is stored in, its values, and what failed."""
        raise NotImplementedError

    def close(self) -> None:
        """Do nothing, since nothing is open."""


class FieldUnit(_Unit):
    """A worker that takes the statistics of patches of a field; a unit is a part of one row of patches."""

    def __init__(self, job: Job) -> None:
        """Open the array and move the model to its device."""
        super().__init__(job, FIELD)
        self.boxes = field_boxes(self.plan)
        self.patches = Patches(self.plan, job.model, self.image, watch_of(job, PATCHES), stop=job.on_tile_error == FAIL)

    def take(self, unit: Index) -> tuple[Box, Array, tuple[str, ...]]:
        """Take the statistics of a unit; see `Patches.take`."""
        box = self.boxes[unit]
        values, failed = self.patches.take([Index(box.y0, column) for column in range(box.x0, box.x1)])
        return box, values[None], tuple(failed)


class SumsUnit(_Unit):
    """A worker that takes sums for operation number `number` over the tiles of a block."""

    def __init__(self, job: Job, number: int) -> None:
        """Open the array and move the model to its device."""
        super().__init__(job, sums_name(number))
        assert job.directory is not None
        assert job.plan.statistics is not None
        self.known = read_whole(job.directory, sum(job.plan.statistics.values[:number]))
        self.sums = MomentSums(self.plan, job.model, self.image, watch_of(job, TILES))

    def take(self, unit: Index) -> tuple[Box, Array, tuple[str, ...]]:
        """Take the sums of a unit; see `MomentSums.of_block`."""
        return _one(unit), self.sums.of_block(unit, self.known)[None, None], ()


def sums_name(number: int) -> str:
    """Return the name of the array of a pass over the whole image."""
    return f"sums{number}"


def take_statistics(job: Job, engine: Engine, listener: Listener) -> list[str]:
    """Take the statistics that the tiles of a job need and that its directory does not hold yet.

    Returns which patches could not be read and why; they have no weight in a field. Raises `InputError` if the
    statistics of the whole image cannot be taken.
    """
    plan, directory = job.plan, job.directory
    assert directory is not None
    if plan.statistics is None:
        return []
    if plan.statistics.kind == "whole":
        for number in range(len(plan.statistics.values)):
            _take_sums(job, engine, listener, number)
        return []
    grid, columns = plan.patches, field_columns(plan)
    values = sum(plan.statistics.values) + 1
    # A unit of work is one chunk, so each chunk has one writer.
    layout = Layout((grid.y.count, grid.x.count, values), (1, columns, values), plan.compute.dtype)
    queue = Units(*create_statistics(directory, FIELD, layout), field_boxes(plan), listener, "statistics")
    engine(job, queue, make=FieldUnit)
    return [problem for record in queue.ledger.done.values() for problem in record.failed]


def _take_sums(job: Job, engine: Engine, listener: Listener, number: int) -> None:
    """Make one pass over the whole image for operation `number`, and add its statistics to the known ones."""
    directory, statistics, grid = job.directory, job.plan.statistics, job.plan.grid
    assert directory is not None
    assert statistics is not None
    # Each operation sees the output of the ones before it, so the passes come one after the other. Each pass is kept,
    # so an interrupted run does not repeat it.
    known, before = whole_so_far(directory), sum(statistics.values[:number])
    if len(known) > before:
        return
    blocks = {block: _one(block) for block in grid.blocks_over(Box.of_shape(*grid.shape))}
    sums = statistics.values[number] + 2
    # Sums over a whole image would have too few digits in float32.
    layout = Layout((grid.y.blocks, grid.x.blocks, sums), (1, 1, sums), "float64")
    message = f"statistics of layer {number + 1} of {len(statistics.values)}"
    units = Units(*create_statistics(directory, sums_name(number), layout), blocks, listener, message)
    engine(job, units, make=partial(SumsUnit, number=number))
    # A sum of floats depends on its order, so blocks are added in the order of the grid and not as they were computed.
    found = added_up(np.concatenate([units.read(block)[0] for block in blocks]))
    write_json(directory / WHOLE, {"values": np.append(known, found).tolist()})


def _one(block: Index) -> Box:
    return Box(block.row, block.column, block.row + 1, block.column + 1)
