"""This module checks that a Dask scheduler and its workers are still there while a run waits for them.

A worker process can hang without dying: it is stopped, its disk does not answer, or its machine is gone. The scheduler
gives up a worker that sent no sign of life for `WORKER_TTL`. It then gives the worker's blocks to others and, if it has
started the worker, starts another process. Dask's own limit is 5 minutes, and Dask says this in its log alone.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from distributed import Client
from distributed.comm.core import CommClosedError

from tilepipe.errors import DeviceError

ENDED = (CommClosedError, concurrent.futures.CancelledError, asyncio.CancelledError)
"""Errors that Dask raises for tasks whose scheduler went away."""
LOOK = 2.0
"""Time between two checks while no task ends (seconds)."""
PATIENCE = 60.0
"""Longest time that a scheduler may be unreachable, or without a worker, before the run ends (seconds)."""

WORKER_TTL = 60
"""Time without a sign of life after which a scheduler of tilepipe gives up a worker process (seconds)."""
START_TTL = 300
"""The same limit while workers load libraries and the model, since they may not answer then (seconds)."""
_GIVEN_UP = "worker-ttl-timed-out"
"""Name of a given-up worker in the events of a scheduler."""


@contextmanager
def starting(client: Client) -> Iterator[None]:
    """Wait longer for workers of a scheduler that tilepipe has started while they set up.

    Raises `DeviceError` if a worker ends meanwhile.
    """
    scheduler = getattr(client.cluster, "scheduler", None)
    if scheduler is not None:
        scheduler.worker_ttl = START_TTL  # the interval between checks stays `WORKER_TTL`
    try:
        yield
    except CommClosedError as error:
        raise DeviceError(
            f"a worker process ended while it loaded the model ({' '.join(str(error).split())[:120]}), most likely out "
            "of memory; use fewer `workers`, or start the workers of your scheduler again"
        ) from None
    if scheduler is not None:
        scheduler.worker_ttl = WORKER_TTL


class GivenUp:
    """A listener that hears which workers a scheduler gives up. `tell` reports them, in the thread that calls it."""

    def __init__(self, client: Client, say: Callable[[str], None]) -> None:
        self._say = say
        # Dask's thread writes and another one reads; append and popleft of a deque need no lock.
        self._heard: deque[str] = deque()
        client.subscribe_topic("scheduler", self._hear)

    def tell(self) -> None:
        """Report the workers given up since the last call."""
        while self._heard:
            self._say(self._heard.popleft())

    def _hear(self, event: tuple[float, object]) -> None:
        """Keep an event of the scheduler; Dask calls this in its own thread."""
        found = event[1]
        if isinstance(found, dict) and found.get("action") == _GIVEN_UP:
            workers, ttl = found.get("workers", []), found.get("ttl", 0)
            who = f"worker process {workers[0]}" if len(workers) == 1 else f"{len(workers)} worker processes"
            self._heard.append(f"warning: {who} did not answer for {ttl:.0f} s; the blocks in hand are given to others")


class Watch:
    """A watch that measures how long the scheduler of a client has been away or without workers."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._well = time.monotonic()

    def check(self) -> None:
        """Raise `DeviceError` if no worker could compute for longer than `PATIENCE`."""
        away = self.client.status != "running"
        if not away and self._workers():
            self._well = time.monotonic()
        if time.monotonic() - self._well < PATIENCE:
            return
        if away:
            raise scheduler_gone(self.client)
        address = _address(self.client)
        raise DeviceError(
            f"the Dask scheduler {address} has had no worker for {PATIENCE:.0f} s; start one (dask worker {address}) "
            "and give the same command again, it goes on"
        )

    def _workers(self) -> int:
        try:
            return len(self.client.nthreads())
        except (*ENDED, OSError):
            return 0


def scheduler_gone(client: Client, error: BaseException | None = None) -> DeviceError:
    """Return the error for a scheduler that does not answer any more."""
    said = f" ({' '.join(str(error).split())[:120]})" if error is not None and str(error) else ""
    return DeviceError(
        f"the Dask scheduler {_address(client)} has gone{said}; finished blocks are kept: start it again, or leave out "
        "`scheduler`, and give the same command, it goes on"
    )


def _address(client: Client) -> str:
    return str(getattr(client.scheduler, "address", "") or "")
