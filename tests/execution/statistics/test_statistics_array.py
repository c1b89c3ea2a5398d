"""The array of a pass comes with its ledger, and a ledger without its array counts for nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tilepipe.box import Box
from tilepipe.execution.durable_array import Layout
from tilepipe.execution.ledger import Record
from tilepipe.execution.statistics.statistics_array import create_statistics, open_statistics
from tilepipe.tiling.grid import Index

FIELD = Layout((3, 5, 4), (1, 2, 4), "float32")


def test_an_array_is_kept_with_its_ledger(tmp_path: Path) -> None:
    array, ledger = create_statistics(tmp_path, "field", FIELD)
    values, box = np.random.default_rng(0).random((1, 2, 4), np.float32), Box(1, 2, 2, 4)
    ledger.append(Record(Index(1, 1), array.write(values, box), 2))
    again, ledger = create_statistics(tmp_path, "field", FIELD)
    assert list(ledger.done) == [Index(1, 1)]
    assert (again.checked(ledger.done[Index(1, 1)].sha256, box) == values).all()
    assert (open_statistics(tmp_path, "field").read(box) == values).all()


def test_a_ledger_without_its_array_counts_for_nothing(tmp_path: Path) -> None:
    array, ledger = create_statistics(tmp_path, "field", FIELD)
    ledger.append(Record(Index(0, 0), "x", 1))
    (array.path / "zarr.json").unlink()
    assert create_statistics(tmp_path, "field", FIELD)[1].done == {}
