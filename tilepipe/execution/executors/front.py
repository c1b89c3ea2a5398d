"""This module finds the blocks that can be worked on next, and the worker that is to take them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from itertools import islice

from tilepipe.execution.block_queue import Queue
from tilepipe.tiling.grid import Index


class Front:
    """An ordered list of blocks that gives each block once, when it is ready; the first ready block always comes first.

    The list is gone through once, and each block is examined a bounded number of times. A block that must wait is set
    aside, and is examined again only when a block that it waits for is committed.
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

    def worker_of(self, block: Index) -> str | None:
        """Return None: any worker can take a block."""
        return None

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


class Lanes:
    """A list of blocks in runs, one per worker, for blocks of which each goes on where the last one has ended.

    A worker whose run is done takes the second half of the longest run that is left. No block waits for another.
    """

    def __init__(self, blocks: Sequence[Index], workers: Sequence[str]) -> None:
        size = -(-len(blocks) // len(workers))
        self._left = {worker: list(blocks[k * size : (k + 1) * size]) for k, worker in enumerate(workers)}
        self._taken: dict[Index, str] = {}
        """Blocks in work, with their workers."""

    def __bool__(self) -> bool:
        """Return whether blocks are left."""
        return any(self._left.values())

    def take(self, most: int) -> list[Index]:
        """Return blocks that can be done now, at most `most`, for the workers with the least in work first."""
        found: list[Index] = []
        while self and len(found) < most:
            busy = list(self._taken.values())
            worker = min(self._left, key=busy.count)
            if not self._left[worker]:
                longest = max(self._left.values(), key=len)
                half = len(longest) // 2
                self._left[worker] = longest[half:]
                del longest[half:]
            block = self._left[worker].pop(0)
            self._taken[block] = worker
            found.append(block)
        return found

    def committed(self, block: Index) -> None:
        """Note that a block is done."""
        self._taken.pop(block)

    def worker_of(self, block: Index) -> str | None:
        """Return the address of the worker that a block in work is meant for."""
        return self._taken[block]
