"""This module writes the report of a finished run after it: one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from tilepipe.errors import TilepipeError, public
from tilepipe.events import Event, Listener, silent
from tilepipe.execution.export import export
from tilepipe.execution.run_record import RunRecord, find_record
from tilepipe.paths import labels_file
from tilepipe.products.formats import PRODUCTS, REPORT, product_of
from tilepipe.products.label_map import LabelMap
from tilepipe.products.report.notebook import notebook_of
from tilepipe.products.smaller import smaller_maps
from tilepipe.sources.bands import Picked, with_picked
from tilepipe.sources.base import Source
from tilepipe.sources.open import open_source
from tilepipe.text import JSON

COARSE = 1024
"""Least longer side of the labels that a thumbnail is made from (pixels)."""


@public
def report(
    run: str | Path,
    output: str | Path | None = None,
    *,
    image: str | Path | Source | None = None,
    overwrite: bool = False,
    listener: Listener = silent,
) -> Path:
    """Write the report of a finished run and return its path.

    The report is one HTML page that needs no other file and asks nothing of the network: the image beside its labels,
    the area of each class, sizes of objects, what is known about seams, what failed, times, settings and versions.

    Args:
        run: The labels of the run (a COG or an OME-Zarr folder), or its work directory.
        output: Path of the page, which ends in .html; beside the labels by default.
        image: The image of the labels, if it was moved; by default the one that the run has read.
        overwrite: Whether a page that exists is replaced.
        listener: Is called with each `Event`.

    Raises:
        InputError: There are no labels to read.
        UsageError: The page exists, or the image is not that of the labels.
        StorageError: The disk is full or cannot be written.
    """
    labels = labels_file(run)
    page = Path(output) if output else _beside(labels)
    if image is None and (found := find_record(labels)):
        image = image_of_run(found[0], listener)
    return export(labels, page, of=REPORT, image=image, overwrite=overwrite, listener=listener)[0]


def notebook_of_run(record: RunRecord, labels: LabelMap, path: Path | None) -> str:
    """Return the HTML that a notebook shows of a run; `path` is a product that holds the labels, if there is one."""
    small = coarse(labels, path) if path else labels
    return notebook_of(cast(JSON, record), labels, small, image_of_run(record))


def coarse(labels: LabelMap, path: Path) -> LabelMap:
    """Return the smallest version in the product at `path` that a thumbnail is made from."""
    versions = smaller_maps(labels, path)
    return [one for one in versions if one is labels or max(one.shape) >= COARSE][-1]


def _beside(labels: Path) -> Path:
    product = product_of(labels)
    end = labels.name.lower().rindex(PRODUCTS[product].suffix) if product else None
    return labels.with_name(labels.name[:end] + PRODUCTS[REPORT].suffix)


def image_of_run(record: RunRecord, listener: Listener = silent) -> Source | None:
    """Return the image with the bands that the run has read; None if it is no longer there, which is said."""
    named, plan = record["source"], record["plan"]
    why = "the image was given from Python" if named == "array" else ""
    try:
        if not why:
            opened = open_source(named, **record.get("choice", {}))
            return with_picked(opened, Picked(plan["picked"], plan["valid_band"]))
    except TilepipeError as error:
        gone = Path(named).is_absolute() and not Path(named).exists()
        why = f"{named} is no longer there" if gone else str(error)
    note = f"{why}, so the page shows labels alone; name it with `image`"
    listener(Event("export", message=note, data={"note": note}))
    return None
