"""Small blocks share a task, large ones have one each."""

from __future__ import annotations

import pytest

from tilepipe.execution.executors.pace import MOST, SECONDS, Pace


@pytest.mark.parametrize(("seconds", "blocks"), [(0.0, MOST), (0.001, MOST), (0.1, 5), (0.3, 1), (100.0, 1)])
def test_a_task_takes_about_half_a_second(seconds: float, blocks: int) -> None:
    pace = Pace()
    assert pace.blocks == 1, "nothing is known yet"
    for _ in range(3):
        pace.done(seconds)
    assert pace.blocks == blocks
    assert blocks == 1 or blocks * seconds <= SECONDS


def test_one_slow_block_does_not_decide_and_many_do() -> None:
    pace = Pace()
    for _ in range(50):
        pace.done(0.02)
    assert pace.blocks in (24, 25)  # half a second, but for rounding
    pace.done(0.2)
    assert pace.blocks > 10
    for _ in range(50):
        pace.done(2.0)
    assert pace.blocks == 1
