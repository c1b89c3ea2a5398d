"""Store: the work directory of a run. Labels and strips in Zarr, and the ledger that says what is done.

    .<output>.tilepipe/<key>/plan.json      what is computed
                             ledger.jsonl   one line per committed block: the truth about what is done
                             run.zarr/labels, layers/<name>, strips/<row>.<column>/{right,below,corner}
                             run.json       at the end

Arrays are made durable (see `durable_array`), and only then the ledger line is appended and fsynced. A chunk of
`labels` or of a layer is the zone of one block and has one writer. A ledger without its arrays counts for nothing: it
is begun anew with them.
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
    """The arrays of a run on the prediction grid: labels, layers, strips. Safe under threads and processes."""

    def __init__(self, directory: Path) -> None:
        """Open `directory`/run.zarr, made by `create`."""
        self.directory = directory
        self.root = directory / "run.zarr"
        self.labels = DurableArray(self.root / LABELS, directory)

    @classmethod
    def create(cls, directory: Path, labels: Layout, layers: tuple[str, ...] = ()) -> Store:
        """Make the arrays, or open them where they are: `labels`, a chunk per block, and `layers` of codes beside."""
        root = directory / "run.zarr"
        if not (root / LABELS / "zarr.json").exists():
            # The ledger goes first. A process that dies here leaves arrays that nobody vouches for; the other order
            # would leave a ledger that calls missing labels done.
            begin_anew(directory / "ledger.jsonl")
            for name in ("strips", LABELS, "layers"):
                shutil.rmtree(root / name, ignore_errors=True)
        for name in layers:
            DurableArray.create(root / "layers" / name, directory, replace(labels, dtype="uint8", fill=VOID))
        DurableArray.create(root / LABELS, directory, labels)  # the last one: it says that all is there
        return cls(directory)

    def array(self, name: str) -> DurableArray:
        """Return the labels (`LABELS`), or the codes of the layer of this name. Raises `StorageError`."""
        return self.labels if name == LABELS else DurableArray(self.root / "layers" / name, self.directory)

    def write_strip(self, block: Index, side: str, values: NDArray[np.int64]) -> str:
        """Write a strip, (classes, height, width), durably; return its sha256."""
        layout = Layout(values.shape, values.shape, "int64")
        return DurableArray.create(self._strips(block) / side, self.directory, layout).write(values)

    def read_strip(self, block: Index, side: str, sha256: str) -> NDArray[np.int64]:
        """Return a strip, (classes, height, width). Raises `StorageError` when it is not the one of this sha256."""
        return DurableArray(self._strips(block) / side, self.directory).checked(sha256)

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
            # Removing a large folder takes time and can be interrupted half way; a rename cannot.
            os.rename(directory / "run.zarr", gone)
            sync(directory, directory)
        shutil.rmtree(gone, ignore_errors=True)
