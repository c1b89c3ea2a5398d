"""This module runs blocks in threads of this process: no cluster is started, and nothing listens."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from tilepipe.execution.block_queue import Queue, Work
from tilepipe.execution.executors.front import Front
from tilepipe.execution.job import Job
from tilepipe.execution.ledger import Record
from tilepipe.tiling.grid import Index


def run(job: Job, queue: Queue, missing: list[Index], make: Callable[[Job], Work]) -> None:
    """Compute the blocks `missing`, in this order as far as earlier neighbours allow, in `job.plan.compute.in_flight`
    threads.

    `make` gives the worker. An error of a block is raised here; finished blocks stay committed.
    """
    front, running = Front(queue, missing), dict[Future[Record], Index]()
    most, worker = job.plan.compute.in_flight, make(job)
    pool = ThreadPoolExecutor(most, thread_name_prefix="block")
    try:
        while front or running:
            for block in front.take(most - len(running)):
                running[pool.submit(worker.run, block, queue.dependencies(block))] = block
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                block = running.pop(future)
                queue.commit(future.result())
                front.committed(block)
    finally:
        # A closed worker reads no further tile, so after an error or Ctrl-C the blocks in work end soon.
        worker.close()
        pool.shutdown(cancel_futures=True)
