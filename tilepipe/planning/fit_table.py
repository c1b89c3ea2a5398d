"""This module makes the fit table: what is known about an image, a model and this machine before any work.

Each row answers one question. Rows about the image come from `image_fit`; rows about tiles and the machine are made
here.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tilepipe.errors import StorageError
from tilepipe.events import Event
from tilepipe.inference.profile.throughput import Throughput, kept_throughput
from tilepipe.planning.fit_row import FitRow, short_form
from tilepipe.planning.memory import format_bytes, format_free, machine_memory
from tilepipe.planning.plan import Plan
from tilepipe.storage import free_space
from tilepipe.text import duration

if TYPE_CHECKING:
    from tilepipe.models.model import Model

COMPRESSION = 100
"""Largest factor by which labels are taken to be compressed (the labels of the sample images are compressed 15 and 43
times). A disk that is too small even then is refused."""


def with_machine(plan: Plan, model: Model, folder: Path | None) -> Plan:
    """Return a plan whose fit table has the rows about tiles and this machine.

    `folder` is the folder of the output, and of the work directory beside the output. The folder need not exist; it is
    None if it is not known.
    """
    added = (*_tiles(plan), _memory(plan), _disk(plan, folder), _time(plan, kept_throughput(model, plan.compute)))
    # A plan may carry such rows of an earlier moment, and what is free has changed since.
    names = {row.name for row in added}
    return replace(plan, fit_table=(*(row for row in plan.fit_table if row.name not in names), *added))


def refuse_full_disk(plan: Plan) -> None:
    """Raise `StorageError` if the fit table says that the disk is too small."""
    for row in plan.fit_table:
        if row.name == "disk" and row.state == "refuse":
            raise StorageError(row.text)


def fit_events(plan: Plan, *, resumed: bool) -> Iterator[Event]:
    """Yield what a run says of its fit table: the short form, and in the first event's data the rows themselves.

    A run that is resumed has said what is ok, so only rows that are not ok are said again.
    """
    rows = tuple(row for row in plan.fit_table if not resumed or row.state != "ok")
    image = {"image": plan.source, "model": plan.model, "shape": list(plan.shape), "bands": plan.bands}
    data = {**image, "fit": [asdict(row) for row in rows]}
    for text in short_form(rows):
        yield Event("plan", message=text, data=data)
        data = {}


def _tiles(plan: Plan) -> Iterator[FitRow]:
    count = f"at most {plan.tile_count}" if plan.holes else str(plan.tile_count)
    rows, columns = plan.tile_ranges
    every = len(rows) * len(columns)
    left_out = f"; the mask leaves out {every - plan.left.tiles} of {every}" if plan.left else ""
    yield FitRow("tiles", "ok", f"{count} of {plan.tile_text}{left_out}")
    if plan.costly:
        yield FitRow("work", "note", f"work: {plan.costly}")
    if plan.reach.tolerance:
        yield FitRow("seams", "note", f"seams: {plan.seams}")


def _memory(plan: Plan) -> FitRow:
    most = f"at most {format_bytes(plan.memory.total)}"
    machine = machine_memory()
    if machine is None:
        return FitRow("memory", "ok", most)
    free, size = machine
    told = f"{most}; {format_free(free)} of {format_free(size)} are free"
    if plan.memory.total <= free:
        return FitRow("memory", "ok", f"{most} of {format_free(size)}, and enough is free")
    # Free memory changes from minute to minute, so a lack of it is a warning and no refusal.
    what = "close other programs, or give `memory` or fewer `workers`"
    return FitRow("memory", "warning", f"the run may take {told}, so the system may end it; {what}")


def _disk(plan: Plan, folder: Path | None) -> FitRow:
    need, least = plan.disk(), plan.least_disk(COMPRESSION)
    most = f"at most {format_bytes(need)}"
    if folder is None:
        return FitRow("disk", "ok", most)
    free = free_space(folder.absolute())
    if free is None:  # the run says what the system says
        return FitRow("disk", "ok", most)
    told = f"{format_free(free)} are free in {folder.absolute()}"
    if need <= free:
        return FitRow("disk", "ok", f"{most}; {told}")
    # Nobody knows before a run how far its labels can be compressed, so between both figures the user decides.
    what = "name an output on a larger disk, or make room"
    if free < least:
        return FitRow(
            "disk", "refuse", f"the run takes at least {format_bytes(least)} of disk, {most}, and {told}; {what}"
        )
    return FitRow(
        "disk", "warning", f"the run takes {most} of disk, if its labels cannot be compressed, and {told}; {what}"
    )


def _time(plan: Plan, throughput: Throughput | None) -> FitRow:
    if throughput is None:
        return FitRow("time", "ok", "not known yet; the first run of this model on this machine tells")
    seconds = plan.work * plan.predicted_region.area * throughput.seconds / throughput.pixels
    most = "at most about" if plan.holes else "about"
    return FitRow(
        "time",
        "ok",
        f"{most} {duration(max(1.0, seconds))}, at the speed of a run of {duration(max(1.0, throughput.seconds))}",
    )


def warn(plan: Plan, *, decorators: int) -> None:
    """Give Python warnings about what is likely wrong, at the line that called a public function."""
    for row in plan.fit_table:
        if row.state == "warning":
            warnings.warn(row.text, stacklevel=3 + decorators)
