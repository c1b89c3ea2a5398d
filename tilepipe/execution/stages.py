"""This module collects the stage times of the processes of a run in its work directory.

Each process writes its sums after each block into a file of its own. They are notes about an attempt and not part of
its result: they are not synced, and those of an attempt that was stopped are forgotten.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tilepipe.stage_times import STAGES, taken_so_far
from tilepipe.text import json_of

FOLDER = "stages"
PROCESSOR = "processor"
"""Name of the processor time of a process in its notes."""


class StageNotes:
    """The notes of one process."""

    def __init__(self, directory: Path | None) -> None:
        """Begin to count; without a `directory` nothing is written."""
        self._directory, self._before = directory, taken_so_far()
        self._processor = time.process_time() if directory else 0.0  # asking takes long while threads compute

    def write(self) -> None:
        """Write the seconds of each stage since the beginning."""
        if self._directory is None:
            return
        taken = {name: seconds - self._before[name] for name, seconds in taken_so_far().items()}
        taken[PROCESSOR] = time.process_time() - self._processor
        folder = self._directory / FOLDER
        # Notes are worth no error: a full disk shows when labels are written.
        with suppress(OSError):
            folder.mkdir(exist_ok=True)
            # One process may work on several jobs after each other, and then they have the same name and other folders.
            path = folder / _own_name()
            made = path.with_suffix(".tmp")
            made.write_text(json.dumps(taken), encoding="utf-8")
            made.replace(path)


@contextmanager
def collected(directory: Path, processes: int) -> Iterator[Callable[[], dict[str, float]]]:
    """Collect the notes of the blocks that are computed here; yield a function that returns the seconds of each stage.

    It adds `elapsed` (wall time of all blocks), `idle` (time in which no process computed, read for the model or
    wrote), and `processor` (processor time of the other processes). The notes are removed at the end.
    """
    shutil.rmtree(directory / FOLDER, ignore_errors=True)
    began, found = time.perf_counter(), dict[str, float]()

    def seconds() -> dict[str, float]:
        return found

    try:
        yield seconds
        found.update(_added(directory / FOLDER))
        elapsed = time.perf_counter() - began
        busy = sum(found[name] for name in ("wait", "compute", "blend", "write"))
        found.update(elapsed=elapsed, idle=max(0.0, processes * elapsed - busy))
        found.update({name: round(value, 3) for name, value in found.items()})
    finally:
        shutil.rmtree(directory / FOLDER, ignore_errors=True)


def _added(folder: Path) -> dict[str, float]:
    total = dict.fromkeys((*STAGES, PROCESSOR), 0.0)
    for path in folder.glob("*.json"):
        with suppress(OSError, ValueError, TypeError):
            noted = json_of(path.read_text(encoding="utf-8"))
            for name in STAGES:
                total[name] += float(noted.get(name, 0.0))
            if path.name != _own_name():  # this process knows its own, which has more than blocks in it
                total[PROCESSOR] += float(noted.get(PROCESSOR, 0.0))
    return total


def _own_name() -> str:
    return f"{os.uname().nodename}-{os.getpid()}.json"
