"""This module runs blocks where the user wants them: in this process, in worker processes, or on a Dask scheduler."""

from __future__ import annotations

from collections.abc import Callable

from tilepipe.execution.block import BlockWorker
from tilepipe.execution.block_queue import Queue, Work
from tilepipe.execution.executors import threads
from tilepipe.execution.job import Job
from tilepipe.tiling.grid import Index


def run(
    job: Job,
    queue: Queue,
    scheduler: str | None = None,
    order: Callable[[list[Index]], list[Index]] = list,
    *,
    make: Callable[[Job], Work] = BlockWorker,
) -> None:
    """Compute the blocks that are missing in the queue, in `order` as far as earlier neighbours allow.

    `make` gives a process its worker, for blocks or for units of another kind. The blocks run on the scheduler at the
    address `scheduler`, else in `job.plan.compute.workers` processes (0: in threads of this process). An error of a
    block is raised here; finished blocks stay committed.
    """
    missing = order(queue.missing())
    # A cluster takes time to start, and a run that is resumed may have nothing left to do.
    if not missing:
        return
    if scheduler is None and not job.plan.compute.workers:
        threads.run(job, queue, missing, make)
        return
    # Importing distributed takes half a second, which a run in this process does without.
    from tilepipe.execution.executors import dask

    dask.run(job, queue, missing, scheduler, make)
