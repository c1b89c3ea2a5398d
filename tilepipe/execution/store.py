"""Store: the work directory of a run. Labels and strips in Zarr, and the ledger that says what is done.

    .<output>.tilepipe/<key>/plan.json      what is computed
                             ledger.jsonl   one line per committed block: the truth about what is done
                             run.zarr/labels, layers/<name>, strips/<row>.<column>/{right,below,corner}
                             run.json       at the end

Data is written to a temporary name and renamed by Zarr, then the file and the directories up to the run's are fsynced,
and only then the ledger line is appended and fsynced. A chunk of `labels` or of a layer is the zone of one block and
has one writer. A ledger without its arrays counts for nothing: it is begun anew with them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, Crc32cCodec, ZstdCodec

from tilepipe.box import Box
from tilepipe.errors import StorageError
from tilepipe.execution.ledger import AGAIN, Record
from tilepipe.storage import storage_errors, sync, write_durably
from tilepipe.tiling.grid import Index

DAMAGED = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError)
"""What Zarr raises for arrays that are not what was written."""


class Store:
    """The Zarr arrays of a run on the prediction grid: labels, layers, strips. Safe under threads and processes."""

    def __init__(self, directory: Path) -> None:
        """Open `directory`/run.zarr, made by `create`."""
        self.directory = directory
        self.root = directory / "run.zarr"
        self.labels: Any = opened(self.root / "labels")

    @classmethod
    def create(
        cls, directory: Path, shape: tuple[int, int], chunk: tuple[int, int], dtype: str, nodata: int,
        layers: tuple[str, ...] = (),
    ) -> Store:  # fmt: skip
        """Make the arrays, or open them where they are: labels of `shape`, a chunk per block, filled with nodata.

        `layers` are arrays beside them, of uint8 filled with 255.
        """
        root = directory / "run.zarr"
        arrays = [(f"layers/{name}", "uint8", 255) for name in layers] + [("labels", dtype, nodata)]
        if not (root / "labels" / "zarr.json").exists():
            with storage_errors(directory):
                directory.mkdir(parents=True, exist_ok=True)
                (directory / "ledger.jsonl").unlink(missing_ok=True)
                sync(directory, directory)
                for name in ("strips", "labels", "layers"):
                    shutil.rmtree(root / name, ignore_errors=True)
        for name, kind, fill in arrays:  # labels last: they say that all is there
            described = Layout(shape, chunk, kind, fill, BytesCodec())
            make_array(root / name, described, directory.parent)
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
            raise StorageError(f"{self.root}/{name} does not match its ledger at {zone}; {AGAIN}")

    def state(self, zone: Box, layer: str = "") -> list[tuple[int, ...] | None]:
        """Return what changes when the files of a committed block are written again; None for one that is not there."""
        return [_state(file) for file in self._chunks(f"layers/{layer}" if layer else "labels", zone)]

    def _chunks(self, name: str, zone: Box) -> list[Path]:
        """Return the files of a block's chunks, whether they are there or not; the last block of a row has several."""
        tall, wide = self.labels.chunks
        rows, columns = range(zone.y0 // tall, -(-zone.y1 // tall)), range(zone.x0 // wide, -(-zone.x1 // wide))
        return [self.root / name / "c" / str(row) / str(column) for row in rows for column in columns]

    def _array(self, name: str) -> Any:
        return self.labels if name == "labels" else opened(self.root / name)

    def _write(self, name: str, zone: Box, values: NDArray[Any]) -> str:
        with storage_errors(self.root):
            array = self._array(name)
            array[zone.y0 : zone.y1, zone.x0 : zone.x1] = values
            for chunk in self._chunks(name, zone):
                if chunk.exists():  # an all-nodata chunk is not stored
                    sync(chunk, self.directory)
        return _sha256(values)

    def _read(self, name: str, box: Box) -> NDArray[Any]:
        try:
            return np.asarray(self._array(name)[box.y0 : box.y1, box.x0 : box.x1])
        except DAMAGED as error:
            raise StorageError(f"{self.root}/{name} is corrupt at {box}: {error}; {AGAIN}") from None

    def write_strip(self, block: Index, side: str, values: NDArray[np.int64]) -> str:
        """Write a strip, (classes, height, width), durably; return its sha256."""
        with storage_errors(self.root):
            path = self._strips(block) / side
            zarr.create_array(
                path, data=values, chunks=values.shape, compressors=[ZstdCodec(level=1), Crc32cCodec()], overwrite=True
            )
            sync(path / "zarr.json", self.directory)
            if values.any():
                sync(path / "c" / "0" / "0" / "0", path)
        return _sha256_of_strip(values)

    def read_strip(self, block: Index, side: str, sha256: str) -> NDArray[np.int64]:
        """Return a strip, (classes, height, width). Raises `StorageError` when it is not the one of this sha256."""
        path = self._strips(block) / side
        try:
            values = np.asarray(zarr.open_array(path, mode="r")[:], dtype=np.int64)
        except DAMAGED as error:
            raise StorageError(f"{path} is missing or corrupt: {error}; {AGAIN}") from None
        if _sha256_of_strip(values) != sha256:
            raise StorageError(f"{path} does not match its ledger; {AGAIN}")
        return values

    def has_strips(self, record: Record) -> bool:
        """Return whether all that a block has left for its neighbours is still there as it was written."""
        try:
            for side, sha256 in record.strips.items():
                self.read_strip(record.block, side, sha256)
        except StorageError:
            return False
        return True

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


@dataclass(frozen=True)
class Layout:
    """How an array lies in Zarr: all that its metadata says."""

    shape: tuple[int, ...]
    """Of the array."""
    chunk: tuple[int, ...]
    """Shape of a chunk."""
    dtype: str
    """Of its values."""
    fill: int | float = 0
    """Value where nothing is stored."""
    serializer: Any = "auto"
    """Codec between values and bytes."""

    def metadata(self) -> bytes:
        """Return the content of zarr.json: a pure function of the layout."""
        files: dict[str, Any] = {}
        store = zarr.storage.MemoryStore(files)
        zarr.create_array(
            store, shape=self.shape, chunks=self.chunk, dtype=self.dtype, fill_value=self.fill,
            serializer=self.serializer, compressors=[ZstdCodec(level=1), Crc32cCodec()],
        )  # fmt: skip
        return bytes(files["zarr.json"].to_bytes())


def make_array(path: Path, layout: Layout, top: Path) -> None:
    """Make an array, durable up to `top`; where there is one its metadata, if damaged, is put right."""
    file, wanted = path / "zarr.json", layout.metadata()
    with storage_errors(path):
        if file.exists() and file.read_bytes() == wanted:
            return
        path.mkdir(parents=True, exist_ok=True)
        write_durably(file, wanted.decode())
        sync(path, top)


def opened(path: Path) -> Any:
    """Return an array of a run. Raises `StorageError` when its metadata is missing or damaged."""
    try:
        return zarr.open_array(path, mode="r+")
    except DAMAGED as error:
        raise StorageError(f"{path} is missing or corrupt: {error}; {AGAIN}") from None


def _state(file: Path) -> tuple[int, ...] | None:
    try:
        found = os.stat(file)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _sha256(labels: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(labels).data).hexdigest()


def _sha256_of_strip(values: NDArray[np.int64]) -> str:
    return hashlib.sha256(f"{values.shape}".encode() + np.ascontiguousarray(values).tobytes()).hexdigest()
