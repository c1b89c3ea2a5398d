"""This module defines the queue of blocks. It knows which blocks are done, ready or missing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from tilepipe.arrays import Labels
from tilepipe.box import Box
from tilepipe.errors import StorageError
from tilepipe.events import Event, Listener
from tilepipe.execution.ledger import AGAIN, Ledger, Record
from tilepipe.execution.store import Store
from tilepipe.planning.plan import Plan
from tilepipe.products.label_map import LABELS
from tilepipe.tiling.grid import Index


class Work(Protocol):
    """The work of a process on the blocks, or on other units, of a queue."""

    def run(self, block: Index, strips_from: Iterable[Record] = ()) -> Record:
        """Do one unit and return its line for the ledger."""

    def close(self) -> None:
        """Close what is open."""


class Queue(Protocol):
    """A queue of units: it knows which units are missing, ready or done."""

    def missing(self) -> list[Index]:
        """Return the units that are not committed yet, in order."""

    def ready(self, block: Index) -> bool:
        """Return whether all units that a unit waits for are committed."""

    def later(self, block: Index) -> list[Index]:
        """Return the units that wait for this unit, and perhaps for others too."""

    def dependencies(self, block: Index) -> tuple[Record, ...]:
        """Return the ledger lines of the units that have left something for this unit."""

    def commit(self, record: Record) -> None:
        """Record that a unit is done."""

    def say(self, message: str) -> None:
        """Tell the listener a sentence about the work."""


class BlockQueue:
    """A queue of blocks that commits them to the ledger, a block's earlier neighbours first."""

    def __init__(self, plan: Plan, ledger: Ledger, store: Store, listener: Listener) -> None:
        """Compare labels, layers and strips with the ledger; a block that is not as it was written is computed again.

        Strips of a stopped run that no block needs any more are removed.
        """
        self.plan = plan
        self.ledger = ledger
        self.store = store
        self.listener = listener
        self._grid = plan.grid
        self._rows, self._columns = self._grid.block_ranges(plan.predicted_region)
        self._count = len(self._rows) * len(self._columns)
        self._tiles = 0
        self.note = ""
        """Sentence about blocks that were taken over from an earlier run."""
        self._forget_damaged()
        # A run that goes on reports the tiles of earlier attempts too, as its progress counts all blocks.
        self._tiles = sum(record.tiles for record in ledger.done.values())
        for block in ledger.done:
            self._drop_strips(block)

    def missing(self) -> list[Index]:
        """Return the blocks that are not committed yet, row by row."""
        # Row by row, strips live for about one row of blocks: their disk space follows the image's width and not its
        # height.
        return [block for block in self.plan.blocks() if block not in self.ledger.done]

    def ready(self, block: Index) -> bool:
        """Return whether the neighbours that a block waits for are committed."""
        return all(near in self.ledger.done for near in self._earlier(block))

    def later(self, block: Index) -> list[Index]:
        """Return the neighbours that wait for a block."""
        if not self._grid.blended:
            return []
        return [near for near in self._grid.later(block) if self._known(near)]

    def dependencies(self, block: Index) -> tuple[Record, ...]:
        """Return the ledger lines of the earlier neighbours that have written strips, or were taken over and have
        none."""
        records = (self.ledger.done[near] for near in self._earlier(block))
        return tuple(record for record in records if record.strips or record.taken)

    def commit(self, record: Record) -> None:
        """Append to the ledger, remove strips that no block needs any more, and tell the listener."""
        self.take(record)
        self._tiles += record.tiles
        self._tell(failed=len(record.failed))

    def take(self, record: Record) -> None:
        """Append to the ledger, and remove strips that no block needs any more."""
        # The ledger comes first. If the process dies between the two steps, strips are left over, and the next start
        # removes them. In the other order a block that is still missing would lack them.
        self.ledger.append(record)
        for block in (record.block, *self._earlier(record.block)):
            self._drop_strips(block)

    def say(self, message: str) -> None:
        """Tell the listener a sentence about the work."""
        self._tell(message, note=message)

    def begin(self) -> None:
        """Tell the listener, before the first block is computed, how many were done by an earlier run."""
        if len(self.ledger.done) < self._count:
            self._tell()

    def _tell(self, message: str = "", **data: int | str) -> None:
        size = {"pixels": self.plan.region.area, "memory": self.plan.memory.total}
        done, total = len(self.ledger.done), self._count
        self.listener(Event("predict", done, total, message, {"tiles": self._tiles, **size, **data}))

    def _forget_damaged(self) -> None:
        """Take damaged blocks out of the ledger, and blocks whose lost strips are still needed.

        A block that is computed needs the strips of its earlier neighbours; if these are lost, the neighbours are
        computed again.
        """
        done = self.ledger.done
        lost = {block for block, record in done.items() if not self._as_written(record)}
        asked = [block for block in self.plan.blocks() if block not in done or block in lost]
        # A neighbour that is computed again needs the strips of its own neighbours, which may be lost too.
        while asked:
            for near in self._earlier(asked.pop()):
                if near in done and near not in lost and not self.store.has_strips(done[near]):
                    lost.add(near)
                    asked.append(near)
        if lost:
            self.ledger.forget(lost)
        if lost or self.ledger.damaged:
            text = f"{self.store.directory} was damaged: {len(lost) + self.ledger.damaged} blocks are computed again"
            self.say(text)

    def _as_written(self, record: Record) -> bool:
        if not self._known(record.block) or len(record.layers) != len(self.plan.kept):
            return False
        try:
            for name, sha256 in zip((LABELS, *self.plan.kept), record.hashes, strict=True):
                self.store.array(name).checked(sha256, self._grid.zone(record.block))
        except StorageError:
            return False
        return True

    def _known(self, block: Index) -> bool:
        # Blocks outside the region are never computed, so no block may wait for them.
        return block.row in self._rows and block.column in self._columns

    def _earlier(self, block: Index) -> list[Index]:
        if not self._grid.blended:
            return []
        return [near for near in self._grid.earlier(block) if self._known(near)]

    def _drop_strips(self, block: Index) -> None:
        if self._grid.blended and all(near in self.ledger.done for near in self.later(block)):
            self.store.drop_strips(block)


class Checked:
    """A reader of the labels or a layer of a run, for its products; it returns only values that the ledger confirms.

    A block is hashed when it is read first, and again if its file has changed since.
    """

    def __init__(self, queue: BlockQueue, name: str = LABELS) -> None:
        """Open the labels (`LABELS`), or the uncertainty layer called `name`."""
        self._number = (LABELS, *queue.plan.kept).index(name)
        self._done, self._grid = queue.ledger.done, queue.plan.grid
        self._array = queue.store.array(name)
        self._seen: dict[int, int] = {}

    def __call__(self, box: Box) -> Labels:
        """Return the values of `box`. Raises `StorageError` if the values are not those that were committed."""
        y, x = self._grid.y, self._grid.x
        # The last block also takes what its last tile keeps beyond its zone, so a pixel there belongs to no block of
        # its own.
        for row in range(min(box.y0 // y.zone, y.blocks - 1), min(y.blocks, -(-box.y1 // y.zone))):
            for column in range(min(box.x0 // x.zone, x.blocks - 1), min(x.blocks, -(-box.x1 // x.zone))):
                self._check(Index(row, column))
        return self._array.read(box)

    def _check(self, block: Index) -> None:
        zone = self._grid.zone(block)
        number = block.row * self._grid.x.blocks + block.column
        state = hash(tuple(self._array.state(zone)))  # one hash is kept for each block
        if self._seen.get(number) == state:
            return
        if block not in self._done:
            raise StorageError(f"block {tuple(block)} is not in the ledger of {self._array.top}; {AGAIN}")
        self._array.checked(self._done[block].hashes[self._number], zone)
        self._seen[number] = state
