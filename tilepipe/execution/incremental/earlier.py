"""This module finds the earlier run whose labels a run is to take over, and says whether they can be taken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tilepipe.errors import StorageError, UsageError
from tilepipe.execution.job import Job
from tilepipe.execution.keys import LEFT_OUT, PLAN, read_plan
from tilepipe.execution.run_record import RunRecord, find_record
from tilepipe.paths import labels_file, work_directory
from tilepipe.planning.plan import Plan
from tilepipe.text import JSON, missing
from tilepipe.tiling.grid import Index

TAKEN = 16
"""Number of digits of a run key by which the ledger names an earlier run."""


@dataclass(frozen=True)
class EarlierRun:
    """A finished run whose labels are to be taken over; it can be pickled."""

    labels: Path
    """Path of its labels, as the user named them."""
    directory: Path
    """Its work directory, which holds its record."""
    record: RunRecord
    """Its run.json; empty if it has none."""
    plan: Plan | None
    """Its plan; None if it has none that this version reads."""
    shift: tuple[int, int] = (0, 0)
    """Number of (rows, columns) of blocks from a block of the new run to the same block of this run."""

    @property
    def key(self) -> str:
        """First digits of its run key, by which the ledger names it."""
        return self.record["key"][:TAKEN]

    def block(self, block: Index) -> Index:
        """Return the block of this run that lies where a block of the new run lies; its numbers may be below 0."""
        return Index(block.row + self.shift[0], block.column + self.shift[1])

    @property
    def folder(self) -> Path:
        """Folder of its products."""
        return self.directory.parent.parent


def find_earlier(since: str) -> EarlierRun:
    """Return the finished run that has made these labels. Raises `UsageError` if there are no labels."""
    labels = labels_file(since)
    if not labels.exists():
        raise UsageError(f"`since` names the labels of an earlier run: {missing(labels)}")
    found = find_record(labels)
    if found is None:
        return EarlierRun(labels, labels.parent, {}, None)
    record, directory = found
    try:
        plan = read_plan(directory).plan
    except StorageError:
        plan = None
    return EarlierRun(labels, directory, record, plan)


def shifted(earlier: EarlierRun, plan: Plan, canvas: tuple[int, int]) -> EarlierRun | None:
    """Return the run with the shift of its blocks against those of a plan whose canvas begins at this row and column.

    Returns None if its blocks lie between those of the plan.
    """
    zones = plan.grid.y.zone, plan.grid.x.zone
    before = earlier.record.get("canvas", [0, 0])
    apart = [divmod(now - old, zone) for now, old, zone in zip(canvas, before, zones, strict=True)]
    if any(rest for _, rest in apart):
        return None
    (rows, _), (columns, _) = apart
    return replace(earlier, shift=(rows, columns))


def why_nothing(earlier: EarlierRun, job: Job, asked: str, settings: JSON) -> str:
    """Return the reason why no label of an earlier run can be those of a job; '' if they can.

    `asked` is the hash of what is asked for but the image, `settings` are those that the user gave.
    """
    return next(filter(None, _reasons(earlier, job, asked, settings)), "")


def _reasons(earlier: EarlierRun, job: Job, asked: str, settings: JSON) -> Iterator[str]:
    """Yield reasons; '' if a condition holds. A later reason may need that the earlier ones hold."""
    plan, record, name = earlier.plan, earlier.record, earlier.labels.name
    if not record:
        beside = work_directory(earlier.labels).name
        yield f"{name} was changed since its run wrote it, or the record of the run ({beside}) is not beside it"
    elif plan is None:
        yield f"{earlier.directory / PLAN} cannot be read by this version"
    elif "asked" not in record:
        yield f"an earlier version of tilepipe made {name}, and kept no hashes of what it read"
    else:
        yield _other_settings(earlier, asked, settings)
        yield _other_versions(earlier, job)
        yield _other_choices(earlier, plan, job.plan)
        if job.plan.statistics:
            yield "norms or poolings of the model use statistics over the whole image, which any change may change"
        if plan.output != plan.predicted and min(a - b for a, b in zip(plan.output, plan.predicted, strict=True)) < 0:
            yield f"the pixels of {name} are larger than those that the model labels"


def _other_settings(earlier: EarlierRun, asked: str, settings: JSON) -> str:
    if earlier.record["asked"] == asked:
        return ""
    before, name = earlier.record.get("settings", {}), earlier.labels.name
    named = {*before, *settings} - LEFT_OUT
    changed = [f"`{key}`" for key in sorted(named) if before.get(key) != settings.get(key)]
    other = f"with another {' and '.join(changed)}" if changed else "with another model, or with files of other content"
    return f"{name} was made {other}"


def _other_versions(earlier: EarlierRun, job: Job) -> str:
    # torch is opened here alone: a plan with an earlier run does without.
    from tilepipe.models.precision import surroundings
    from tilepipe.planning.certify import versions_of

    before = {**earlier.record["versions"], **earlier.record.get("surroundings", {})}
    now = {**versions_of(job.plan, job.model), **surroundings()}
    changed = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    if not changed:
        return ""
    said = ", ".join(f"{key} {before.get(key, 'none')}, now {now.get(key, 'none')}" for key in changed)
    return f"{earlier.labels.name} was computed with other programs, which may round otherwise ({said})"


def _other_choices(earlier: EarlierRun, before: Plan, now: Plan) -> str:
    """Return in words which choice of the plan is another one; '' if none is."""
    found = {
        "pixel type": (before.dtype, now.dtype),
        "device": tuple((how.device, how.precision, how.runtime, how.batch) for how in (before.compute, now.compute)),
        "layers": (before.kept, now.kept),
        "labels": tuple((plan.label_dtype, plan.classes, plan.nodata) for plan in (before, now)),
        "tiles": (before.tiling, now.tiling),
    }
    changed = [f"{name} ({_said(a)}, now {_said(b)})" for name, (a, b) in found.items() if a != b]
    return f"{earlier.labels.name} has other {' and '.join(changed)}" if changed else ""


def _said(value: object) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)
