"""The work directory: durable in the right order, torn ledgers, corrupt data, one lock."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilepipe.box import Box
from tilepipe.errors import LockedError, StorageError
from tilepipe.execution.durable_array import Layout
from tilepipe.execution.ledger import Ledger, Record
from tilepipe.execution.store import Store, drop_arrays
from tilepipe.storage import locked, storage_errors, write_durably
from tilepipe.tiling.grid import Index

SHAPE, CHUNK = (70, 100), (32, 40)
LAYOUT = Layout(SHAPE, CHUNK, "uint8", 255)
ZONE = Box(32, 40, 64, 80)
LABELS = np.random.default_rng(0).integers(0, 5, ZONE.shape, dtype=np.uint8)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "run", LAYOUT)


def chunks(store: Store) -> list[str]:
    folder = store.root / "labels" / "c"
    return sorted(str(path.relative_to(folder)) for path in folder.glob("*/*")) if folder.exists() else []


def record(k: int = 0) -> Record:
    return Record(Index(k, 2 * k), "ab" * 32, k, ("tile at [0, 0, 1, 1] is damaged: '\"\n",) * (k % 2), 0.5)


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths in the order in which they are made durable."""
    paths: list[str] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        paths.append(os.readlink(f"/proc/self/fd/{handle}"))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    return paths


def test_labels_come_back_and_the_rest_is_nodata(store: Store) -> None:
    store.labels.write(LABELS, ZONE)
    whole = store.labels.read(Box.of_shape(*SHAPE))
    assert (whole[ZONE.slices_in(Box.of_shape(*SHAPE))] == LABELS).all()
    assert (whole != 255).sum() == ZONE.area
    assert chunks(store) == ["1/1"], "one chunk, one writer"


def test_the_last_zone_may_take_a_little_more(store: Store) -> None:
    zone = Box(32, 40, 70, 100)
    labels = np.ones(zone.shape, np.uint8)
    store.labels.write(labels, zone)
    assert chunks(store) == ["1/1", "1/2", "2/1", "2/2"]
    assert (store.labels.read(zone) == 1).all()


def test_nodata_alone_is_not_stored_but_known(store: Store) -> None:
    digest = store.labels.write(np.full(ZONE.shape, 255, np.uint8), ZONE)
    assert chunks(store) == []
    store.labels.checked(digest, ZONE)


def test_uint16(tmp_path: Path) -> None:
    store = Store.create(tmp_path, Layout(SHAPE, CHUNK, "uint16", 65535))
    store.labels.write(LABELS.astype(np.uint16) + 300, ZONE)
    assert (store.labels.read(ZONE) == LABELS.astype(np.uint16) + 300).all()
    assert (store.labels.read(Box(0, 0, 5, 5)) == 65535).all()


def test_data_is_durable_before_the_ledger_says_so(tmp_path: Path, synced: list[str]) -> None:
    """Each new file, and each folder between it and the run's, before the ledger line."""
    store = Store.create(tmp_path / "run", LAYOUT)
    made = len(synced)
    run = str(tmp_path / "run")
    assert {f"{run}/run.zarr/labels/zarr.json", f"{run}/run.zarr/labels", f"{run}/run.zarr", run} <= set(synced)
    store.labels.write(LABELS, ZONE)
    store.write_strip(Index(0, 0), "right", np.ones((2, 3, 4), np.int64))
    Ledger(tmp_path / "run" / "ledger.jsonl").append(record())
    ledger = synced.index(f"{run}/ledger.jsonl")
    before = set(synced[made:ledger])
    labels, strip = f"{run}/run.zarr/labels", f"{run}/run.zarr/strips/0.0/right"
    assert {f"{labels}/c/1/1", f"{labels}/c/1", f"{labels}/c", labels, run} <= before
    assert {f"{strip}/zarr.json", f"{strip}/c.0.0.0", strip} <= before
    assert {f"{run}/run.zarr/strips/0.0", f"{run}/run.zarr/strips"} <= before
    assert synced[ledger + 1] == run, "the ledger's own entry"


def test_opening_again_keeps_everything(store: Store) -> None:
    digest = store.labels.write(LABELS, ZONE)
    Ledger(store.directory / "ledger.jsonl").append(record())
    again = Store.create(store.directory, LAYOUT)
    again.labels.checked(digest, ZONE)
    assert len(Ledger(store.directory / "ledger.jsonl").done) == 1


def test_a_ledger_without_arrays_is_begun_anew(store: Store) -> None:
    Ledger(store.directory / "ledger.jsonl").append(record())
    shutil.rmtree(store.root)
    Store.create(store.directory, LAYOUT)
    assert Ledger(store.directory / "ledger.jsonl").done == {}


@pytest.mark.parametrize("left", ["nothing", "half"])
def test_dropping_is_all_or_nothing(store: Store, left: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that dies while the arrays are removed leaves none that the next run would believe."""
    store.labels.write(LABELS, ZONE)
    if left == "half":
        monkeypatch.setattr(shutil, "rmtree", lambda path, **how: None)
    store.drop()
    assert not store.root.exists()
    monkeypatch.undo()
    drop_arrays(store.directory)
    assert os.listdir(store.directory) == []


def test_lost_and_changed_labels_are_noticed(store: Store) -> None:
    digest = store.labels.write(LABELS, ZONE)
    store.labels.checked(digest, ZONE)
    (store.root / "labels" / "c" / "1" / "1").unlink()
    with pytest.raises(StorageError, match="does not match its ledger"):
        store.labels.checked(digest, ZONE)


@pytest.mark.parametrize("spoil", ["flip", "cut", "empty"])
def test_corrupt_labels_are_an_error_that_says_what_to_do(store: Store, spoil: str) -> None:
    store.labels.write(LABELS, ZONE)
    chunk = store.root / "labels" / "c" / "1" / "1"
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes({"flip": bytes(content), "cut": bytes(content[: len(content) // 2]), "empty": b""}[spoil])
    with pytest.raises(StorageError, match=r"labels is corrupt at .*; give the same command again"):
        store.labels.read(ZONE)


@pytest.mark.parametrize("values", [np.arange(24) - 12, np.zeros(24), np.full(24, -(1 << 60)), np.full(24, 1 << 60)])
def test_strips_come_back_until_they_are_dropped(store: Store, values: np.ndarray) -> None:
    strip = values.astype(np.int64).reshape(2, 3, 4)
    store.write_strip(Index(3, 4), "below", strip)
    sha256 = store.write_strip(Index(3, 4), "below", strip)  # a block that is computed again
    assert (store.read_strip(Index(3, 4), "below", sha256) == strip).all()
    with pytest.raises(StorageError, match=r"3\.4/right is missing or corrupt"):
        store.read_strip(Index(3, 4), "right", sha256)
    other = store.write_strip(Index(3, 4), "right", strip.reshape(4, 3, 2))
    assert other != sha256, "the same numbers in another shape are another strip"
    with pytest.raises(StorageError, match=r"3\.4/below does not match its ledger"):
        store.read_strip(Index(3, 4), "below", other)
    store.drop_strips(Index(3, 4))
    store.drop_strips(Index(3, 4))
    with pytest.raises(StorageError):
        store.read_strip(Index(3, 4), "below", sha256)


def test_ledger_round_trip(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for k in range(4):
        ledger.append(record(k))
    assert Ledger(tmp_path / "ledger.jsonl").done == {record(k).block: record(k) for k in range(4)}
    assert len((tmp_path / "ledger.jsonl").read_text().splitlines()) == 4


@given(cut=st.integers(0, 700), junk=st.sampled_from([b"", b"\0\0\0", b"{", b'{"block": 3}\n', b"\xff\xfe\n"]))
def test_a_torn_ledger_keeps_its_whole_lines_and_goes_on(
    cut: int, junk: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("torn") / "ledger.jsonl"
    ledger = Ledger(path)
    for k in range(4):
        ledger.append(record(k))
    content = path.read_bytes()
    path.write_bytes(content[:cut] + junk)
    ends = [place for place, byte in enumerate(content) if byte == ord("\n")]
    whole = sum(end < cut or (end == cut and not junk) for end in ends)  # a line may lack its end alone
    again = Ledger(path)
    assert len(again.done) == whole
    again.append(record(9))
    assert set(Ledger(path).done) == {Index(k, 2 * k) for k in (*range(whole), 9)}


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_durably(tmp_path / "plan.json", "old")

    def fail(*paths: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(
        StorageError, match=r"plan\.json \(No space left on device\); free some space .*; \d+ MiB are free there"
    ):
        write_durably(tmp_path / "plan.json", "new")
    assert (tmp_path / "plan.json").read_text() == "old"
    monkeypatch.undo()
    write_durably(tmp_path / "plan.json", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]
    assert (tmp_path / "plan.json").read_text() == "new"


def test_only_what_the_system_says_becomes_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), storage_errors(tmp_path):
        raise ZeroDivisionError
    with pytest.raises(StorageError, match="cannot write: /nowhere/x may not be"), storage_errors(Path("/nowhere/x")):
        raise PermissionError(13, "Permission denied")


HOLD = """
import sys, time
from pathlib import Path
from tilepipe.storage import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_one_lock_across_processes_gone_when_its_holder_is_killed(tmp_path: Path) -> None:
    lock = tmp_path / ".out.tif.lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, lock], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LockedError, match="another run holds"), locked(lock):
            pass
        holder.kill()
    with locked(lock), pytest.raises(LockedError), locked(tmp_path / "a", lock):
        pass
    with locked(tmp_path / "a", lock):
        pass
    assert os.listdir(tmp_path) == []
