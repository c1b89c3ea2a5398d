"""Run: a work directory from the first block to the published products.

    .<output>.tilepipe/lock            held while a run works on this output
    .<output>.tilepipe/<key>/          plan, ledger and Zarr store of one run key (see `store`)
    .<output>.tilepipe/<key>/run.json  written when the products are in place

The same key resumes, another key never mixes. Products are written inside the work directory and put in place by one
rename each; nothing is ever written at the final path.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tilepipe.engine import dask
from tilepipe.engine.book import Book
from tilepipe.engine.steps import Job
from tilepipe.errors import InputError, UsageError
from tilepipe.events import Event, Listener
from tilepipe.exports.products import LOSSLESS, PRODUCTS, SIDECARS
from tilepipe.labelmap import LabelMap
from tilepipe.output import label_map
from tilepipe.plan import FORMAT, Plan
from tilepipe.sources.base import Source
from tilepipe.store import Ledger, Store, locked, storage_errors, write_durably

KEY_LENGTH = 16
"""Hexadecimal digits of the run key in the name of a work directory."""


@dataclass(frozen=True)
class Outputs:
    """Where the products of a run go."""

    paths: dict[str, Path]
    """Final path by product, all in one folder; the first one names the work directory."""
    overwrite: bool
    """Whether products that exist may be replaced."""

    @property
    def work(self) -> Path:
        """Work directory of this output."""
        first = next(iter(self.paths.values()))
        return first.with_name(f".{first.name}.tilepipe")


def work_directory(outputs: Outputs, key: str) -> Path:
    """Return the directory of one run key."""
    return outputs.work / key[:KEY_LENGTH]


def finished(outputs: Outputs, key: str) -> dict[str, Any] | None:
    """Return run.json when this very run is complete and its products are still as they were written, else None."""
    try:
        record: dict[str, Any] = json.loads((work_directory(outputs, key) / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    same = record.get("key") == key and set(record["products"]) >= {p.name for p in outputs.paths.values()}
    return record if same and all(_facts(p) == record["products"][p.name] for p in outputs.paths.values()) else None


def refuse_existing(outputs: Outputs) -> None:
    """Raise `UsageError` when a product exists and may not be replaced, or its folder does not."""
    for path in outputs.paths.values():
        if not path.parent.is_dir():
            raise UsageError(f"folder {path.parent} does not exist; make it first")
        if path.exists() and not outputs.overwrite:
            raise UsageError(f"{path} exists; use --overwrite or another output")


def execute(
    job: Job, full: Source, outputs: Outputs, key: str, listener: Listener, scheduler: str | None
) -> dict[str, Any]:
    """Compute what is missing, write the products, publish them; return what run.json says.

    `job.source` is the image on the prediction grid, `full` at full resolution. Raises `TilepipeError`; then the
    finished blocks stay for the next try, and existing products stay as they were.
    """
    plan = job.plan
    if finished(outputs, key) is None:
        refuse_existing(outputs)
    with locked(outputs.work):
        done = finished(outputs, key)
        if done is not None:
            listener(Event("done", message="already complete, nothing to do", data=done))
            return done
        directory = work_directory(outputs, key)
        chunk = plan.grid.y.zone, plan.grid.x.zone
        store = Store.create(directory, plan.predicted, chunk, plan.label_dtype, plan.nodata)
        write_durably(directory / "plan.json", plan.to_json())
        book = Book(plan, Ledger(directory / "ledger.jsonl"), store, listener)
        dask.run(replace(job, directory=directory), book, scheduler)
        _refuse_all_failed(book)
        labels = label_map(plan, job.model.card, full, store.read_labels)
        products = publish(labels, outputs, directory, listener)
        record = _record(plan, book, key, products)
        write_durably(directory / "run.json", json.dumps(record, indent=1) + "\n")
        if not record["failed"] and LOSSLESS & set(outputs.paths):
            store.drop()
        listener(Event("done", data=record))
        return record


def _refuse_all_failed(book: Book) -> None:
    records = book.ledger.done.values()
    problems = [problem for record in records for problem in record.failed]
    if problems and not any(record.tiles for record in records):
        raise InputError(f"none of {len(problems)} tiles could be read; the first: {problems[0]}")


def publish(labels: LabelMap, outputs: Outputs, directory: Path, listener: Listener) -> dict[str, Any]:
    """Write the products inside `directory`, then rename each into place; return their facts by final path."""
    fresh = directory / "products"
    with storage_errors(fresh):
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
    for k, (product, path) in enumerate(outputs.paths.items()):
        listener(Event("export", k, len(outputs.paths), f"writing {path.name}"))
        PRODUCTS[product].write(labels, fresh / path.name)
    for path in outputs.paths.values():
        with storage_errors(path):
            for suffix in SIDECARS:  # first, so that a product never stands without them
                if (fresh / (path.name + suffix)).exists():
                    os.replace(fresh / (path.name + suffix), path.with_name(path.name + suffix))
            _replace(fresh / path.name, path, directory)
    shutil.rmtree(fresh, ignore_errors=True)
    return {path.name: _facts(path) for path in outputs.paths.values()}


def _replace(fresh: Path, final: Path, directory: Path) -> None:
    """Rename onto `final`; a directory there is moved aside first and removed afterwards."""
    old = directory / "replaced"
    if final.is_dir():
        shutil.rmtree(old, ignore_errors=True)
        os.rename(final, old)
    os.replace(fresh, final)
    shutil.rmtree(old, ignore_errors=True)


def _facts(path: Path) -> dict[str, int] | None:
    """Return what tells whether a product is still the one that was written; None where it is gone."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    try:
        stats = [file.stat() for file in files]
    except OSError:
        return None
    return {"files": len(files), "bytes": sum(s.st_size for s in stats), "mtime_ns": max(s.st_mtime_ns for s in stats)}


def _record(plan: Plan, book: Book, key: str, products: dict[str, Any]) -> dict[str, Any]:
    records = book.ledger.done.values()
    failed = [problem for record in records for problem in record.failed]
    packages = ("tilepipe", "torch", "zarr", "dask", "rasterio", "numpy")
    return {
        "format": FORMAT,
        "key": key,
        "source": plan.source,
        "model": plan.model,
        "products": products,
        "blocks": len(records),
        "tiles": sum(record.tiles for record in records),
        "failed": failed,
        "seconds": round(sum(record.seconds for record in records), 3),
        "seams": plan.seams,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "plan": plan.to_dict(),
    }
