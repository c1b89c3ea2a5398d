"""This module measures the memory of this process and of all processes that it has started."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import psutil

SECONDS = 1.0
"""Least time between two measurements: finding the children of a process reads a list of all processes."""


class MemoryUse:
    """The memory in use; it is measured at most once a second."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Measure nothing yet; `clock` tells the time in seconds."""
        self._clock, self._next, self._bytes = clock, -1.0, 0
        self._main = psutil.Process()

    def __call__(self) -> int:
        """Return the resident memory of the process tree in bytes, as the memory promise counts it."""
        if self._clock() >= self._next:
            self._next, self._bytes = self._clock() + SECONDS, self._measured()
        return self._bytes

    def _measured(self) -> int:
        total = 0
        with suppress(psutil.Error):
            for process in (self._main, *self._main.children(recursive=True)):
                with suppress(psutil.Error):  # a process may end at any time
                    total += process.memory_info().rss
        return total
