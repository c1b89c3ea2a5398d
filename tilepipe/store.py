"""Store: the work directory of a run. Labels and strips in Zarr, and the ledger that says what is done.

    .<output>.tilepipe/lock             held while a run works here
    .<output>.tilepipe/<key>/plan.json  what is computed
                             ledger.jsonl   one line per committed block: the truth about what is done
                             run.zarr/labels, layers/<name>, strips/<row>.<column>/{right,below,corner}
                             run.json       at the end

Data is written to a temporary name and renamed by Zarr, then the file and the directories up to the run's are fsynced,
and only then the ledger line is appended and fsynced. A chunk of `labels` or of a layer is the zone of one block and
has one writer. A ledger without its arrays counts for nothing: it is begun anew with them.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, Crc32cCodec, ZstdCodec

from tilepipe.box import Box
from tilepipe.errors import LockedError, StorageError
from tilepipe.grid import Index


@dataclass(frozen=True)
class Record:
    """A committed block; one line of the ledger."""

    block: Index
    """Which block."""
    sha256: str
    """Of the block's labels, C order; of nothing where no pixel was valid."""
    tiles: int
    """Tiles predicted."""
    failed: tuple[str, ...] = ()
    """What went wrong with tiles that could not be read; their pixels are nodata."""
    seconds: float = 0.0
    """Wall time."""
    layers: tuple[str, ...] = ()
    """sha256 of the block's codes by uncertainty layer, in the order of the plan."""

    def to_line(self) -> str:
        """Return the ledger line."""
        return json.dumps({**asdict(self), "block": list(self.block)}) + "\n"

    @classmethod
    def from_line(cls, line: str) -> Record:
        """Parse a ledger line. Raises ValueError, KeyError or TypeError when it is torn."""
        fields = json.loads(line)
        lists = {name: tuple(fields[name]) for name in ("failed", "layers") if name in fields}
        return cls(**{**fields, **lists, "block": Index(*fields["block"])})


class Ledger:
    """Append-only JSON lines; a torn last line, left by a crash, is cut off when the ledger is opened."""

    def __init__(self, path: Path) -> None:
        """Read what is there."""
        self.path = path
        self.done: dict[Index, Record] = {}
        whole = 0
        for line in path.read_bytes().splitlines(keepends=True) if path.exists() else []:
            try:
                record = Record.from_line(line.decode()) if line.endswith(b"\n") else None
            except (ValueError, KeyError, TypeError):
                record = None
            if record is None:
                break
            self.done[record.block] = record
            whole += len(line)
        if path.exists():
            with storage_errors(path):
                os.truncate(path, whole)

    def append(self, record: Record) -> None:
        """Add a line and make it durable."""
        with storage_errors(self.path), self.path.open("ab") as file:
            file.write(record.to_line().encode())
            file.flush()
            sync(self.path, self.path.parent)
        self.done[record.block] = record


class Store:
    """The Zarr arrays of a run on the prediction grid: labels, layers, strips. Safe under threads and processes."""

    def __init__(self, directory: Path) -> None:
        """Open `directory`/run.zarr, made by `create`."""
        self.directory = directory
        self.root = directory / "run.zarr"
        self.labels: Any = zarr.open_array(self.root / "labels", mode="r+")

    @classmethod
    def create(
        cls, directory: Path, shape: tuple[int, int], chunk: tuple[int, int], dtype: str, nodata: int,
        layers: tuple[str, ...] = (),
    ) -> Store:  # fmt: skip
        """Make the arrays, or open them where they are: labels of `shape`, a chunk per block, filled with nodata.

        `layers` are arrays beside them, of uint8 filled with 255.
        """
        made = directory / "run.zarr" / "labels" / "zarr.json"
        wanted = [(f"layers/{name}", "uint8", 255) for name in layers]
        with storage_errors(directory):
            if not made.exists():
                directory.mkdir(parents=True, exist_ok=True)
                (directory / "ledger.jsonl").unlink(missing_ok=True)
                sync(directory, directory)
                for name, kind, fill in (*wanted, ("labels", dtype, nodata)):  # labels last: they say that all is there
                    zarr.create_array(
                        directory / "run.zarr", name=name, shape=shape, chunks=chunk, dtype=kind, fill_value=fill,
                        serializer=BytesCodec(), compressors=[ZstdCodec(level=1), Crc32cCodec()], overwrite=True,
                    )  # fmt: skip
                    sync(directory / "run.zarr" / name / "zarr.json", directory.parent)
        return cls(directory)

    def write_labels(self, zone: Box, labels: NDArray[Any]) -> str:
        """Write the labels of a block's zone, durably; return their sha256."""
        return self._write("labels", zone, labels)

    def write_layer(self, name: str, zone: Box, codes: NDArray[np.uint8]) -> str:
        """Write the codes of an uncertainty layer at a block's zone, durably; return their sha256."""
        return self._write(f"layers/{name}", zone, codes)

    def read_labels(self, box: Box) -> NDArray[Any]:
        """Return the labels of `box`; nodata where nothing is computed yet. Raises `StorageError` on corrupt data."""
        return self._read("labels", box)

    def read_layer(self, name: str, box: Box) -> NDArray[Any]:
        """Return the codes of a layer at `box`; 255 where nothing is computed yet. Raises `StorageError`."""
        return self._read(f"layers/{name}", box)

    def check(self, zone: Box, sha256: str, layer: str = "") -> None:
        """Raise `StorageError` when the labels, or codes, of a committed block are not those that were written."""
        name = f"layers/{layer}" if layer else "labels"
        if _sha256(self._read(name, zone)) != sha256:
            raise StorageError(f"{self.root}/{name} does not match its ledger at {zone}; remove {self.directory}")

    def _array(self, name: str) -> Any:
        return self.labels if name == "labels" else zarr.open_array(self.root / name, mode="r+")

    def _write(self, name: str, zone: Box, values: NDArray[Any]) -> str:
        with storage_errors(self.root):
            array = self._array(name)
            array[zone.y0 : zone.y1, zone.x0 : zone.x1] = values
            for row in range(zone.y0 // array.chunks[0], -(-zone.y1 // array.chunks[0])):
                for column in range(zone.x0 // array.chunks[1], -(-zone.x1 // array.chunks[1])):
                    chunk = self.root / name / "c" / str(row) / str(column)
                    if chunk.exists():  # an all-nodata chunk is not stored
                        sync(chunk, self.directory)
        return _sha256(values)

    def _read(self, name: str, box: Box) -> NDArray[Any]:
        try:
            return np.asarray(self._array(name)[box.y0 : box.y1, box.x0 : box.x1])
        except (OSError, ValueError, RuntimeError) as error:
            raise StorageError(f"{self.root}/{name} is corrupt at {box}: {error}; remove {self.directory}") from None

    def write_strip(self, block: Index, side: str, values: NDArray[np.int64]) -> None:
        """Write a strip, (classes, height, width), durably."""
        with storage_errors(self.root):
            path = self._strips(block) / side
            zarr.create_array(
                path, data=values, chunks=values.shape, compressors=[ZstdCodec(level=1), Crc32cCodec()], overwrite=True
            )
            sync(path / "zarr.json", self.directory)
            if values.any():
                sync(path / "c" / "0" / "0" / "0", path)

    def read_strip(self, block: Index, side: str) -> NDArray[np.int64]:
        """Return a strip, (classes, height, width)."""
        path = self._strips(block) / side
        try:
            return np.asarray(zarr.open_array(path, mode="r")[:], dtype=np.int64)
        except (OSError, ValueError, RuntimeError) as error:
            raise StorageError(f"{path} is missing or corrupt: {error}; remove {self.directory}") from None

    def drop_strips(self, block: Index) -> None:
        """Remove a block's strips; nobody needs them any more."""
        shutil.rmtree(self._strips(block), ignore_errors=True)

    def drop(self) -> None:
        """Remove the arrays; the ledger stays as a record."""
        drop_arrays(self.directory)

    def _strips(self, block: Index) -> Path:
        return self.root / "strips" / f"{block.row}.{block.column}"


def drop_arrays(directory: Path) -> None:
    """Remove the arrays of a run, all at once as far as the next run can tell; its ledger stays as a record."""
    gone = directory / "dropped"
    with storage_errors(directory):
        shutil.rmtree(gone, ignore_errors=True)
        if (directory / "run.zarr").exists():
            os.rename(directory / "run.zarr", gone)
            sync(directory, directory)
        shutil.rmtree(gone, ignore_errors=True)


def _sha256(labels: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(labels).data).hexdigest()


def sync(path: Path, top: Path) -> None:
    """Make a file or folder durable, and its entries in the folders above it up to `top`."""
    target = path
    while True:
        handle = os.open(target, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        if target in (top, target.parent):
            return
        target = target.parent


def sync_tree(path: Path) -> None:
    """Make a file, or a folder with all that is in it, durable."""
    for inside in sorted(path.rglob("*")) if path.is_dir() else ():
        sync(inside, inside)
    sync(path, path)


def write_durably(path: Path, text: str) -> None:
    """Write a small file so that it is there whole or not at all. Raises `StorageError`."""
    with storage_errors(path):
        part = path.with_name(path.name + ".part")
        part.write_text(text, encoding="utf-8")
        sync(part, part)
        os.replace(part, path)
        sync(path, path.parent)


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn what the operating system says about `path` (full, not writable) into `StorageError`."""
    try:
        yield
    except OSError as error:
        free = _free(path)
        raise StorageError(f"cannot write {path}: {error.strerror or error}; {free >> 20} MiB free there") from None


def _free(path: Path) -> int:
    while not path.exists() and path != path.parent:
        path = path.parent
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return 0


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the lock of a work directory. Raises `LockedError` when another run holds it."""
    with storage_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        file = (directory / "lock").open("a+")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(f"another run works in {directory}; wait for it or choose another output") from None
        yield
