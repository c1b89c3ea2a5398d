"""Stopping: what follows from the validations so far. A row is (step, mean IoU, IoU per class), in order of steps."""

from __future__ import annotations

from collections.abc import Sequence

from tilepipe.train.config import TrainConfig

Rows = Sequence[Sequence[float]]


def best(rows: Rows) -> int:
    """Return the index of the first row with the largest mean IoU; -1 without rows."""
    return max(range(len(rows)), key=lambda k: rows[k][1], default=-1)


def waited(rows: Rows, min_gain: float) -> int:
    """Return how many validations have passed since the last that beat those before by more than `min_gain`."""
    reached, passed = -1.0, 0
    for row in rows:
        gained = row[1] > reached + min_gain or reached < 0
        reached, passed = (row[1], 0) if gained else (reached, passed + 1)
    return passed


def stopped(rows: Rows, config: TrainConfig) -> bool:
    """Return whether training ends here because validation does not get better."""
    return config.patience is not None and waited(rows, config.min_gain) >= config.patience
