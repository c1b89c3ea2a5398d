"""This module is the specification: it runs blocks one by one. Every other executor must give the same bytes."""

from __future__ import annotations

from collections.abc import Callable

from tilepipe.execution.block import BlockWorker
from tilepipe.execution.block_queue import Queue, Work
from tilepipe.execution.job import Job


def run(job: Job, queue: Queue, *, make: Callable[[Job], Work] = BlockWorker) -> None:
    """Compute the blocks, or units of another kind of work, that are missing in `queue`."""
    worker = make(job)
    try:
        for block in queue.missing():
            queue.commit(worker.run(block, queue.dependencies(block)))
    finally:
        worker.close()
