"""This module decides when a batch that serves itself runs: at times in cron's words, and when a folder has changed.

Each time of the schedule is a slot. Two runs of a batch never overlap, and no slot is forgotten: slots that pass while
a batch works, or while nothing serves, are made up for by one run. Each slot ends in one line of the record:

    {"slot": "2026-11-27T02:00:00+01:00", "state": "done", "code": 0}       the batch ran for it
    {"slot": "...", "state": "caught up", "code": 0}                        a later slot's run did its work too
    {"slot": "...", "state": "interrupted"}                                 the machine or the service ended meanwhile
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from tilepipe.errors import UsageError
from tilepipe.execution.batch.cron import Cron
from tilepipe.storage import append_line, read_lines

if TYPE_CHECKING:
    from apscheduler.triggers.cron import CronTrigger

BEGUN, FINISHED, CAUGHT_UP, INTERRUPTED = "begun", "done", "caught up", "interrupted"
STARTED = "started"
"""State in the record that is no slot but the moment from which on slots count."""
STEP = timedelta(minutes=15)
"""Step by which the hour that comes twice is left."""
MOST_SLOTS = 1000
"""Largest number of missed slots that are recorded one by one; earlier ones are left out."""


def trigger_of(cron: Cron) -> CronTrigger:
    """Return APScheduler's trigger of these times. Raises `UsageError` if APScheduler is not installed."""
    try:
        from apscheduler.triggers.cron import CronTrigger
    except ImportError:
        raise UsageError(
            "times of a batch that serves itself are computed with APScheduler, which is not installed; run: "
            "pip install 'tilepipe[schedule]'"
        ) from None
    return CronTrigger(**cron.apscheduler())


@dataclass
class Slots:
    """The slots of a batch and what became of them."""

    trigger: CronTrigger
    """Times of the schedule."""
    record: Path
    """Path of the record of slots."""
    last: datetime | None = field(default=None, init=False)
    """Latest slot that has a state."""

    def begin(self, now: datetime) -> None:
        """Read what earlier services have recorded; the first service begins with the slots after `now`.

        A slot that was begun and has not ended is interrupted: it is made up for at once.
        """
        states: dict[str, str] = {}
        for line in read_lines(self.record)[0]:
            states[str(line["slot"])] = str(line["state"])
        ended = [datetime.fromisoformat(slot) for slot, state in states.items() if state != BEGUN]
        for slot in [slot for slot, state in states.items() if state == BEGUN]:
            self._say(datetime.fromisoformat(slot), INTERRUPTED)
            ended.append(datetime.fromisoformat(slot))
            self.interrupted = True
        if not ended:
            self._say(now, STARTED)
        self.last = max(ended, default=now)

    interrupted: bool = field(default=False, init=False)
    """Whether a run has to be made up for that was interrupted."""

    def due(self, now: datetime) -> list[datetime]:
        """Return the slots since the last one with a state, up to `now`, in their order."""
        assert self.last is not None
        found: list[datetime] = []
        slot = self._after(self.last)
        while slot is not None and slot <= now:
            found.append(slot)
            if len(found) > MOST_SLOTS:
                del found[0]
            slot = self._after(slot)
        return found

    def next(self) -> datetime | None:
        """Return the first slot that has no state yet; None if there is none any more."""
        assert self.last is not None
        return self._after(self.last)

    def run(self, slots: list[datetime], run: Callable[[], int]) -> int:
        """Run the batch once for all of `slots`, record their states, and return the batch's exit code."""
        for slot in slots:
            self._say(slot, BEGUN)
        code = run()
        for slot in slots[:-1]:
            self._say(slot, CAUGHT_UP, code)
        if slots:
            self._say(slots[-1], FINISHED, code)
            self.last = slots[-1]
        self.interrupted = False
        return code

    def _after(self, slot: datetime) -> datetime | None:
        moment = slot + timedelta(seconds=1)
        while True:
            found: datetime | None = self.trigger.get_next_fire_time(None, moment)
            offset = found.utcoffset() if found else None
            if found is None or offset is None:
                return found
            # Times of one zone compare by the clock on the wall, on which an hour comes twice in autumn.
            found = found.replace(tzinfo=timezone(offset), fold=0)
            if found > slot:
                return found
            # In that hour APScheduler gives the same time again and again. It counts once.
            moment += STEP

    def _say(self, slot: datetime, state: str, code: int | None = None) -> None:
        more = {} if code is None else {"code": code}
        append_line(self.record, {"slot": slot.isoformat(), "state": state, **more})


def folder_state(folder: Path) -> str:
    """Return a hash of names, sizes and times of the files in a folder and below; hidden files are left out."""
    digest = hashlib.sha256()
    for path in sorted(_files(folder)):
        with suppress(OSError):
            known = os.stat(path)
            digest.update(f"{path}\0{known.st_size}\0{known.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _files(folder: Path) -> Iterator[str]:
    for above, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.join(above, name) for name in files if not name.startswith("."))
