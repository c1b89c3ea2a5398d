"""This module shows progress on standard error: a bar on a terminal, plain lines elsewhere, JSON lines for machines."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

from tilepipe.cli import say
from tilepipe.events import Event, Listener, silent
from tilepipe.text import clean_line

SECONDS_BETWEEN_LINES = 5.0


@contextmanager
def progress(mode: str, quiet: bool = False) -> Iterator[Listener]:
    """Yield a listener that shows events as `mode` asks: 'auto', 'plain', 'json' or 'none'."""
    if mode == "none" or (quiet and mode != "json"):
        yield silent
    elif mode == "json":
        yield json_lines
    elif mode == "auto" and sys.stderr.isatty():
        with _bars() as listener:
            yield listener
    else:
        yield PlainLines()


def json_lines(event: Event) -> None:
    """Write an event as one line of JSON."""
    say.err(json.dumps(asdict(event), sort_keys=True))


class PlainLines:
    """A listener that writes a line when a stage begins and ends, and at most one every few seconds between."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._stage = ""
        self._written = 0.0

    def __call__(self, event: Event) -> None:
        """Write a line if enough time has passed."""
        now = self._clock()
        new_or_last = event.stage != self._stage or (event.total > 0 and event.done >= event.total)
        if new_or_last or event.message or now - self._written >= SECONDS_BETWEEN_LINES:
            self._stage, self._written = event.stage, now
            say.err_line(sentence(event))


def sentence(event: Event) -> str:
    """Return an event as one line: 'predict 12/48 (25 %) message'."""
    count = f"{event.done}/{event.total} ({100 * event.done // event.total} %)" if event.total else ""
    return " ".join(part for part in (event.stage, count, event.message) if part)


@contextmanager
def _bars() -> Iterator[Listener]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
    from rich.table import Column

    columns = (TextColumn("{task.description:<8}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    folded = Column(overflow="fold")  # the message is folded so that the counts have room
    message = TextColumn("{task.fields[message]}", table_column=folded, markup=False)
    with Progress(*columns, message, console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def show(event: Event) -> None:
            if event.stage not in tasks:
                tasks[event.stage] = bars.add_task(event.stage, completed=event.done, message="")
            total = event.total or None
            bars.update(
                tasks[event.stage], completed=event.done, total=total, message=clean_line(say.shown(event.message))
            )

        yield show
