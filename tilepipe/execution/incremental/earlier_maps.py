"""This module reads the labels and layers of an earlier run on its prediction grid, from its products or its store."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from tilepipe.arrays import Array
from tilepipe.box import Box
from tilepipe.errors import InputError, StorageError
from tilepipe.execution.incremental.earlier import EarlierRun
from tilepipe.execution.ledger import Record
from tilepipe.execution.store import Store
from tilepipe.planning.plan import Plan
from tilepipe.planning.wanted import decided_by
from tilepipe.products.formats import LOSSLESS, OF_PROBABILITIES, product_of
from tilepipe.products.label_map import LABELS
from tilepipe.products.labels import open_map
from tilepipe.products.probabilities import read_probabilities
from tilepipe.tiling.uncertainty import VOID

Read = Callable[[Box], Array]
"""Function that returns the values of a box of the output grid's region."""


class EarlierMaps:
    """The labels and layers of a finished run; threads can share them."""

    def __init__(self, earlier: EarlierRun, plan: Plan) -> None:
        """Open the arrays of the run if it has kept them, else its products."""
        self._plan, self._grid = plan, plan.grid
        self._store = (
            Store(earlier.directory) if (earlier.directory / "run.zarr" / LABELS / "zarr.json").exists() else None
        )
        self._one_at_a_time = threading.Lock()
        self._read: dict[str, Read] = {}
        if self._store is None:
            self._read = {name: _opened(earlier, name) for name in names_of(plan)}

    def checked(self, record: Record) -> list[Array]:
        """Return the labels and each layer of a block as its ledger line says. Raises `StorageError` if they differ."""
        zone, found = self._grid.zone(record.block), []
        for name, sha256 in zip(names_of(self._plan), record.hashes, strict=True):
            if self._store:
                found.append(self._store.array(name).checked(sha256, zone))
                continue
            values = self._values(name, zone)
            if hashlib.sha256(np.ascontiguousarray(values).data).hexdigest() != sha256:
                raise StorageError(f"{name} of block {tuple(record.block)} is not what the run has written")
            found.append(values)
        return found

    def _values(self, name: str, zone: Box) -> Array:
        """Return the values of a zone on the prediction grid, from the values of the output pixels that it decides."""
        plan, read = self._plan, self._read[name]
        nodata, dtype = (plan.nodata, plan.label_dtype) if name == LABELS else (VOID, "uint8")
        values, region = np.full(zone.shape, nodata, dtype), plan.output_region
        if (inside := zone & plan.predicted_region) is None:
            return values
        over, rows, columns = decided_by(plan, inside)
        if (part := over & region) is None:
            return values
        shown = np.full(over.shape, nodata, dtype)
        # Python's filters of warnings, which are set while a product is open, are those of all threads.
        with self._one_at_a_time:
            shown[part.slices_in(over)] = read(part.shift(-region.y0, -region.x0))
        # Output pixels under one prediction pixel have its value, or nodata, which is the largest number.
        least = np.minimum.reduceat(np.minimum.reduceat(shown, rows, 0), columns, 1)
        values[inside.slices_in(zone)] = least
        return values


def why_unreadable(earlier: EarlierRun, plan: Plan) -> str:
    """Return the reason why labels or layers of an earlier run cannot be read; '' if all of them can."""
    try:
        EarlierMaps(earlier, plan)
    except (InputError, StorageError) as error:
        return str(error)
    return ""


def names_of(plan: Plan) -> tuple[str, ...]:
    """Return the names of all that the blocks of a plan have: labels, then layers, as in the ledger."""
    return (LABELS, *plan.kept)


def _opened(earlier: EarlierRun, name: str) -> Read:
    """Return the reader of labels, of a layer or of the probability of a class. Raises `InputError`."""
    kind, _, plane = name.partition("/")
    for path in _files(earlier, kind):
        return read_probabilities(path)[int(plane)].read if plane else open_map(path).read
    raise InputError(f"no file of that run holds all of its {kind}")


def _files(earlier: EarlierRun, content: str) -> Iterator[Path]:
    for name, held in earlier.record["contents"].items():
        path = earlier.folder / name
        if held == content and path.exists() and product_of(path) in LOSSLESS | OF_PROBABILITIES:
            yield path
