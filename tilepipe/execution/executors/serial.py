"""The specification: blocks one after the other. Every other engine must give the same bytes."""

from __future__ import annotations

from collections.abc import Callable

from tilepipe.execution.block import Worker
from tilepipe.execution.block_queue import Queue, Work
from tilepipe.execution.job import Job


def run(job: Job, book: Queue, *, make: Callable[[Job], Work] = Worker) -> None:
    """Compute the blocks, or units of another kind of work, that are missing in the book."""
    worker = make(job)
    try:
        for block in book.missing():
            book.commit(worker.run(block, book.givers(block)))
    finally:
        worker.close()
