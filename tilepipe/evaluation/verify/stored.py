"""Compares what a run has stored with its ledger, and with the same labels computed again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilepipe.arrays import Labels
from tilepipe.box import Box
from tilepipe.errors import InputError, StorageError
from tilepipe.evaluation.metrics.seams import Flips
from tilepipe.evaluation.verify.finished_run import Run
from tilepipe.execution.file_state import FileState, seen, sha256_of
from tilepipe.execution.ledger import read_records
from tilepipe.execution.store import Store
from tilepipe.planning.wanted import Wanted
from tilepipe.products.formats import side_file
from tilepipe.products.label_map import LABELS, LabelMap
from tilepipe.products.labels import parses
from tilepipe.tiling.grid import Index


@dataclass(frozen=True)
class Stored:
    """Blocks whose labels and layers were hashed and compared with the ledger."""

    where: str
    """Name of what was read: the work directory or a product. If nothing was read, the reason."""
    blocks: int = 0
    """Number of blocks that were compared."""
    wrong: tuple[tuple[int, int], ...] = ()
    """(row, column) of blocks that differ or cannot be read."""
    parts: tuple[str, ...] = ()
    """Names of what differs in these blocks: 'labels', or layers."""


def check_stored(run: Run) -> Stored:
    """Hash every block of a finished run and compare it with its line in the ledger; one block in memory at a time.

    A product that cannot be opened has no right block. Raises `InputError` if no product is left.
    """
    store, plan = run.stored(), run.plan
    last, _ = read_records(run.directory / "ledger.jsonl")
    if store is None and _opened(run) is None:
        return Stored(run.products[0].name, len(last), tuple((b.row, b.column) for b in sorted(last)), (LABELS,))
    if store is None and plan.output != plan.predicted:
        return Stored("not compared: the product is on another grid than the blocks of the ledger")
    wrong: dict[str, set[Index]] = {}
    for k, name in enumerate((LABELS, *plan.kept)):
        if store is not None or run.files(name):
            read = _reader(run, store, name)
            sha256 = {block: record.hashes[k] for block, record in last.items()}
            wrong[name] = {
                block for block, wanted in sha256.items() if _sha256_on_disk(read, plan.grid.zone(block)) != wanted
            }
    where = "work directory" if store is not None else run.products[0].name
    blocks = sorted(set().union(*wrong.values()))
    return Stored(where, len(last), tuple((b.row, b.column) for b in blocks), tuple(n for n in wrong if wrong[n]))


def check_products(run: Run) -> tuple[str, ...]:
    """Return sentences about products that are gone, damaged or changed since they were written. Each one is hashed."""
    folder, found = run.directory.parent.parent, []
    for name, known in run.record["products"].items():
        path = folder / name
        if not path.exists():
            found.append(f"{name} is gone")
        # A size is read at once, so only a product of the right size is hashed.
        elif (seen(path) or FileState()).get("bytes") != known["bytes"] or sha256_of(path) != known["sha256"]:
            # A product that can still be read was edited by somebody; one that cannot is damaged.
            found.append(f"{name} was changed since it was written" if parses(path) else f"{name} is damaged")
        # programs add statistics to these files: that they are there is all that can be asked
        beside = [side_file(path, end) for end in known["beside"]]
        found += [f"{side.name} is gone" for side in beside if not side.exists()]
    return tuple(found)


def _opened(run: Run) -> LabelMap | None:
    """Return the first product, or None if it cannot be opened. Raises `InputError` if none is left."""
    try:
        return run.labels()
    except InputError:
        if not run.products:
            raise
        return None


def _reader(run: Run, store: Store | None, name: str) -> Callable[[Box], Labels]:
    """Return a function that reads labels or a layer by boxes of the prediction grid.

    The function raises `StorageError` or `InputError` if a box cannot be read.
    """
    if store is not None:
        return store.array(name).read
    kept, region = run.kept(name), run.plan.output_region

    def read(zone: Box) -> Labels:
        values = np.full(zone.shape, kept.legend.nodata, kept.dtype)
        part = zone & region
        if part is not None:
            values[part.slices_in(zone)] = kept.read(part.shift(-region.y0, -region.x0))
        return values

    return read


def _sha256_on_disk(read: Callable[[Box], Labels], zone: Box) -> str:
    try:
        return hashlib.sha256(np.ascontiguousarray(read(zone)).tobytes()).hexdigest()
    except (StorageError, InputError):
        # No hash is empty, so a block that cannot be read counts as wrong.
        return ""


class Keeper:
    """Reads the labels that a run kept, by boxes of the prediction grid."""

    def __init__(self, run: Run, wanted: Wanted) -> None:
        """Open the work directory's arrays, or the product; `wanted` says which of its pixels have a label."""
        self.run, self.wanted = run, wanted
        self.store = run.stored()
        self.labels = None if self.store is not None else _opened(run)

    def compare(self, box: Box, again: Labels, only: NDArray[np.bool_] | None = None) -> Flips:
        """Return how many labels in `box` differ from those computed `again`, (box.height, box.width).

        Pixels of tiles that failed in the run are left out, and those that are False in `only`; what cannot be read
        differs.
        """
        try:
            found, wanted = self._read(box, again)
            counts = (
                np.ones(found.shape, bool) if only is None else self._read(box, only.view(np.uint8))[1].astype(bool)
            )
        except (StorageError, InputError):
            return Flips(again.size, again.size)
        # A tile that failed in the run has no labels on disk, which is listed and is no difference.
        known = counts if not self.run.record["failed"] else counts & (found != self.run.plan.nodata)
        return Flips(int(known.sum()), int(((found != wanted) & known).sum()))

    def _read(self, box: Box, again: Labels) -> tuple[Labels, Labels]:
        """Return the labels that were kept of `box`, and those computed again for the same pixels."""
        if self.store is not None:
            return self.store.labels.read(box), again
        if self.labels is None:
            raise InputError("the product cannot be opened")
        plan, region = self.run.plan, self.run.plan.output_region
        rows = _under(range(region.y0, region.y1), (box.y0, box.y1), plan.predicted[0], plan.output[0])
        columns = _under(range(region.x0, region.x1), (box.x0, box.x1), plan.predicted[1], plan.output[1])
        wanted = again[np.ix_(rows[1] - box.y0, columns[1] - box.x0)]
        if not wanted.size:
            return wanted, wanted
        out = Box(int(rows[0][0]), int(columns[0][0]), int(rows[0][-1]) + 1, int(columns[0][-1]) + 1)
        if plan.output != plan.predicted:
            wanted = np.where(self.wanted.labelled(out), wanted, wanted.dtype.type(plan.nodata))
        return self.labels.read(out.shift(-region.y0, -region.x0)), wanted


def _under(inside: range, span: tuple[int, int], size: int, of: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the output indices `inside` a region whose pixel of the prediction grid lies in `span`, and that pixel."""
    first, last = max(inside.start, span[0] * of // size - 1), min(inside.stop, span[1] * of // size + 2)
    index = np.arange(first, max(first, last))
    pixel = (2 * index + 1) * size // (2 * of)
    keep = (pixel >= span[0]) & (pixel < span[1])
    return index[keep], pixel[keep]
