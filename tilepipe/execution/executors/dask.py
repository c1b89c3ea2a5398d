"""This module runs blocks as Dask tasks: in worker processes, or on a running scheduler.

A bounded number of tasks is in flight. A task is one block; it writes to the store and returns its ledger line, so
worker memory never holds results. The job is sent once to each worker process.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import sys
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from urllib.parse import urlsplit

import dask
import distributed.core
from distributed import Client, Future, KilledWorker, LocalCluster, Worker, WorkerPlugin, wait
from distributed.protocol.pickle import dumps, loads

from tilepipe.errors import DeviceError, TilepipeError, UsageError
from tilepipe.execution.block import BlockWorker
from tilepipe.execution.block_queue import Queue, Work
from tilepipe.execution.executors import scheduler_watch
from tilepipe.execution.executors.code import code_here
from tilepipe.execution.executors.front import Front, Lanes
from tilepipe.execution.executors.spawned import deaf_to_ctrl_c, main_hidden, own_environment
from tilepipe.execution.job import Job
from tilepipe.execution.ledger import Record
from tilepipe.inference.predictor import threads, use_threads
from tilepipe.sources.geotiff_gdal import rows_forgotten
from tilepipe.sources.wrapped import unwrapped
from tilepipe.supervisor import own_process
from tilepipe.text import setting
from tilepipe.tiling.grid import Index

CONNECT = "30s"
"""Longest time that a scheduler may take for its first answer."""
ALLOWED_FAILURES = 10
"""Number of worker processes that a block may end: a tile that the model crashes on ends two before it is given up."""
Task = Future[Record | None]
"""A block that is being computed; its result is None if the model was interrupted."""
# A task is sent for each block, so it names its worker by a key and carries no network.
_WORKERS: dict[str, Work] = {}
"""Workers of this process, by job; tasks find their worker here."""


class _JobPlugin(WorkerPlugin):
    """A plugin that brings a job to every worker process, also to a process that joins later."""

    def __init__(self, key: str, make: Callable[[], Work], threads: int, *, own: bool, fetches: bool) -> None:
        """Keep what a process needs; `own` says that tilepipe has started the processes and may end them, `fetches`
        that a part of the job lies on the workers."""
        self.name = f"tilepipe-{key}"
        self.key, self.threads, self.own, self.fetches = key, threads, own, fetches
        # As bytes, since an array that lies on a cluster is unpickled with a worker's own client.
        self.made = dumps(make)
        self.before = threads

    async def setup(self, worker: Worker) -> None:
        # Libraries and the model take long to load, and the worker must answer meanwhile.
        await asyncio.to_thread(self._set_up, worker)

    def _set_up(self, worker: Worker) -> None:
        if self.own:
            own_process()
        self.before = threads()
        use_threads(self.threads)
        with worker._get_client().as_current() if self.fetches else nullcontext():
            make: Callable[[], Work] = loads(self.made)
        _WORKERS[self.key] = make()

    def teardown(self, worker: Worker) -> None:
        with rows_forgotten():
            _drop_worker(self.key)
        use_threads(self.before)


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
        here, running = code_here(), dict[Task, Index]()
        workers = sorted(client.nthreads())
        # In bands a pass goes on from block to block, if the next block comes to the same worker.
        follow = job.plan.tiling.bands is not None and len(workers) > 1
        front = Lanes(missing, workers) if follow else Front(queue, missing)
        given_up = scheduler_watch.GivenUp(client, queue.say)
        while front or running:
            for block in front.take(in_flight - len(running)):
                # With `pure=True` Dask may answer with the result of an equal task, but a block is computed for what it
                # writes.
                task = client.submit(
                    _run_block, key, block, queue.dependencies(block), here, pure=False,
                    workers=front.worker_of(block), allow_other_workers=follow,
                )  # fmt: skip
                running[task] = block
            for future in _finished(client, list(running), given_up):
                block = running.pop(future)
                queue.commit(_result(future, block))
                front.committed(block)
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


def _run_block(key: str, block: Index, dependencies: tuple[Record, ...], code: str) -> Record | None:
    """Compute a block; return None if the model raised `KeyboardInterrupt`, which would end Dask's own loop."""
    if code != code_here():  # the worker has joined since, with other code
        raise DeviceError(_other_code(f"a worker on {platform.node()}", code_here(), code))
    try:
        return _WORKERS[key].run(Index(*block), dependencies)
    except KeyboardInterrupt:
        return None
    except TilepipeError as error:
        # Dask sends an error together with the errors it came from. If one of these cannot be pickled, it would send a
        # plain `Exception` in place of ours.
        error.__context__ = error.__cause__ = None
        raise


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


def _result(future: Task, block: Index) -> Record:
    try:
        record: Record | None = future.result()
    except scheduler_watch.ENDED as error:
        raise scheduler_watch.scheduler_gone(future.client, error) from None
    except KilledWorker:
        raise DeviceError(
            f"worker processes died again and again on block {tuple(block)}, most likely out of memory; "
            "use fewer `workers` or a smaller `tile`, the run will resume"
        ) from None
    if record is None:
        raise KeyboardInterrupt
    return record


def _drop_worker(key: str) -> None:
    worker = _WORKERS.pop(key, None)
    if worker is not None:
        worker.close()


@contextmanager
def _client(job: Job, key: str, scheduler: str | None, make: Callable[[], Work]) -> Iterator[Client]:
    """Connect to the scheduler, or start one, and yield a client with the job in place."""
    quiet = {
        "distributed.admin.log-format": "",
        "distributed.comm.timeouts.connect": "30s",
        "distributed.scheduler.worker-ttl": f"{scheduler_watch.WORKER_TTL}s",
        "distributed.scheduler.allowed-failures": ALLOWED_FAILURES,
    }
    try:
        # The settings are restored at the end: the caller may use Dask for work of their own.
        with dask.config.set(quiet), _connected(job, scheduler) as client:
            _refuse_other_code(client)
            # torch would start a thread for each core in each worker process.
            each = max(1, (os.cpu_count() or 1) // max(1, job.plan.compute.workers))
            plugin = _JobPlugin(key, make, each, own=scheduler is None, fetches=_on_cluster(job))
            try:
                with scheduler_watch.starting(client):
                    client.register_plugin(plugin)
                yield client
            finally:
                if scheduler is not None:
                    _leave(client, plugin)
    finally:
        _drop_worker(key)


def _leave(client: Client, plugin: _JobPlugin) -> None:
    """Take the job off the workers of a scheduler that goes on without this run."""
    # A scheduler that is gone has no workers to clean, and one that never took the plugin does not know it; the run
    # has an error of its own then.
    with suppress(*scheduler_watch.ENDED, OSError, TimeoutError, ValueError):
        client.unregister_worker_plugin(plugin.name)


@contextmanager
def _connected(job: Job, scheduler: str | None) -> Iterator[Client]:
    if scheduler is not None:
        _refuse_open_network(scheduler)
        try:
            client = Client(scheduler, timeout=CONNECT, set_as_default=False)
        except (OSError, TimeoutError) as error:
            raise UsageError(
                f"no Dask scheduler answers at {scheduler} ({error}); start one or leave out `scheduler`"
            ) from None
        with client:
            yield client
        return
    # Nothing listens on the network. Dask's own memory limit would pause or kill workers at a share of the machine's
    # memory, in the middle of a block that the memory promise allows.
    loopback = {"dashboard_address": "127.0.0.1:0", "worker_dashboard_address": "127.0.0.1:0", "memory_limit": None}
    options = {"n_workers": job.plan.compute.workers, "threads_per_worker": 1, "host": "127.0.0.1"}
    try:
        with (
            main_hidden(),
            own_environment(),
            _started({**options, **loopback}) as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            yield client
    finally:
        _forget_cluster()


def _started(options: Mapping[str, object]) -> LocalCluster:
    """Start a cluster, however slow the disk is. If warnings are errors, a slow disk's warning would end the run."""
    with warnings.catch_warnings(), deaf_to_ctrl_c():
        warnings.filterwarnings("ignore", "Creating scratch directories")
        return LocalCluster(**options, silence_logs=logging.CRITICAL)


def _forget_cluster() -> None:
    """Remove the references that distributed keeps for ever to each scheduler and worker of a closed cluster.

    Python's import caches for their folders are removed too, since the folders are gone.
    """
    for folder in [name for name in sys.path_importer_cache if not os.path.exists(name)]:
        sys.path_importer_cache.pop(folder, None)
    cache = getattr(distributed.core, "_expects_comm", None)
    if clear := getattr(cache, "cache_clear", None):  # it is not documented: if it is gone, nothing is to be cleared
        clear()


def _refuse_open_network(scheduler: str) -> None:
    """Refuse a scheduler that others on the network can reach: Dask runs any code it is sent."""
    parts = urlsplit(scheduler if "://" in scheduler else f"tcp://{scheduler}")
    # An address within this process is that of a client which the caller has made.
    if parts.scheme not in ("tls", "inproc") and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise UsageError(f"scheduler {scheduler} is neither on this machine nor encrypted; use a tls:// address")
