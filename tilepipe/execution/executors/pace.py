"""This module decides how many blocks one Dask task takes.

A task costs Dask about 10 ms, whatever it does, which is more than a small block takes to compute. So a task takes as
many blocks as are done in `SECONDS`, and one block if that is longer. What a kill can lose stays that small.
"""

from __future__ import annotations

SECONDS = 0.5
"""Time that a task is meant to take (seconds)."""
MOST = 64
"""Largest number of blocks of a task."""
WEIGHT = 0.1
"""Weight of the newest block in the mean time of a block."""


class Pace:
    """The number of blocks of the next task, from the times of the blocks that are done."""

    def __init__(self) -> None:
        self._mean: float | None = None

    @property
    def blocks(self) -> int:
        """Number of blocks of the next task; 1 until a block is done."""
        if self._mean is None:
            return 1
        return min(MOST, max(1, int(SECONDS / max(self._mean, SECONDS / MOST))))

    def done(self, seconds: float) -> None:
        """Take the time of a block that is done (seconds)."""
        self._mean = seconds if self._mean is None else (1 - WEIGHT) * self._mean + WEIGHT * seconds
