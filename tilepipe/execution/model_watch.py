"""This module knows on which tiles a model has ended the process, or did not come back, and which tiles to leave out.

    <key>/model_calls/<host>-<pid>-<n>      the tiles that a process gives to the model now
    <key>/model_calls/<host>-<pid>-<n>.end  why the process has ended meanwhile; empty as long as it has not
    <key>/model_ends.jsonl                  one line per such end: the reason and the tiles

The reason is written by Python's faulthandler from within the dying process, or by its parent (see `supervisor`). A
process that is killed from outside leaves no reason: its tiles are computed again, as after any interruption.

After an end, its tiles are suspects: each is tried alone. A tile that was alone when it ended a process for the second
time is given up: it gets no label and is listed.
"""

from __future__ import annotations

import faulthandler
import itertools
import json
import os
import platform
import shutil
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tilepipe.box import Box
from tilepipe.execution.job import Job
from tilepipe.models.precision import ONE_AT_A_TIME
from tilepipe.storage import append_line, read_lines, storage_errors
from tilepipe.supervisor import owns_process, working_on
from tilepipe.text import JSON

CALLS, ENDS = "model_calls", "model_ends.jsonl"
TILES, PATCHES = "tiles", "patches"
"""Names of what a model is called on: tiles of the prediction grid, or patches of the grid of statistics."""
FATAL, TIMEOUT = "Fatal Python error: ", "Timeout ("
"""First words of what faulthandler writes."""
_NUMBERS = itertools.count()


@dataclass
class Suspects:
    """What is known about tiles on which processes have ended."""

    ends: dict[Box, int] = field(default_factory=dict)
    """Number of ends by tile."""
    given_up: dict[Box, str] = field(default_factory=dict)
    """Reason by tile, for tiles that are left out."""
    hopeless: str = ""
    """Reason, if the model ends the process on made-up pixels too; '' otherwise."""


class ModelWatch:
    """A watch over the calls of one model in one process, for a run with a work directory; without one it does nothing.

    Threads can share it: one call is made at a time.
    """

    def __init__(self, directory: Path | None, of: str, limit: float) -> None:
        """Read what is known. `of` is what the model is called on; a process of our own is ended if a call takes longer
        than `limit` seconds (0: never).
        """
        self._of, self._limit, self.directory = of, limit, directory
        self._files: _Files | None = None
        self.suspects = Suspects()
        if directory is not None:
            collect_ends(directory)
            self.suspects = suspects_of(directory, of)

    @contextmanager
    def over(self, boxes: Sequence[Box]) -> Iterator[None]:
        """Keep on disk that the model works on the tiles at `boxes`, () for made-up pixels, until the block ends."""
        if self.directory is None:
            yield
            return
        with ONE_AT_A_TIME, ExitStack() as at_end:
            # The files stay open from call to call: opening them each time is slow on network disks.
            files = self._files = self._files or _Files(self.directory / CALLS)
            corners = [(box.y0, box.x0, box.y1, box.x1) for box in boxes]
            files.note({"of": self._of, "boxes": corners, "seconds": self._limit})
            if owns_process():
                working_on(str(files.end))
                at_end.callback(working_on, "")
                if self._limit:
                    # This clock runs in a thread of C: it works also while the model holds the interpreter's lock.
                    faulthandler.dump_traceback_later(self._limit, exit=True, file=files.end_fd)
                    at_end.callback(faulthandler.cancel_dump_traceback_later)
            # In the user's own process, a faulthandler that is on already writes where the user reads it.
            if owns_process() or not faulthandler.is_enabled():
                faulthandler.enable(files.end_fd, all_threads=False)
                at_end.callback(faulthandler.disable)
            yield


NO_WATCH = ModelWatch(None, TILES, 0)
"""Watch over nothing, for a region in memory."""


def watch_of(job: Job, of: str) -> ModelWatch:
    """Return the watch over the calls on `of` in a job."""
    return ModelWatch(job.directory, of, job.tile_timeout)


class _Files:
    """The open note of a process and the file for the reason of its end."""

    def __init__(self, folder: Path) -> None:
        """Make both files. Raises `StorageError`."""
        self.end = folder.absolute() / f"{platform.node()}-{os.getpid()}-{next(_NUMBERS)}.end"
        with storage_errors(folder):
            folder.mkdir(exist_ok=True)
            self.note_fd, self.end_fd = (
                os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
                for path in (self.end.with_suffix(""), self.end)
            )
        for number in (self.note_fd, self.end_fd):
            weakref.finalize(self, os.close, number)

    def note(self, fields: JSON) -> None:
        """Write what the model works on. It is not synced: it must outlive the process, not a power failure."""
        with storage_errors(self.end):
            os.pwrite(self.note_fd, json.dumps(fields).encode() + b"\n", 0)


def begin_watch(directory: Path) -> None:
    """Keep the reasons that ended processes have left, and remove the notes of processes that were killed."""
    collect_ends(directory)
    shutil.rmtree(directory / CALLS, ignore_errors=True)


def forget_ends(directory: Path) -> None:
    """Forget all suspects: all tiles are tried again."""
    (directory / ENDS).unlink(missing_ok=True)
    shutil.rmtree(directory / CALLS, ignore_errors=True)


def collect_ends(directory: Path) -> None:
    """Add a line to the list of ends for each process that has left a reason. Raises `StorageError`."""
    for end in sorted((directory / CALLS).glob("*.end")):
        taken = end.with_suffix(".taken")
        with suppress(OSError, ValueError):  # another process has taken it, or the note was torn
            if not end.stat().st_size:
                continue
            end.rename(taken)
            # A longer note of an earlier call may still show behind the first line.
            note = json.loads(end.with_suffix("").read_text().splitlines()[0])
            first = taken.read_text(errors="replace").splitlines()[0]
            append_line(directory / ENDS, {**note, "why": _why(first, note["seconds"])})
        taken.unlink(missing_ok=True)


def _why(first: str, seconds: float) -> str:
    """Return the reason in words, from the first line of what faulthandler or the parent has written."""
    if first.startswith(TIMEOUT):
        return f"it gives no answer within {seconds:g} s"
    return f"it ends the process ({first.removeprefix(FATAL).strip()})"


def suspects_of(directory: Path, of: str) -> Suspects:
    """Return what the list of ends says about tiles (or patches)."""
    found = Suspects()
    for line in read_lines(directory / ENDS)[0]:
        if line["of"] != of:
            continue
        boxes = [Box(*box) for box in line["boxes"]]
        for box in boxes:
            found.ends[box] = found.ends.get(box, 0) + 1
        if not boxes:
            found.hopeless = line["why"]
        # The first end of a tile may have been bad luck (a computer that slept, for instance).
        elif len(boxes) == 1 and found.ends[boxes[0]] > 1:
            found.given_up[boxes[0]] = line["why"]
    return found
