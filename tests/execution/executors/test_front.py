"""The front: the same order as a search through all that is pending, with a bounded number of looks per block."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilepipe.execution.executors.front import Front
from tilepipe.execution.ledger import Record
from tilepipe.tiling.grid import Index


class Counted:
    """A queue over rows x columns blocks that counts how often it is asked whether one is ready."""

    def __init__(self, rows: int, columns: int, *, blended: bool) -> None:
        self.blocks = [Index(row, column) for row in range(rows) for column in range(columns)]
        self.known, self.done, self.blended, self.asked = set(self.blocks), set[Index](), blended, 0

    def near(self, block: Index, sign: int) -> list[Index]:
        steps = ((0, 1), (1, 0), (1, 1)) if self.blended else ()
        places = (Index(block.row + sign * down, block.column + sign * right) for down, right in steps)
        return [place for place in places if place in self.known]

    def missing(self) -> list[Index]:
        return [block for block in self.blocks if block not in self.done]

    def ready(self, block: Index) -> bool:
        self.asked += 1
        return all(near in self.done for near in self.near(block, -1))

    def later(self, block: Index) -> list[Index]:
        return self.near(block, 1)

    def dependencies(self, block: Index) -> tuple[Record, ...]:
        return ()

    def commit(self, record: Record) -> None:
        self.done.add(record.block)


def work(queue: Counted, front: Front, in_flight: int, chance: random.Random) -> list[Index]:
    """Commit all blocks, those in hand in any order; return them as they were taken."""
    taken: list[Index] = []
    running: list[Index] = []
    while front or running:
        found = front.take(in_flight - len(running))
        taken, running = taken + found, running + found
        block = running.pop(chance.randrange(len(running)))
        queue.commit(Record(block, "", 1))
        front.committed(block)
    return taken


def searched(queue: Counted, pending: list[Index], in_flight: int, chance: random.Random) -> list[Index]:
    """Return the same by looking through all that is pending every time."""
    taken: list[Index] = []
    running: list[Index] = []
    while pending or running:
        found = [block for block in pending if queue.ready(block)][: in_flight - len(running)]
        pending = [block for block in pending if block not in found]
        taken, running = taken + found, running + found
        queue.commit(Record(running.pop(chance.randrange(len(running))), "", 1))
    return taken


SIDES = st.integers(1, 6)


@given(SIDES, SIDES, st.booleans(), st.integers(1, 9), st.integers(0, 99), st.sets(st.integers(0, 35)))
def test_the_order_is_that_of_a_search_through_all(
    rows: int, columns: int, blended: bool, in_flight: int, seed: int, done: set[int]
) -> None:
    queues = [Counted(rows, columns, blended=blended) for _ in range(2)]
    for queue in queues:  # a resumed run: some blocks are done
        queue.done = {block for number, block in enumerate(queue.blocks) if number in done}
    pending = queues[0].missing()
    random.Random(seed).shuffle(pending)
    expected = searched(queues[0], list(pending), in_flight, random.Random(seed))
    assert work(queues[1], Front(queues[1], pending), in_flight, random.Random(seed)) == expected
    assert set(expected) == set(pending)


@pytest.mark.parametrize(("blended", "looks"), [(False, 1), (True, 4)])
@pytest.mark.parametrize("in_flight", [2, 64])
def test_a_block_is_looked_at_a_bounded_number_of_times(blended: bool, looks: int, in_flight: int) -> None:
    """Once, and again for each of the three neighbours that it may wait for; so the cost per block is flat."""
    for side in (8, 64):
        queue = Counted(side, side, blended=blended)
        work(queue, Front(queue, queue.missing()), in_flight, random.Random(0))
        assert len(queue.done) == side * side
        assert queue.asked <= looks * side * side
