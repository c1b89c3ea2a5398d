"""This module says what one command wants and how far its work directory has come: begun, staged or finished.

The image and the work directory are compared with what they were before anything is published.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tilepipe.errors import InputError, LockedError, ModelError, StorageError, UsageError
from tilepipe.execution.block_queue import BlockQueue
from tilepipe.execution.file_state import FileState
from tilepipe.execution.incremental.earlier import EarlierRun
from tilepipe.execution.job import FAIL, MODEL_FAILS, NODATA, Job
from tilepipe.execution.keys import Keys, kept_plan, read_plan
from tilepipe.execution.ledger import AGAIN, read_records
from tilepipe.execution.outputs import Outputs
from tilepipe.execution.publish import is_published, is_whole, refuse_existing
from tilepipe.execution.run_record import RunRecord, find_record, read_record
from tilepipe.products.formats import LOSSLESS
from tilepipe.sources.base import Source
from tilepipe.storage import storage_errors
from tilepipe.text import JSON, setting

KEY_LENGTH = 16
"""Number of hexadecimal digits of the request key in the name of a work directory."""


@dataclass(frozen=True)
class RunOrder:
    """The order of one command: which labels it wants, as the request key says, and where they go."""

    key: str
    """Request key."""
    keys: Keys
    """Identities of image and model when the command began."""
    outputs: Outputs
    """Places of the products."""
    scheduler: str | None = None
    """Address of a running Dask scheduler; if None, blocks are computed here."""
    settings: JSON = field(default_factory=dict)
    """Settings as the user gave them, in JSON types."""
    asked: str = ""
    """Hash of all that decides labels but the image and the choices of the plan."""
    earlier: EarlierRun | None = None
    """Finished run whose labels are taken over where the image has not changed."""
    canvas: tuple[int, int] = (0, 0)
    """Row and column of the first pixel of the image's canvas on a world grid."""

    @property
    def directory(self) -> Path:
        """Work directory of this order."""
        return self.outputs.work / self.key[:KEY_LENGTH]


def refuse_others(order: RunOrder) -> None:
    """Raise `UsageError`, before anything is computed, if a final path holds a file that may not be replaced."""
    if finished(order) is not None:
        return
    try:
        refuse_existing(order.outputs, own_record(order))
    except UsageError as error:
        raise UsageError(f"{error}{_or_since(order)}") from None


def _or_since(order: RunOrder) -> str:
    """Return what to type if the labels at the final path are those of the same model and settings, of an image that
    was changed since; '' if they are not, or if the user has typed it."""
    for file in order.outputs.files:
        found = find_record(file.path) if file.product in LOSSLESS and file.path.exists() else None
        if order.earlier is None and found and found[0].get("asked") == order.asked:
            typed = setting(overwrite=True, since=str(file.path))
            return f". The image has changed since: with {typed} only what sees the change is computed"
    return ""


def finished(order: RunOrder, on_tile_error: str = NODATA) -> RunRecord | None:
    """Return run.json if this same run is complete and its products are still as they were written, else None.

    If the order overwrites, a run with failed tiles is not complete: these tiles are tried again. If `on_tile_error` is
    'fail', failed tiles raise `InputError` or `ModelError`.
    """
    record = own_record(order)
    if record is None or (record["failed"] and order.outputs.overwrite) or not is_published(record, order.outputs):
        return None
    if record["failed"] and on_tile_error == FAIL:
        raise error_of(record["failed"][0])(
            f"{len(record['failed'])} tiles of this finished run have no labels; the first: {record['failed'][0]}; "
            f"{setting(overwrite=True)} tries them again"
        )
    return record


def own_record(order: RunOrder) -> RunRecord | None:
    """Return run.json of this request; None if the request has not come that far."""
    record = read_record(order.directory)
    return record if record and record.get("request") == order.key else None


def staged(order: RunOrder) -> RunRecord | None:
    """Return run.json if a process died between the renames. Then everything is computed, and only renames are left."""
    before = own_record(order)
    return before if before and not before["published"] and is_whole(order.directory, before) else None


def begin(job: Job, order: RunOrder) -> dict[str, FileState]:
    """Return the state of the files at the final paths that may be replaced; locks now keep others from changing them.

    Raises `UsageError` if another file is there, `LockedError` if another process has begun with another plan.
    """
    replaces = refuse_existing(order.outputs, own_record(order))
    if written := staged(order):
        return written["replaces"] | replaces
    kept = kept_plan(order.directory, order.key)
    # The plan was made before the lock was taken, and making it measures speed. Another process may have kept other
    # tiles meanwhile, and its blocks must not be mixed with these.
    # Image and weights are those of the request, which is the same, so they need not be in this comparison.
    if kept is not None and kept.key({}, "") != job.plan.key({}, ""):
        raise LockedError(f"another run of the same command has begun in {order.directory}; give the command again")
    return replaces


def refuse_changed_image(full: Source, order: RunOrder) -> None:
    """Raise an error if the image has changed since the run began, and remove what was computed."""
    if not order.keys.still(full):
        # Nobody knows which blocks were read before the change, so no block can be used.
        shutil.rmtree(order.directory, ignore_errors=True)
        raise InputError(
            f"{full.name} was changed while the run read it, so its labels would be those of two images; nothing was "
            "written. Give the command again once the image is complete"
        )


def refuse_changed(full: Source, order: RunOrder, queue: BlockQueue) -> None:
    """Raise an error if the image or the work directory has changed since the labels were made."""
    refuse_changed_image(full, order)
    directory = order.directory
    try:
        read_plan(directory)
        same = read_records(queue.ledger.path) == (queue.ledger.done, 0)
    except StorageError:
        same = False
    if not same:
        raise StorageError(f"{directory} was changed or removed while the run worked there; {AGAIN}")


def forget(order: RunOrder) -> None:
    """Remove the record of a finished run, for a user who wants no record. Raises `StorageError`."""
    with storage_errors(order.directory):
        shutil.rmtree(order.directory)
    with suppress(OSError):  # another request may keep its own folder there
        order.outputs.work.rmdir()


def error_of(problem: str) -> type[InputError | ModelError]:
    """Return the class of the error for a tile without labels, from the reason of the failure."""
    return ModelError if problem.startswith(MODEL_FAILS) else InputError
