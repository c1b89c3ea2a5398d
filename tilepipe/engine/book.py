"""Book: which blocks of a run are done, ready or still needed. Only the driving process keeps it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from tilepipe.events import Event, Listener
from tilepipe.grid import Index
from tilepipe.plan import Plan
from tilepipe.store import Ledger, Record, Store


class Work(Protocol):
    """What a process does for the blocks, or other units, of a book."""

    def run(self, block: Index, strips_from: Iterable[Index] = ()) -> Record:
        """Do one and return its line for the ledger."""

    def close(self) -> None:
        """Let go of what is open."""


class Queue(Protocol):
    """Which units are missing, which of them can be done now, and what is done."""

    def missing(self) -> list[Index]:
        """Return the units that are not committed yet, in order."""

    def ready(self, block: Index) -> bool:
        """Return whether what a unit waits for is committed."""

    def givers(self, block: Index) -> tuple[Index, ...]:
        """Return the units that have left something for this one."""

    def commit(self, record: Record) -> None:
        """Take down that a unit is done."""


class Book:
    """Commits blocks to the ledger, in an order that has a block's earlier neighbours first."""

    def __init__(self, plan: Plan, ledger: Ledger, store: Store, listener: Listener) -> None:
        """Compare labels and layers with the ledger; clear away strips of a stopped run that nobody needs.

        Raises `StorageError` where committed ones are not what was written.
        """
        self.plan = plan
        self.ledger = ledger
        self.store = store
        self.listener = listener
        self._grid = plan.grid
        self._blocks = list(plan.blocks())
        self._known = set(self._blocks)
        self._tiles = sum(record.tiles for record in ledger.done.values())
        for block, record in ledger.done.items():
            for layer, sha256 in zip(("", *plan.layers), (record.sha256, *record.layers), strict=True):
                store.check(self._grid.zone(block), sha256, layer)
            self._drop_strips(block)

    def missing(self) -> list[Index]:
        """Return the blocks that are not committed yet, row by row."""
        return [block for block in self._blocks if block not in self.ledger.done]

    def ready(self, block: Index) -> bool:
        """Return whether the neighbours that a block waits for are committed."""
        return all(near in self.ledger.done for near in self._earlier(block))

    def givers(self, block: Index) -> tuple[Index, ...]:
        """Return the earlier neighbours that have written strips."""
        records = (self.ledger.done[near] for near in self._earlier(block))
        return tuple(record.block for record in records if record.tiles or record.failed)

    def commit(self, record: Record) -> None:
        """Append to the ledger, drop strips that nobody needs any more, and tell the listener."""
        self.ledger.append(record)
        for block in (record.block, *self._earlier(record.block)):
            self._drop_strips(block)
        self._tiles += record.tiles
        done, total = len(self.ledger.done), len(self._blocks)
        self.listener(Event("predict", done, total, data={"tiles": self._tiles, "failed": len(record.failed)}))

    def _earlier(self, block: Index) -> list[Index]:
        if not self._grid.blended:
            return []
        return [near for near in self._grid.earlier(block) if near in self._known]

    def _drop_strips(self, block: Index) -> None:
        if self._grid.blended and all(b in self.ledger.done for b in self._grid.later(block) if b in self._known):
            self.store.drop_strips(block)
