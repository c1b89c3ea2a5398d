"""This module serves a batch: it runs the batch at its times and when a folder has changed, until it is stopped.

Each run is a command of its own (`tilepipe batch run`), so memory and crashes of a run do not stay with the service.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tilepipe.errors import UsageError
from tilepipe.events import Event, Listener, silent
from tilepipe.execution.batch.cron import Cron
from tilepipe.execution.batch.jobs_file import output_folder, read_jobs
from tilepipe.execution.batch.schedule import command_of
from tilepipe.execution.batch.slots import Slots, folder_state, trigger_of
from tilepipe.storage import locked

LONGEST_SLEEP = 20.0
"""Longest time between two looks at the clock, which may be set, or may have slept (seconds)."""
STOP_SECONDS = 60.0
"""Time that a batch gets to end when the service is stopped (seconds)."""


@dataclass(frozen=True)
class Clock:
    """The clock of the machine, which tests replace."""

    now: Callable[[], datetime] = lambda: datetime.now().astimezone()
    """Returns the time with its time zone."""
    sleep: Callable[[float], None] = time.sleep
    """Waits for a number of seconds."""


def serve(
    jobs: str | Path, cron: Cron | None, watch: Path | None = None, *, every: float = 30.0, listener: Listener = silent
) -> None:
    """Run a batch at the times `cron`, and whenever the content of the folder `watch` has changed, until Ctrl-C.

    The folder is looked at every `every` seconds. A batch that has images which wait (they still grow) is run again.
    Raises `UsageError` if the jobs file is wrong or neither times nor a folder are given, and `LockedError` if another
    service serves the same jobs file.
    """
    path = Path(jobs).resolve()
    if cron is None and watch is None:
        raise UsageError("nothing says when to run; give times as `cron`, such as '0 2 * * *', or a folder as `watch`")
    if watch is not None and not watch.is_dir():
        raise UsageError(f"{watch} is no folder, so nothing can arrive in it")
    read_jobs(path)  # a wrong file is said now and not at night
    folder = output_folder(read_jobs(path), path.parent)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / f".{path.stem}.serve.lock"):
        slots = Slots(trigger_of(cron), folder / f"{path.stem}.slots.jsonl") if cron else None
        Service(slots, watch, every, lambda: _run(path), listener).work(Clock())


@dataclass
class Service:
    """The loop of a service."""

    slots: Slots | None
    """Slots of the schedule; None if only a folder is watched."""
    watch: Path | None
    """Folder that is watched."""
    every: float
    """Time between two looks at the folder (seconds)."""
    run: Callable[[], int]
    """Runs the batch and returns its exit code."""
    listener: Listener = silent
    """Hears when the batch runs, and how it ended."""

    def work(self, clock: Clock, rounds: int | None = None) -> None:
        """Work until an exception such as Ctrl-C, or for a number of `rounds`."""
        if self.slots:
            self.slots.begin(clock.now())
        before = ""  # what lies in the folder already is work too
        while rounds is None or rounds > 0:
            rounds = None if rounds is None else rounds - 1
            due = self.slots.due(clock.now()) if self.slots else []
            found = folder_state(self.watch) if self.watch else before
            if due or (self.slots and self.slots.interrupted) or found != before:
                self._run_for(due)
                before = found
                continue
            clock.sleep(self._pause(clock.now()))

    def _run_for(self, due: list[datetime]) -> None:
        why = f"slot of {due[-1]:%Y-%m-%d %H:%M}" if due else "the folder has changed"
        missed = f", {len(due) - 1} missed before" if len(due) > 1 else ""
        self.listener(Event("serve", message=f"run: {why}{missed}"))
        code = self.slots.run(due, self.run) if self.slots else self.run()
        self.listener(Event("serve", message=f"ended with exit code {code}", data={"code": code}))

    def _pause(self, now: datetime) -> float:
        pauses = [LONGEST_SLEEP] + ([self.every] if self.watch else [])
        if self.slots and (following := self.slots.next()):
            pauses.append(max(0.1, (following - now).total_seconds()))
        return min(pauses)


def _run(jobs: Path) -> int:
    """Run the batch as a command of its own and return its exit code; if this process is stopped, so is the batch."""
    process = subprocess.Popen([*command_of(jobs), "--summary"])
    try:
        return process.wait()
    except BaseException:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise
