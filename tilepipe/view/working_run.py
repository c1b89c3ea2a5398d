"""A run that is not finished: its labels as far as they are computed, and news of further blocks."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from tilepipe.box import Box
from tilepipe.errors import ModelError, StorageError
from tilepipe.execution.keys import read_plan
from tilepipe.execution.ledger import read_records
from tilepipe.execution.run_record import read_record
from tilepipe.execution.store import Store
from tilepipe.models.card import ModelCard
from tilepipe.models.facts import CARD, bundled
from tilepipe.paths import lock_of, output_of_run, work_directory
from tilepipe.planning.plan import Plan
from tilepipe.products.label_map import LABELS, LabelMap, Legend, Measure
from tilepipe.storage import is_locked
from tilepipe.tiling.grid import Index
from tilepipe.tiling.uncertainty import LAYERS, STEPS, VOID


class WorkingRun:
    """The work directory of a run whose labels are still there, on the prediction grid."""

    def __init__(self, directory: Path) -> None:
        """Open the folder of one request in a work directory. Raises `StorageError` if it is damaged."""
        self.directory = directory
        output = output_of_run(directory)
        assert output is not None, directory
        self.output = output
        """Path of the labels when the run has finished."""
        self.plan = read_plan(directory).plan
        self.blocks = sum(1 for _ in self.plan.blocks())
        """Number of blocks that the run computes."""
        self.done: set[Index] = set()
        """Blocks that `news` has told."""
        self._store = Store(directory)
        self._size = -1

    def maps(self) -> dict[str, LabelMap]:
        """Return labels and layers by name; what is not computed is nodata."""
        plan = self.plan
        card = card_of(plan)
        legend = Legend(card.name, card.classes, card.palette, plan.nodata)
        grid = LabelMap(
            shape=plan.predicted,
            dtype=np.dtype(plan.label_dtype),
            legend=legend,
            read=partial(self._read, LABELS),
            block=(plan.grid.y.zone, plan.grid.x.zone),
            scale=(plan.shape[0] / plan.predicted[0], plan.shape[1] / plan.predicted[1]),
        )
        found = {LABELS: grid}
        for name in plan.layers:
            meaning = Legend(name, (), (), VOID, Measure(1 / STEPS, LAYERS[name]))
            read = partial(self._read, name)
            found[name] = replace(grid, dtype=np.dtype("uint8"), legend=meaning, read=read)
        return found

    def news(self) -> list[Box]:
        """Return the parts that have been computed since the last call, in pixels of the prediction grid."""
        ledger = self.directory / "ledger.jsonl"
        size = 0
        with suppress(OSError):
            size = os.stat(ledger).st_size
        if size == self._size:
            return []
        self._size = size
        fresh = [block for block in read_records(ledger)[0] if block not in self.done]
        self.done.update(fresh)
        return [self.plan.grid.zone(block) for block in fresh]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the maps."""
        return LABELS, *self.plan.layers

    @property
    def works(self) -> bool:
        """Whether a process works on the run now."""
        return is_locked(lock_of(self.output))

    @property
    def finished(self) -> bool:
        """Whether the products of the run are in place; if none of them holds the labels, the arrays stay."""
        record = read_record(self.directory)
        return bool(record and record["published"])

    @property
    def in_place(self) -> bool:
        """Whether the labels are in a product now, and the arrays are gone."""
        return not _holds_labels(self.directory) and self.output.exists()

    @property
    def said(self) -> str:
        """A sentence about how far the run is; '' if it has finished."""
        if self.finished:
            return ""
        share = f"{len(self.done):,} of {self.blocks:,} blocks are computed"
        if self.works:
            return share if len(self.done) < self.blocks else f"{share}, the products are being written"
        return f"the run has stopped: {share}; the same command goes on"

    def _read(self, name: str, box: Box) -> np.ndarray[tuple[int, ...], np.dtype[np.unsignedinteger]]:
        found: np.ndarray[tuple[int, ...], np.dtype[np.unsignedinteger]] = self._store.array(name).read(box)
        return found


def working_run(path: Path) -> WorkingRun | None:
    """Return the run of an output, or of a work directory, whose labels are in no product yet; None if there is none.

    Of several runs in one work directory, the one that has computed a block last is meant.
    """
    if output_of_run(path) is None:
        if path.exists():
            return None
        path = work_directory(path)
    folders = [path] if (path / "plan.json").exists() else list(path.glob("*/"))
    runs = [folder for folder in folders if (folder / "plan.json").exists()]
    if not runs:
        return None
    newest = max(runs, key=_changed)
    return WorkingRun(newest) if _holds_labels(newest) else None


def _holds_labels(run: Path) -> bool:
    return (run / "run.zarr" / LABELS / "zarr.json").exists()


def _changed(run: Path) -> float:
    ledger = run / "ledger.jsonl"
    return (ledger if ledger.exists() else run / "plan.json").stat().st_mtime


def card_of(plan: Plan) -> ModelCard:
    """Return the card of the run's model if it is at hand and has as many classes; else a card that numbers them."""
    with suppress(ModelError, StorageError):
        card = ModelCard.load((bundled(plan.model) or Path(plan.model)) / CARD)
        if len(card.classes) == plan.classes:
            return card
    return ModelCard(bands=plan.bands, classes=[f"class {k}" for k in range(plan.classes)])
