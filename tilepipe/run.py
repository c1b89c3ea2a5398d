"""Run: a work directory from the first block to the published products.

    .<output>.tilepipe/lock            held while a run works on this output
    .<output>.tilepipe/<key>/          plan, ledger and Zarr store of one run key (see `store`)
    .<output>.tilepipe/<key>/certificate.json  what is known about seams
    .<output>.tilepipe/<key>/run.json  what was computed, and the products as they were written

The same key resumes, another key never mixes. Products are written inside the work directory and put in place by one
rename each; nothing is ever written at the final path. run.json is written just before and says how the products look:
the run is finished when they are in place like that.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tilepipe.certificate import Certificate
from tilepipe.certify import certificate_of, read_certificate, write_certificate
from tilepipe.engine import dask
from tilepipe.engine.book import Book
from tilepipe.engine.passes import take_statistics
from tilepipe.engine.steps import Job
from tilepipe.errors import InputError, StorageError, UsageError
from tilepipe.events import Event, Listener
from tilepipe.exports.products import LABELS, LOSSLESS, PRODUCTS, SIDECARS, File, files_of
from tilepipe.gauge import level_of
from tilepipe.labelmap import LabelMap
from tilepipe.memory import give_back
from tilepipe.output import label_map, layer_map
from tilepipe.plan import FORMAT
from tilepipe.sources.base import Source
from tilepipe.store import Ledger, Store, drop_arrays, locked, storage_errors, sync, sync_tree, write_durably

KEY_LENGTH = 16
"""Hexadecimal digits of the run key in the name of a work directory."""


@dataclass(frozen=True)
class Outputs:
    """Where the products of a run go."""

    paths: dict[str, Path]
    """Final path by product, all in one folder; the first one names the work directory."""
    overwrite: bool
    """Whether products that exist may be replaced."""
    layers: tuple[str, ...] = ()
    """Uncertainty layers that are written beside the labels."""

    @property
    def files(self) -> list[File]:
        """All that is written: labels first, then layers. Raises `UsageError`."""
        return files_of(self.paths, self.layers)

    @property
    def work(self) -> Path:
        """Work directory of this output."""
        first = next(iter(self.paths.values()))
        return first.with_name(f".{first.name}.tilepipe")


def work_directory(outputs: Outputs, key: str) -> Path:
    """Return the directory of one run key."""
    return outputs.work / key[:KEY_LENGTH]


def finished(outputs: Outputs, key: str) -> dict[str, Any] | None:
    """Return run.json when this very run is complete and its products are still as they were written, else None.

    One with tiles that failed is not complete for somebody who asks to overwrite: they are tried again.
    """
    record = _ended(outputs, key)
    if record and record["failed"] and outputs.overwrite:
        return None
    return record if record and all(_as_written(record, file.path) for file in outputs.files) else None


def refuse_existing(outputs: Outputs, record: dict[str, Any] | None = None) -> None:
    """Raise `UsageError` when a product exists and may not be replaced, or its folder does not.

    Products as `record` (run.json) says are the run's own: it was stopped while it put them in place.
    """
    for product, path in ((file.product, file.path) for file in outputs.files):
        if not path.parent.is_dir():
            raise UsageError(f"folder {path.parent} does not exist; make it first")
        if not path.exists():
            continue
        if not outputs.overwrite and not (record and _as_written(record, path)):
            raise UsageError(f"{path} exists; use --overwrite or another output")
        if path.is_dir() != PRODUCTS[product].folder or (path.is_dir() and not (path / "zarr.json").exists()):
            raise UsageError(f"{path} exists and is no {product} product, so it is not replaced; choose another output")


def _ended(outputs: Outputs, key: str) -> dict[str, Any] | None:
    """Return run.json of this run key, or None where it has not come that far."""
    try:
        record: dict[str, Any] = json.loads((work_directory(outputs, key) / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if record.get("key") == key else None


def _as_written(record: dict[str, Any], path: Path) -> bool:
    return path.name in record["products"] and _facts(path) == record["products"][path.name]


def execute(
    job: Job, full: Source, outputs: Outputs, key: str, listener: Listener, scheduler: str | None
) -> dict[str, Any]:
    """Compute what is missing, write the products, publish them; return what run.json says.

    `job.source` is the image on the prediction grid, `full` at full resolution. Raises `TilepipeError`; then the
    finished blocks stay for the next try, and existing products stay as they were.
    """
    directory = work_directory(outputs, key)
    if finished(outputs, key) is None:
        refuse_existing(outputs, _ended(outputs, key))
    with locked(outputs.work):
        record = finished(outputs, key)
        message = "already complete, nothing to do"
        if record is None:
            refuse_existing(outputs, _ended(outputs, key))  # another run may have ended since
            again = bool((_ended(outputs, key) or {}).get("failed"))
            book, failed = _predicted(job, directory, listener, scheduler, again=again)
            products = write_products(maps_of(job, full, book.store), outputs, directory, listener)
            certificate = certificate_of(job.plan, job.model, level_of(job.plan, job.model))
            write_certificate(certificate, directory)
            more = {"failed": failed, "contents": {file.path.name: file.content for file in outputs.files}}
            text = json.dumps(_record(job, book, (key, certificate), products) | more, indent=1) + "\n"
            write_durably(directory / "run.json", text)
            record = json.loads(text)
            put_in_place(outputs, directory)
            message = ""
        if not record["failed"] and LOSSLESS & set(outputs.paths):
            drop_arrays(directory)
        listener(Event("done", message=message, data=record))
        return record


def maps_of(job: Job, full: Source, store: Store) -> dict[str, LabelMap]:
    """Return the labels and the layers that a store holds, by name, on the output grid."""
    plan, card, wanted = job.plan, job.model.card, job.wanted
    layers = {name: layer_map(name, plan, card, full, partial(store.read_layer, name), wanted) for name in plan.layers}
    return {LABELS: label_map(plan, card, full, store.read_labels, wanted), **layers}


def certificate(job: Job, directory: Path) -> Certificate:
    """Return the certificate of a finished run, with what `tilepipe verify` has added since."""
    try:
        return read_certificate(directory)
    except StorageError:  # the work directory was removed
        return certificate_of(job.plan, job.model)


def _predicted(
    job: Job, directory: Path, listener: Listener, scheduler: str | None, *, again: bool
) -> tuple[Book, list[str]]:
    """Compute the blocks that are missing; with `again` all of them, as a run that ended had tiles that failed.

    Also returns what could not be read, of windows and tiles, and why.
    """
    plan = job.plan
    if again:
        drop_arrays(directory)
        (directory / "run.json").unlink()
    chunk = plan.grid.y.zone, plan.grid.x.zone
    store = Store.create(directory, plan.predicted, chunk, plan.label_dtype, plan.nodata, plan.layers)
    write_durably(directory / "plan.json", plan.to_json())
    job = replace(job, directory=directory)
    windows = take_statistics(job, partial(dask.run, scheduler=scheduler), listener)
    give_back()
    book = Book(plan, Ledger(directory / "ledger.jsonl"), store, listener)
    dask.run(job, book, scheduler)
    give_back()
    records = book.ledger.done.values()
    problems = [problem for record in records for problem in record.failed]
    if problems and not any(record.tiles for record in records):
        store.drop()  # so that the next run tries them all again
        raise InputError(f"none of {len(problems)} tiles could be read; the first: {problems[0]}")
    return book, [*windows, *problems]


def write_products(maps: dict[str, LabelMap], outputs: Outputs, directory: Path, listener: Listener) -> dict[str, Any]:
    """Write the products of `maps_of` inside `directory`, durably; return their facts by name."""
    fresh = directory / "products"
    with storage_errors(fresh):
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
    for k, file in enumerate(outputs.files):
        listener(Event("export", k, len(outputs.files), f"writing {file.path.name}"))
        PRODUCTS[file.product].write(maps[file.content], fresh / file.path.name)
    with storage_errors(fresh):
        sync_tree(fresh)
    return {file.path.name: _facts(fresh / file.path.name) for file in outputs.files}


def put_in_place(outputs: Outputs, directory: Path) -> None:
    """Rename each product that `write_products` left in `directory` onto its final path."""
    fresh = directory / "products"
    for path in (file.path for file in outputs.files):
        with storage_errors(path):
            for suffix in SIDECARS:  # first, so that a product never stands without them
                if (fresh / (path.name + suffix)).exists():
                    os.replace(fresh / (path.name + suffix), path.with_name(path.name + suffix))
                else:  # one of a product that was there before would speak of other pixels
                    path.with_name(path.name + suffix).unlink(missing_ok=True)
            _replace(fresh / path.name, path, directory)
            sync(path.parent, path.parent)
    shutil.rmtree(fresh, ignore_errors=True)


def _replace(fresh: Path, final: Path, directory: Path) -> None:
    """Rename onto `final`; a directory there is moved aside first and removed afterwards."""
    old = directory / "replaced"
    shutil.rmtree(old, ignore_errors=True)
    if final.is_dir():
        os.rename(final, old)
    try:
        os.replace(fresh, final)
    except OSError:
        if old.exists():
            os.rename(old, final)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _facts(path: Path) -> dict[str, int] | None:
    """Return what tells whether a product is still the one that was written; None where it is gone."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    try:
        stats = [file.stat() for file in files]
    except OSError:
        return None
    return {
        "files": len(files),
        "bytes": sum(s.st_size for s in stats),
        "mtime_ns": max((s.st_mtime_ns for s in stats), default=0),
    }


def _record(job: Job, book: Book, of: tuple[str, Certificate], products: dict[str, Any]) -> dict[str, Any]:
    plan, records, (key, certificate) = job.plan, book.ledger.done.values(), of
    return {
        "format": FORMAT,
        "key": key,
        "source": _absolute(plan.source),
        "model": _absolute(job.model.name),
        "products": products,
        "blocks": len(records),
        "tiles": sum(record.tiles for record in records),
        "seconds": round(sum(record.seconds for record in records), 3),
        "seams": list(certificate.sentences),
        "versions": dict(certificate.versions),
        "plan": plan.to_dict(),
    }


def _absolute(name: str) -> str:
    """Return a path that still leads there from another folder; the name where it is none."""
    return str(Path(name).resolve()) if Path(name).exists() else name
