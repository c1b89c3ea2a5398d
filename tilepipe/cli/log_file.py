"""This module keeps the events of a command in a log: one JSON object per line, with the time, for machines."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime

from tilepipe.cli import say
from tilepipe.cli.help import expert
from tilepipe.errors import UsageError
from tilepipe.events import Event, Listener
from tilepipe.text import redacted

LOG = expert("Machine", "--log", metavar="FILE", help="Add the events to this file, one JSON object a line.")
SECONDS_BETWEEN_LINES = 5.0
"""Shortest time between two lines about the same stage that carry no message."""


@contextmanager
def logged(path: str | None, listener: Listener) -> Iterator[Listener]:
    """Yield a listener that also adds events to the log at `path`; without a path, yield the listener as it is.

    Raises `UsageError` if the log cannot be opened. A log that cannot be written later (a full disk) is said once, and
    the command goes on.
    """
    if path is None:
        yield listener
        return
    try:
        file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - it is closed below, also if closing fails
    except OSError as error:
        raise UsageError(f"the log {path} cannot be written: {error.strerror or error}") from None
    lines = LogLines(file.write, file.flush)

    def both(event: Event) -> None:
        lines(event)
        listener(event)

    try:
        yield both
    finally:
        with suppress(OSError):
            file.close()


class LogLines:
    """A listener that writes events as JSON lines: each that says something, and some of those that only count."""

    def __init__(
        self, write: Callable[[str], object], flush: Callable[[], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._write, self._flush, self._clock = write, flush, clock
        self._stage, self._written, self._broken = "", 0.0, False

    def __call__(self, event: Event) -> None:
        """Write a line if the event begins or ends a stage, says something, or enough time has passed."""
        now = self._clock()
        new_or_last = event.stage != self._stage or (event.total > 0 and event.done >= event.total)
        if self._broken or not (new_or_last or event.message or now - self._written >= SECONDS_BETWEEN_LINES):
            return
        self._stage, self._written = event.stage, now
        when = datetime.now(UTC).isoformat(timespec="milliseconds")
        try:
            self._write(redacted(json.dumps({"time": when, "pid": os.getpid(), **asdict(event)})) + "\n")
            self._flush()
        except OSError as error:
            self._broken = True
            say.err_line(f"tilepipe: the log cannot be written any more ({error.strerror}); the command goes on")
