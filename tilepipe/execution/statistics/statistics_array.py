"""This module keeps the results of a pass for statistics: a Zarr array beside the labels, with its own ledger.

    <key>/<name>.jsonl        one line per committed chunk
    <key>/run.zarr/<name>     (rows, columns, values), a chunk per unit of work

As in `store`, a ledger without its array counts for nothing.
"""

from __future__ import annotations

from pathlib import Path

from tilepipe.execution.durable_array import DurableArray, Layout
from tilepipe.execution.ledger import Ledger, begin_anew


def open_statistics(directory: Path, name: str) -> DurableArray:
    """Open the array `name` of a work directory, made by `create_statistics`. Raises `StorageError`."""
    return DurableArray(directory / "run.zarr" / name, directory)


def create_statistics(directory: Path, name: str, layout: Layout) -> tuple[DurableArray, Ledger]:
    """Make an array, or open it if it exists; return it with its ledger."""
    path, ledger = directory / "run.zarr" / name, directory / f"{name}.jsonl"
    if not (path / "zarr.json").exists():
        begin_anew(ledger)
    return DurableArray.create(path, directory, layout), Ledger(ledger)
