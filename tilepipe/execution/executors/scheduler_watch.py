"""Whether a Dask scheduler and its workers are still there while a run waits for them.

A worker process can hang without dying: it is stopped, its disk does not answer, its machine is gone. The scheduler
gives up a worker that sent no sign of life for `WORKER_TTL`, starts another process in its place if it has started this
one, and gives its blocks to others; Dask's own limit is 5 minutes, and it says so in its log alone.
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
"""What Dask raises for tasks whose scheduler went away."""
LOOK = 2.0
"""Seconds between two looks while nothing ends."""
PATIENCE = 60.0
"""Seconds that a scheduler may be unreachable, or without a worker, before the run ends."""

WORKER_TTL = 60
"""Seconds without a sign of life after which a scheduler that tilepipe starts gives up a worker process."""
START_TTL = 300
"""The same while workers load libraries and the model, in which time they may not answer for long."""
_GIVEN_UP = "worker-ttl-timed-out"
"""What a scheduler calls it in its events."""


@contextmanager
def starting(client: Client) -> Iterator[None]:
    """Have more patience with workers of a scheduler that tilepipe has started while they set up.

    Raises `DeviceError` if one of them ends meanwhile.
    """
    scheduler = getattr(client.cluster, "scheduler", None)
    if scheduler is not None:
        scheduler.worker_ttl = START_TTL  # how often it looks stays `WORKER_TTL`
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
    """Hears from a scheduler which workers it gives up; `tell` says it, from the thread that calls it."""

    def __init__(self, client: Client, say: Callable[[str], None]) -> None:
        self._say = say
        self._heard: deque[str] = deque()
        client.subscribe_topic("scheduler", self._hear)

    def tell(self) -> None:
        """Say what was heard since the last time."""
        while self._heard:
            self._say(self._heard.popleft())

    def _hear(self, event: tuple[float, object]) -> None:
        """Take down an event of the scheduler; called in Dask's own thread."""
        found = event[1]
        if isinstance(found, dict) and found.get("action") == _GIVEN_UP:
            workers, ttl = found.get("workers", []), found.get("ttl", 0)
            who = f"worker process {workers[0]}" if len(workers) == 1 else f"{len(workers)} worker processes"
            self._heard.append(f"warning: {who} did not answer for {ttl:.0f} s; the blocks in hand are given to others")


class Watch:
    """Notices how long the scheduler of a client has been away or without workers."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._well = time.monotonic()

    def check(self) -> None:
        """Raise `DeviceError` when there has been nobody to compute for longer than `PATIENCE`."""
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
