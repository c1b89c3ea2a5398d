"""Whether a Dask scheduler and its workers are still there while a run waits for them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import time

from distributed import Client
from distributed.comm.core import CommClosedError

from tilepipe.errors import DeviceError

ENDED = (CommClosedError, concurrent.futures.CancelledError, asyncio.CancelledError)
"""What Dask raises for tasks whose scheduler went away."""
LOOK = 2.0
"""Seconds between two looks while nothing ends."""
PATIENCE = 60.0
"""Seconds that a scheduler may be unreachable, or without a worker, before the run ends."""


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
