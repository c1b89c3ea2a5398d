"""Front: which blocks can be worked on next. Every block is looked at a bounded number of times, however many wait."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from itertools import islice

from tilepipe.execution.block_queue import Queue
from tilepipe.tiling.grid import Index


class Front:
    """Blocks in a given order, each once what it waits for is committed: always the first of those that can be done.

    It goes along the order once. What it finds to be waiting is set aside, and looked at again only when a block that
    it waits for is committed.
    """

    def __init__(self, queue: Queue, blocks: Sequence[Index]) -> None:
        self._queue = queue
        self._blocks = blocks
        self._next = 0
        """Place in `blocks` that was not looked at yet."""
        self._waiting: dict[Index, int] = {}
        """Places of the blocks before it that were not ready."""
        self._released: list[int] = []
        """Places, as a heap, of those among them that are by now."""

    def __bool__(self) -> bool:
        """Return whether blocks are left."""
        return bool(self._released or self._waiting or self._next < len(self._blocks))

    def take(self, most: int) -> list[Index]:
        """Return the first blocks that can be done now, at most so many; they are not given again."""
        return list(islice(self._ready(), most))

    def committed(self, block: Index) -> None:
        """Release what has waited for `block` and need not wait any more; to be called once the queue has it."""
        for later in self._queue.later(block):
            if later in self._waiting and self._queue.ready(later):
                heappush(self._released, self._waiting.pop(later))

    def _ready(self) -> Iterator[Index]:
        while self._released:  # all of these come before those that were not looked at yet
            yield self._blocks[heappop(self._released)]
        while self._next < len(self._blocks):
            block, place = self._blocks[self._next], self._next
            self._next += 1
            if self._queue.ready(block):
                yield block
            else:
                self._waiting[block] = place
