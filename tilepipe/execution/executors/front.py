"""This module finds the blocks that can be worked on next; it examines each block a bounded number of times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from itertools import islice

from tilepipe.execution.block_queue import Queue
from tilepipe.tiling.grid import Index


class Front:
    """An ordered list of blocks that gives each block once, when it is ready; the first ready block always comes first.

    The list is gone through once. A block that must wait is set aside, and is examined again only when a block that it
    waits for is committed.
    """

    def __init__(self, queue: Queue, blocks: Sequence[Index]) -> None:
        self._queue = queue
        self._blocks = blocks
        self._next = 0
        """Index in `blocks` of the first block that was not examined yet."""
        self._waiting: dict[Index, int] = {}
        """Indices of earlier blocks that were not ready when they were examined."""
        self._released: list[int] = []
        """Indices of earlier blocks that have become ready since, as a heap."""

    def __bool__(self) -> bool:
        """Return whether blocks are left."""
        return bool(self._released or self._waiting or self._next < len(self._blocks))

    def take(self, most: int) -> list[Index]:
        """Return the first blocks that can be done now, at most `most`; they are not given again."""
        return list(islice(self._ready(), most))

    def committed(self, block: Index) -> None:
        """Release the blocks that have waited for `block` and are ready now. Call this after the queue has committed
        it."""
        for later in self._queue.later(block):
            if later in self._waiting and self._queue.ready(later):
                heappush(self._released, self._waiting.pop(later))

    def _ready(self) -> Iterator[Index]:
        while self._released:  # all of these come before the blocks that were not examined yet
            yield self._blocks[heappop(self._released)]
        while self._next < len(self._blocks):
            block, place = self._blocks[self._next], self._next
            self._next += 1
            if self._queue.ready(block):
                yield block
            else:
                self._waiting[block] = place
