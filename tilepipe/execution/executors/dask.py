"""This module runs blocks as Dask tasks: in worker processes, or on a running scheduler.

A bounded number of tasks is in flight. A task is one block, or several if they are small; it writes to the store and
returns its ledger lines, so worker memory never holds results. The job is sent once to each worker process.
"""

from __future__ import annotations

import asyncio
import os
import platform
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import dask
from distributed import Client, Future, KilledWorker, Worker, WorkerPlugin, wait
from distributed.protocol.pickle import dumps, loads

from tilepipe.errors import DeviceError, TilepipeError, UsageError
from tilepipe.execution.block import BlockWorker
from tilepipe.execution.block_queue import Queue, Work
from tilepipe.execution.executors import scheduler_watch
from tilepipe.execution.executors.cluster import connected, is_kept
from tilepipe.execution.executors.code import code_here
from tilepipe.execution.executors.front import Front, Lanes
from tilepipe.execution.executors.pace import Pace
from tilepipe.execution.job import Job
from tilepipe.execution.ledger import Record
from tilepipe.inference.predictor import threads, use_threads
from tilepipe.sources.array import ArraySource
from tilepipe.sources.geotiff_gdal import rows_forgotten
from tilepipe.sources.wrapped import unwrapped
from tilepipe.supervisor import own_process
from tilepipe.text import setting
from tilepipe.tiling.grid import Index

ALLOWED_FAILURES = 10
"""Number of worker processes that a block may end: a tile that the model crashes on ends two before it is given up."""
Done = tuple[list[Record], BaseException | None]
"""Ledger lines of the blocks of a task that are done, and the error that has ended it."""
Task = Future[Done]
"""Blocks that are being computed."""
# A task names its worker by a key and carries no network.
_WORKERS: dict[str, tuple[Work, int]] = {}
"""Workers of this process, by job, and the number of threads that each computes with; tasks find their worker here."""


class _JobPlugin(WorkerPlugin):
    """A plugin that brings a job to every worker process, also to a process that joins later."""

    def __init__(self, key: str, make: partial[Work], threads: int, *, own: bool, fetches: bool) -> None:
        """Keep what a process needs; `make` holds the job.

        `own` says that tilepipe has started the processes and may end them, `fetches` that pixels of the image lie on
        the workers.
        """
        self.name = f"tilepipe-{key}"
        self.key, self.threads, self.own, self.fetches = key, threads, own, fetches
        # As bytes, since libraries and the model are loaded in a thread of the worker.
        self.made = dumps(make)

    async def setup(self, worker: Worker) -> None:
        # Libraries and the model take long to load, and the worker must answer meanwhile.
        await asyncio.to_thread(self._set_up, worker)

    def _set_up(self, worker: Worker) -> None:
        if self.own:
            own_process()
        with _threads(self.threads):
            make: partial[Work] = loads(self.made)
            if self.fetches:
                image = unwrapped(make.args[0].source)
                assert isinstance(image, ArraySource)
                image.bind(worker._get_client())
            _WORKERS[self.key] = make(), self.threads

    def teardown(self, worker: Worker) -> None:
        with rows_forgotten():
            _drop_worker(self.key)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Compute with `count` threads in this thread of a worker, which may compute for others with another number."""
    before = threads()
    use_threads(count)
    try:
        yield
    finally:
        use_threads(before)


def run(
    job: Job, queue: Queue, missing: list[Index], scheduler: str | None, make: Callable[[Job], Work] = BlockWorker
) -> None:
    """Compute the blocks `missing`, in this order as far as earlier neighbours allow.

    They run on the scheduler at the address `scheduler`, else in `job.plan.compute.workers` processes; `make` gives
    each process its worker. An error of a block is raised here; finished blocks stay committed.
    """
    if scheduler is None and _on_cluster(job):
        raise UsageError(
            f"{job.source.name} lies on the workers of a Dask cluster, which processes of `workers` do not reach; give "
            f"scheduler=client, or {setting(workers=0)}, or array.compute()"
        )
    key = uuid.uuid4().hex
    with _client(job, key, scheduler, partial(make, job)) as client:
        # Never are all blocks submitted at once: a million tasks would fill the scheduler's memory. Each thread has
        # two, so that a worker has the next block ready while its last one is committed.
        in_flight = job.plan.compute.in_flight if scheduler is None else 2 * max(1, len(client.nthreads()))
        here, running = code_here(), dict[Task, list[Index]]()
        workers = sorted(client.nthreads())
        # In bands a pass goes on from block to block, if the next block comes to the same worker.
        follow = job.plan.tiling.columns is not None and len(workers) > 1
        front, pace = Lanes(missing, workers) if follow else Front(queue, missing), Pace()
        given_up, left = scheduler_watch.GivenUp(client, queue.say), len(missing)
        while front or running:
            # Blocks of one lane follow each other, so a task takes one of them. The last blocks are for all workers.
            most = 1 if follow else min(pace.blocks, max(1, left // in_flight))
            while len(running) < in_flight and (blocks := front.take(most)):
                # With `pure=True` Dask may answer with the result of an equal task, but a block is computed for what it
                # writes.
                task = client.submit(
                    _run_blocks, key, [(block, queue.dependencies(block)) for block in blocks], here, pure=False,
                    workers=front.worker_of(blocks[0]), allow_other_workers=follow,
                )  # fmt: skip
                running[task] = blocks
                left -= len(blocks)
            for future in _finished(client, list(running), given_up):
                records, error = _result(future, running.pop(future))
                for record in records:
                    queue.commit(record)
                    front.committed(record.block)
                    pace.done(record.seconds)
                if error is not None:
                    raise error
            given_up.tell()


def _on_cluster(job: Job) -> bool:
    """Return whether pixels of the image lie on the workers of a cluster."""
    return bool(getattr(unwrapped(job.source), "on_cluster", False))


def _finished(client: Client, running: list[Task], given_up: scheduler_watch.GivenUp) -> Iterable[Task]:
    """Return the tasks that have ended, at least one. Raises `DeviceError` if no worker is left to compute."""
    watch = scheduler_watch.Watch(client)
    while True:
        try:
            # Without a timeout this call waits for ever if the scheduler has lost its last worker.
            # This client is not the caller's default, which may be another cluster.
            with client.as_current():
                ended: Iterable[Task] = wait(running, timeout=scheduler_watch.LOOK, return_when="FIRST_COMPLETED").done
            return ended
        except TimeoutError:
            given_up.tell()
            watch.check()
        except (*scheduler_watch.ENDED, OSError) as error:
            raise scheduler_watch.scheduler_gone(client, error) from None


def _run_blocks(key: str, blocks: list[tuple[Index, tuple[Record, ...]]], code: str) -> Done:
    """Compute blocks, each with what its neighbours have left for it, until one fails.

    An error of `KeyboardInterrupt` that a model raises would end Dask's own loop, so all errors are returned.
    """
    if code != code_here():  # the worker has joined since, with other code
        raise DeviceError(_other_code(f"a worker on {platform.node()}", code_here(), code))
    records: list[Record] = []
    work, count = _WORKERS[key]
    for block, dependencies in blocks:
        try:
            with _threads(count):
                records.append(work.run(Index(*block), dependencies))
        except KeyboardInterrupt:
            return records, KeyboardInterrupt()
        except TilepipeError as error:
            # Dask sends an error together with the errors it came from. If one of these cannot be pickled, it would
            # send a plain `Exception` in place of ours.
            error.__context__ = error.__cause__ = None
            return records, error
    return records, None


def _refuse_other_code(client: Client) -> None:
    """Raise `DeviceError` if a worker process would compute with other code than this process."""
    here = code_here()
    for worker, there in client.run(code_here, on_error="return").items():
        if there != here:
            raise DeviceError(_other_code(f"worker {worker}", there, here))


def _other_code(who: str, there: object, here: str) -> str:
    said = there if isinstance(there, str) else f"another version of tilepipe ({there})"
    return (
        f"{who} has {said}, but this run has {here}; its labels could differ, so it is not used. Install the same "
        "there and start the workers again"
    )


def _result(future: Task, blocks: list[Index]) -> Done:
    try:
        found: Done = future.result()
    except scheduler_watch.ENDED as error:
        raise scheduler_watch.scheduler_gone(future.client, error) from None
    except KilledWorker:
        several = f" or the {len(blocks) - 1} after it" if len(blocks) > 1 else ""
        raise DeviceError(
            f"worker processes died again and again on block {tuple(blocks[0])}{several}, most likely out of memory; "
            "use fewer `workers` or a smaller `tile`, the run will resume"
        ) from None
    return found


def _drop_worker(key: str) -> None:
    found = _WORKERS.pop(key, None)
    if found is not None:
        found[0].close()


@contextmanager
def _client(job: Job, key: str, scheduler: str | None, make: partial[Work]) -> Iterator[Client]:
    """Connect to the scheduler, or start one, and yield a client with the job in place."""
    quiet = {
        "distributed.admin.log-format": "",
        "distributed.comm.timeouts.connect": "30s",
        "distributed.scheduler.worker-ttl": f"{scheduler_watch.WORKER_TTL}s",
        "distributed.scheduler.allowed-failures": ALLOWED_FAILURES,
    }
    try:
        # The settings are restored at the end: the caller may use Dask for work of their own.
        with dask.config.set(quiet), connected(job.plan.compute, scheduler) as client:
            _refuse_other_code(client)
            # torch would start a thread for each core in each worker process.
            each = max(1, (os.cpu_count() or 1) // max(1, job.plan.compute.workers))
            plugin = _JobPlugin(key, make, each, own=scheduler is None, fetches=_on_cluster(job))
            try:
                with scheduler_watch.starting(client):
                    client.register_plugin(plugin)
                yield client
            finally:
                if scheduler is not None or is_kept():
                    _leave(client, plugin)
    finally:
        _drop_worker(key)


def _leave(client: Client, plugin: _JobPlugin) -> None:
    """Take the job off the workers of a scheduler or a cluster that goes on without this run."""
    # A scheduler that is gone has no workers to clean, and one that never took the plugin does not know it; the run
    # has an error of its own then.
    with suppress(*scheduler_watch.ENDED, OSError, TimeoutError, ValueError):
        client.unregister_worker_plugin(plugin.name)
