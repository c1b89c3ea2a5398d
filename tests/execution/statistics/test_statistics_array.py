"""Vectors: written per chunk, read by box, checked against their ledger."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tilepipe.box import Box
from tilepipe.errors import StorageError
from tilepipe.execution.ledger import Record
from tilepipe.execution.statistics.statistics_array import Vectors
from tilepipe.tiling.grid import Index


def test_boxes_are_kept_with_their_ledger(tmp_path: Path) -> None:
    vectors = Vectors.create(tmp_path, "field", (3, 5, 4), 2, "float32")
    values = np.random.default_rng(0).random((1, 2, 4), np.float32)
    box = Box(1, 2, 2, 4)
    sha256 = vectors.write(box, values)
    vectors.ledger().append(Record(Index(1, 1), sha256, 2))
    again = Vectors.create(tmp_path, "field", (3, 5, 4), 2, "float32")
    assert (again.read(box) == values).all()
    assert not again.read(Box(0, 0, 1, 5)).any()
    assert list(again.ledger().done) == [Index(1, 1)]
    again.checked(box, sha256)
    again.write(box, values + 1)
    with pytest.raises(StorageError, match="does not match its ledger"):
        again.checked(box, sha256)


def test_a_ledger_without_its_array_counts_for_nothing(tmp_path: Path) -> None:
    vectors = Vectors.create(tmp_path, "field", (1, 1, 2), 1, "float64")
    vectors.ledger().append(Record(Index(0, 0), "x", 1))
    (tmp_path / "run.zarr" / "field" / "zarr.json").unlink()
    assert Vectors.create(tmp_path, "field", (1, 1, 2), 1, "float64").ledger().done == {}


def test_a_corrupt_chunk_is_named(tmp_path: Path) -> None:
    vectors = Vectors.create(tmp_path, "field", (1, 1, 2), 1, "float64")
    vectors.write(Box(0, 0, 1, 1), np.ones((1, 1, 2)))
    chunk = tmp_path / "run.zarr" / "field" / "c" / "0" / "0" / "0"
    chunk.write_bytes(b"x" + chunk.read_bytes()[1:])
    with pytest.raises(StorageError, match="corrupt"):
        vectors.read(Box(0, 0, 1, 1))
