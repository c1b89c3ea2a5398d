"""This module lists and removes what runs have left beside their outputs.

A work directory `.OUTPUT.tilepipe` holds one folder for each request. Only folders that a run or an export has made are
examined; links are not followed. A folder is removed while the lock of its output is held, so that no run can begin in
it meanwhile.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tilepipe.errors import InputError, LockedError, public
from tilepipe.execution.export import EXPORT
from tilepipe.execution.publish import ASIDE
from tilepipe.execution.run_order import KEY_LENGTH
from tilepipe.execution.run_record import read_record
from tilepipe.paths import lock_of, output_of_run
from tilepipe.storage import is_locked, locked, storage_errors
from tilepipe.text import JSON

State = Literal["finished", "unfinished", "running"]

_MADE = re.compile(rf"[0-9a-f]{{{KEY_LENGTH}}}|{EXPORT}")


@dataclass(frozen=True)
class Leftover:
    """A folder that a run or an export has left."""

    path: Path
    """The folder."""
    output: Path
    """Path of the output that the folder belongs to; the output may be gone."""
    state: State
    """'finished': the products are in place. 'unfinished': the same command goes on from it, or tiles of it failed.
    'running': a process works on the output now."""
    bytes: int
    """Size of its files in bytes."""
    changed: float
    """Time of the last change of a file in the folder (seconds since 1970)."""
    removed: bool = False
    """Whether the folder was removed."""

    def to_json(self) -> JSON:
        """Return the fields as JSON types, with the age in seconds."""
        named = {"path": str(self.path), "output": str(self.output), "state": self.state, "bytes": self.bytes}
        return {**named, "age_seconds": round(max(time.time() - self.changed, 0)), "removed": self.removed}


@public
def leftovers(folder: str | Path) -> list[Leftover]:
    """Return the folders that runs have left in a folder and in the folders inside it; nothing is changed.

    Raises `InputError` if there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; name one that holds outputs")
    return [_leftover(path) for work in _work_directories(folder) for path in _folders(work)]


@public
def clean(found: Sequence[Leftover], *, unfinished: bool = False) -> list[Leftover]:
    """Remove the folders of finished runs, and if `unfinished` also of unfinished runs; return all, marked if removed.

    The folder of a running run is never removed. Outputs stay as they are. Raises `StorageError` if a folder cannot be
    removed.
    """
    return [_cleaned(one, unfinished) for one in found]


def _cleaned(one: Leftover, unfinished: bool) -> Leftover:
    try:
        with locked(lock_of(one.output)):
            # The state is read again under the lock: the run may have gone on since it was listed.
            now = replace(one, state=_state_at_rest(one.path))
            if not one.path.is_dir() or (now.state == "unfinished" and not unfinished):
                return now
            with storage_errors(one.path):
                shutil.rmtree(one.path)
            with suppress(OSError):  # another request may keep its own folder there
                one.path.parent.rmdir()
            return replace(now, removed=True)
    except LockedError:
        return replace(one, state="running")


def _work_directories(folder: Path) -> Iterator[Path]:
    """Yield the work directories in a folder, itself included, by name."""
    if output_of_run(folder):
        yield folder
        return
    for above, names, _ in os.walk(folder):
        works = sorted(name for name in names if output_of_run(Path(above, name)))
        yield from (Path(above, name) for name in works if not os.path.islink(os.path.join(above, name)))
        # A Zarr store has many folders, and none of them is a work directory.
        names[:] = sorted(set(names) - set(works) - {name for name in names if name.endswith(".zarr")})


def _folders(work: Path) -> list[Path]:
    """Return the folders of runs and exports in a work directory."""
    with os.scandir(work) as inside:
        return sorted(Path(e.path) for e in inside if e.is_dir(follow_symlinks=False) and _MADE.fullmatch(e.name))


def _leftover(path: Path) -> Leftover:
    output = output_of_run(path)
    assert output is not None, path
    state: State = "running" if is_locked(lock_of(output)) else _state_at_rest(path)
    size, changed = 0, 0.0
    for above, _, files in os.walk(path):
        for file in files:
            with suppress(FileNotFoundError):  # a running run may remove files meanwhile
                seen = os.lstat(os.path.join(above, file))
                size, changed = size + seen.st_size, max(changed, seen.st_mtime)
    with suppress(FileNotFoundError):
        changed = changed or path.stat().st_mtime
    return Leftover(path, output, state, size, changed)


def _state_at_rest(path: Path) -> State:
    if (path / ASIDE).exists():  # an output was moved aside, and there may be no other copy of it
        return "unfinished"
    if path.name == EXPORT:
        return "finished"
    record = read_record(path)
    return "finished" if record and record["published"] and not record["failed"] else "unfinished"
