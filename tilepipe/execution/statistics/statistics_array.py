"""Vectors of a run: what a pass for statistics has found, in Zarr beside the labels, with a ledger of its own.

    <key>/<name>.jsonl        one line per committed chunk
    <key>/run.zarr/<name>     (rows, columns, values), a chunk per unit of work

The same order as in `store`: data, fsync, ledger line. A ledger without its array counts for nothing.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.box import Box
from tilepipe.errors import StorageError
from tilepipe.execution.ledger import AGAIN, Ledger
from tilepipe.execution.store import Layout, make_array, opened
from tilepipe.storage import storage_errors, sync


class Vectors:
    """An array of (rows, columns, values) numbers; boxes are rows and columns. Safe under threads and processes."""

    def __init__(self, directory: Path, name: str) -> None:
        """Open the array `name` of a work directory, made by `create`."""
        self.directory, self.name = directory, name
        self.path = directory / "run.zarr" / name
        self._array: Any = opened(self.path)

    @classmethod
    def create(cls, directory: Path, name: str, shape: tuple[int, int, int], columns: int, dtype: str) -> Vectors:
        """Make the array with `columns` columns per chunk, or open it where it is."""
        path = directory / "run.zarr" / name
        if not (path / "zarr.json").exists():
            with storage_errors(directory):
                directory.mkdir(parents=True, exist_ok=True)
                (directory / f"{name}.jsonl").unlink(missing_ok=True)
                sync(directory, directory)
        make_array(path, Layout(shape, (1, columns, shape[2]), dtype), directory.parent)
        return cls(directory, name)

    def ledger(self) -> Ledger:
        """Return what is committed."""
        return Ledger(self.directory / f"{self.name}.jsonl")

    def write(self, box: Box, values: NDArray[Any]) -> str:
        """Write a part of one chunk, durably; return its sha256."""
        with storage_errors(self.path):
            self._array[box.y0 : box.y1, box.x0 : box.x1] = values
            chunk = self.path / "c" / str(box.y0) / str(box.x0 // self._array.chunks[1]) / "0"
            if chunk.exists():  # one that holds zeros only is not stored
                sync(chunk, self.directory)
        return _sha256(values)

    def read(self, box: Box) -> NDArray[Any]:
        """Return the values of `box`, (rows, columns, values). Raises `StorageError` on corrupt data."""
        try:
            return np.asarray(self._array[box.y0 : box.y1, box.x0 : box.x1])
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise StorageError(f"{self.path} is corrupt at {box}: {error}; {AGAIN}") from None

    def checked(self, box: Box, sha256: str) -> NDArray[Any]:
        """Return the values of `box`. Raises `StorageError` when they are not those that were committed."""
        values = self.read(box)
        if _sha256(values) != sha256:
            raise StorageError(f"{self.path} does not match its ledger at {box}; {AGAIN}")
        return values


def _sha256(values: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()
