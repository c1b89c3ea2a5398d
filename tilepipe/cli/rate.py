"""This module measures how fast units are done, from the counts that events give."""

from __future__ import annotations

from collections.abc import Callable


class Rate:
    """The number of units per second since the first count."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Wait for the first count; `clock` tells the time in seconds."""
        self._clock = clock
        self._first: int | None = None
        self._start = self._last = 0.0
        self._all = self._done = 0

    def update(self, done: int, skipped: int = 0) -> None:
        """Take in that `done` units are done, of which `skipped` took no work.

        What is done at the first count was done by an earlier run.
        """
        if self._first is None:
            self._first, self._start = done - skipped, self._clock()
        self._all, self._done, self._last = done, done - skipped - self._first, self._clock()

    @property
    def rate(self) -> float:
        """Return units per second; 0 if none was done yet."""
        seconds = self._last - self._start
        return self._done / seconds if self._done > 0 and seconds > 0 else 0.0

    def left(self, total: int) -> float:
        """Return the seconds until `total` units are done at this rate; it falls between two counts."""
        if not self.rate:
            return 0.0
        missing = (total - self._all) / self.rate
        return max(0.0, missing - (self._clock() - self._last))
