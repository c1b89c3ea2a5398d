"""This module defines the work directory of a run: labels and strips in Zarr, and the ledger that says what is done.

    .<output>.tilepipe/<key>/plan.json      what is computed
                             ledger.jsonl   one line per committed block: the truth about what is done
                             run.zarr/labels, layers/<name>, strips/<row>.<column>/{right,below,corner}
                             run.json       at the end

Arrays are made durable (see `durable_array`), and only then the ledger line is appended and fsynced. A chunk of
`labels` or of a layer is the zone of one block and has one writer. A ledger without its arrays counts for nothing: both
are begun anew.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import StorageError
from tilepipe.execution.durable_array import DurableArray, Layout
from tilepipe.execution.ledger import Record, begin_anew
from tilepipe.products.label_map import LABELS
from tilepipe.storage import storage_errors, sync
from tilepipe.tiling.grid import Index
from tilepipe.tiling.uncertainty import VOID


class Store:
    """The arrays of a run on the prediction grid: labels, layers, strips. Threads and processes can share them."""

    def __init__(self, directory: Path) -> None:
        """Open `directory`/run.zarr, made by `create`."""
        self.directory = directory
        self.root = directory / "run.zarr"
        self.labels = DurableArray(self.root / LABELS, directory)
        self.strips = self.root / "strips"

    @classmethod
    def create(cls, directory: Path, labels: Layout, layers: tuple[str, ...] = ()) -> Store:
        """Make the arrays, or open them if they exist: `labels` with a chunk per block, and the codes of `layers`."""
        root = directory / "run.zarr"
        if not (root / LABELS / "zarr.json").exists():
            # The ledger is removed first. A process that dies here leaves arrays without a ledger, which count for
            # nothing; the other order would leave a ledger that calls missing labels done.
            begin_anew(directory / "ledger.jsonl")
            for name in ("strips", LABELS, "layers"):
                shutil.rmtree(root / name, ignore_errors=True)
        strips = root / "strips"
        with storage_errors(strips):
            if not strips.exists():
                strips.mkdir(parents=True)
                sync(strips, directory.parent)
        for name in layers:
            DurableArray.create(root / "layers" / name, directory, replace(labels, dtype="uint8", fill=VOID))
        DurableArray.create(root / LABELS, directory, labels)  # it is made last: it says that all arrays exist
        return cls(directory)

    def array(self, name: str) -> DurableArray:
        """Return the array of the labels (`LABELS`), or of the codes of the named layer. Raises `StorageError`."""
        return self.labels if name == LABELS else DurableArray(self.root / "layers" / name, self.directory)

    def write_strip(self, block: Index, side: str, values: NDArray[np.int64]) -> str:
        """Write a strip, (classes, height, width), durably; return its sha256."""
        layout = Layout(values.shape, values.shape, "int64", flat=True)
        # Nothing above the block's own folder is new, and each name that is made durable takes the disk milliseconds.
        return DurableArray.create(self._strips(block) / side, self._strips(block), layout).write(values)

    def read_strip(self, block: Index, side: str, sha256: str) -> NDArray[np.int64]:
        """Return a strip, (classes, height, width). Raises `StorageError` if the strip does not have this sha256."""
        return DurableArray(self._strips(block) / side, self._strips(block)).checked(sha256)

    def has_strips(self, record: Record) -> bool:
        """Return whether all strips that a block has left for its neighbours are still there as they were written."""
        try:
            for side, sha256 in record.strips.items():
                self.read_strip(record.block, side, sha256)
        except StorageError:
            return False
        return True

    def drop_strips(self, block: Index) -> None:
        """Remove a block's strips, which no block needs any more."""
        shutil.rmtree(self._strips(block), ignore_errors=True)

    def drop(self) -> None:
        """Remove the arrays; the ledger stays as a record."""
        drop_arrays(self.directory)

    def _strips(self, block: Index) -> Path:
        return self.strips / f"{block.row}.{block.column}"


def drop_arrays(directory: Path) -> None:
    """Remove the arrays of a run, all at once from the next run's view; the ledger stays as a record."""
    gone = directory / "dropped"
    with storage_errors(directory):
        shutil.rmtree(gone, ignore_errors=True)
        if (directory / "run.zarr").exists():
            # Removing a large folder takes time and can be interrupted half way; a rename cannot be interrupted.
            os.rename(directory / "run.zarr", gone)
            sync(directory, directory)
        shutil.rmtree(gone, ignore_errors=True)
