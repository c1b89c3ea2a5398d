"""Passes that take statistics before the tiles of a run: in units like blocks, resumable, the same for every engine.

A field is one pass over its windows. The statistics of the whole image take one pass over all tiles per operation, in
order of call, each with the operations before it held fixed; a pass ends at its operation.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tilepipe.box import Box
from tilepipe.engine.around import FIELD, WHOLE, Sums, Windows, read_whole
from tilepipe.engine.book import Queue, Work
from tilepipe.engine.pixels import Pixels
from tilepipe.engine.steps import Job
from tilepipe.events import Event, Listener
from tilepipe.grid import Index
from tilepipe.models.statistics import added_up
from tilepipe.plan import Plan
from tilepipe.store import Record, write_durably
from tilepipe.vectors import Vectors

CHUNK = 1 << 18
"""Most values in a chunk of a field, which is a unit of work."""


class Engine(Protocol):
    """Runs what is missing in a book."""

    def __call__(self, job: Job, book: Queue, *, make: Callable[[Job], Work]) -> None:
        """`make` gives the worker of a process."""


class Units:
    """A book over the chunks of an array of vectors; none waits for another."""

    def __init__(self, vectors: Vectors, boxes: dict[Index, Box], listener: Listener, message: str) -> None:
        """Compare what is there with its ledger; `boxes` are what each unit writes."""
        self.vectors, self.boxes, self.listener, self.message = vectors, boxes, listener, message
        self.ledger = vectors.ledger()
        for unit, record in self.ledger.done.items():
            vectors.check(boxes[unit], record.sha256)

    def missing(self) -> list[Index]:
        """Return the units that are not committed yet."""
        return [unit for unit in self.boxes if unit not in self.ledger.done]

    def ready(self, block: Index) -> bool:
        """Return True."""
        return True

    def givers(self, block: Index) -> tuple[Index, ...]:
        """Return nothing."""
        return ()

    def commit(self, record: Record) -> None:
        """Append to the ledger."""
        self.ledger.append(record)
        done, total = len(self.ledger.done), len(self.boxes)
        self.listener(Event("statistics", done, total, self.message, data={"failed": len(record.failed)}))


class _Unit:
    """Works on the units of a pass in one process."""

    def __init__(self, job: Job, name: str) -> None:
        assert job.directory is not None
        self.plan = job.plan
        self.vectors = Vectors(job.directory, name)
        self.image = Pixels(job.source, job.model.card.mean or (0.0,) * job.plan.bands)

    def run(self, block: Index, strips_from: Iterable[Index] = ()) -> Record:
        """Take the statistics of a unit, write them and return the line for the ledger."""
        start = time.monotonic()
        box, values, failed = self.take(block)
        return Record(block, self.vectors.write(box, values), box.area, failed, round(time.monotonic() - start, 3))

    def take(self, unit: Index) -> tuple[Box, Any, tuple[str, ...]]:
        """Return where a unit is kept, its values, and what could not be read."""
        raise NotImplementedError

    def close(self) -> None:
        """Nothing is open."""


class FieldUnit(_Unit):
    """Windows of a field: a part of one row of them."""

    def __init__(self, job: Job) -> None:
        """Open the array and move the model to its device."""
        super().__init__(job, FIELD)
        self.boxes = field_boxes(self.plan)
        self.windows = Windows(self.plan, job.model, self.image)

    def take(self, unit: Index) -> tuple[Box, Any, tuple[str, ...]]:
        """See `Windows.take`."""
        box = self.boxes[unit]
        values, failed = self.windows.take([Index(box.y0, column) for column in range(box.x0, box.x1)])
        return box, values[None], tuple(failed)


class SumsUnit(_Unit):
    """Sums for operation number `number` over the tiles of a block."""

    def __init__(self, job: Job, number: int) -> None:
        """Open the array and move the model to its device."""
        super().__init__(job, sums_name(number))
        assert job.directory is not None
        assert job.plan.statistics is not None
        self.known = read_whole(job.directory)[: sum(job.plan.statistics.values[:number])]
        self.sums = Sums(self.plan, job.model, self.image)

    def take(self, unit: Index) -> tuple[Box, Any, tuple[str, ...]]:
        """See `Sums.of_block`."""
        return _one(unit), self.sums.of_block(unit, self.known)[None, None], ()


def sums_name(number: int) -> str:
    """Return the name of the array of a pass over the whole image."""
    return f"sums{number}"


def _columns(plan: Plan) -> int:
    assert plan.statistics is not None
    return min(plan.windows.x.count, max(1, CHUNK // (sum(plan.statistics.values) + 1)))


def field_boxes(plan: Plan) -> dict[Index, Box]:
    """Return the windows of each unit of a field, a chunk of its array, as far as the region needs them."""
    nodes, columns, found = plan.nodes, _columns(plan), {}
    for row in range(nodes.y0, nodes.y1):
        for chunk in range(nodes.x0 // columns, -(-nodes.x1 // columns)):
            box = Box(row, chunk * columns, row + 1, (chunk + 1) * columns) & nodes
            assert box is not None
            found[Index(row, chunk)] = box
    return found


def take_statistics(job: Job, engine: Engine, listener: Listener) -> list[str]:
    """Take the statistics that the tiles of a job need, as far as its directory does not hold them.

    Returns what could not be read and why: windows of a field count for nothing there. Raises `InputError` where
    the statistics of the whole image cannot be had.
    """
    plan, directory = job.plan, job.directory
    assert directory is not None
    if plan.statistics is None:
        return []
    if plan.statistics.kind == "whole":
        for number, values in enumerate(plan.statistics.values):
            _take_sums(job, engine, listener, (directory, number, values))
        return []
    grid, columns = plan.windows, _columns(plan)
    shape = grid.y.count, grid.x.count, sum(plan.statistics.values) + 1
    book = Units(
        Vectors.create(directory, FIELD, shape, columns, plan.compute.dtype), field_boxes(plan), listener, "statistics"
    )
    engine(job, book, make=FieldUnit)
    return [problem for record in book.ledger.done.values() for problem in record.failed]


def _take_sums(job: Job, engine: Engine, listener: Listener, of: tuple[Path, int, int]) -> None:
    """Make one pass over the whole image and add its statistics to those that are known."""
    directory, number, values = of
    statistics, grid = job.plan.statistics, job.plan.grid
    assert statistics is not None
    known, before = read_whole(directory), sum(statistics.values[:number])
    if len(known) > before:
        return
    blocks = {block: _one(block) for block in grid.blocks_over(Box.of_shape(*grid.shape))}
    shape = grid.y.blocks, grid.x.blocks, values + 2
    vectors = Vectors.create(directory, sums_name(number), shape, 1, "float64")
    message = f"statistics of layer {number + 1} of {len(statistics.values)}"
    engine(job, Units(vectors, blocks, listener, message), make=partial(SumsUnit, number=number))
    found = added_up(np.concatenate([vectors.read(box)[0] for box in blocks.values()]))
    write_durably(directory / WHOLE, json.dumps({"values": np.append(known, found).tolist()}))


def _one(block: Index) -> Box:
    return Box(block.row, block.column, block.row + 1, block.column + 1)
