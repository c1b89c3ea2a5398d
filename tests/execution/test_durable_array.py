"""Durable arrays: written, synced, hashed; compared with Zarr's own reader."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import zarr

from tilepipe.box import Box
from tilepipe.errors import StorageError
from tilepipe.execution.durable_array import DurableArray, Layout

FIELD = Layout((3, 5, 4), (1, 2, 4), "float32")
BOX = Box(1, 2, 2, 4)
VALUES = np.random.default_rng(0).random((1, 2, 4), np.float32)


@pytest.fixture
def field(tmp_path: Path) -> DurableArray:
    return DurableArray.create(tmp_path / "run" / "run.zarr" / "field", tmp_path / "run", FIELD)


def test_zarr_reads_what_was_written_and_the_rest_is_the_fill_value(tmp_path: Path) -> None:
    labels = DurableArray.create(tmp_path / "labels", tmp_path, Layout((70, 100), (32, 40), "uint16", 65535))
    values = np.random.default_rng(0).integers(0, 999, (32, 40), np.uint16)
    sha256 = labels.write(values, Box(32, 40, 64, 80))
    assert sha256 == hashlib.sha256(values.tobytes()).hexdigest()
    found = zarr.open_array(tmp_path / "labels", mode="r")[:]
    assert (found[32:64, 40:80] == values).all()
    assert (found != 65535).sum() == values.size
    assert (labels.read(Box(20, 30, 70, 100)) == found[20:, 30:]).all()


def test_a_third_axis_belongs_to_every_box(field: DurableArray) -> None:
    sha256 = field.write(VALUES, BOX)
    again = DurableArray(field.path, field.top)
    assert (again.checked(sha256, BOX) == VALUES).all()
    assert not again.read(Box(0, 0, 1, 5)).any()
    field.write(VALUES + 1, BOX)
    with pytest.raises(StorageError, match=r"field does not match its ledger at .*give the same command again"):
        again.checked(sha256, BOX)


def test_a_whole_array_is_hashed_with_its_shape(tmp_path: Path) -> None:
    values = np.arange(24).reshape(2, 3, 4)
    hashes = set()
    for shape in (2, 3, 4), (4, 3, 2):
        strip = DurableArray.create(tmp_path / "strip", tmp_path, Layout(shape, shape, "int64"))
        sha256 = strip.write(values.reshape(shape))
        assert (DurableArray(tmp_path / "strip", tmp_path).checked(sha256) == values.reshape(shape)).all()
        hashes.add(sha256)
    assert len(hashes) == 2


def test_every_file_and_folder_up_to_the_run_is_synced(field: DurableArray, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda handle: (synced.append(os.readlink(f"/proc/self/fd/{handle}")), real(handle))
    )
    field.write(VALUES, BOX)
    chunk = field.path / "c" / "1" / "1" / "0"
    assert set(synced) == {str(chunk), *(str(above) for above in chunk.parents if above.is_relative_to(field.top))}


def test_a_chunk_of_the_fill_value_alone_is_not_stored(field: DurableArray) -> None:
    field.write(VALUES, BOX)
    assert field.state(BOX)[0] is not None
    sha256 = field.write(np.zeros_like(VALUES), BOX)
    assert field.state(BOX) == [None]
    assert not field.checked(sha256, BOX).any()


def test_the_state_changes_with_each_write(field: DurableArray) -> None:
    field.write(VALUES, BOX)
    before = field.state(BOX)
    field.write(VALUES, BOX)
    assert field.state(BOX) != before
    assert len(field.state(Box(0, 0, 3, 5))) == 9


def test_damaged_metadata_are_put_right_and_values_stay(field: DurableArray) -> None:
    sha256 = field.write(VALUES, BOX)
    (field.path / "zarr.json").write_text("{")
    with pytest.raises(StorageError, match="field is missing or corrupt"):
        DurableArray(field.path, field.top)
    again = DurableArray.create(field.path, field.top, FIELD)
    assert (again.checked(sha256, BOX) == VALUES).all()


def test_a_corrupt_chunk_is_named(field: DurableArray) -> None:
    field.write(VALUES, BOX)
    chunk = field.path / "c" / "1" / "1" / "0"
    chunk.write_bytes(b"x" + chunk.read_bytes()[1:])
    with pytest.raises(StorageError, match=r"field is corrupt at .*give the same command again"):
        field.read(BOX)
