"""This module shows progress on standard error: a live line on a terminal, plain lines elsewhere, JSON for machines."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

from tilepipe.cli import say
from tilepipe.events import Event, Listener, silent

SECONDS_BETWEEN_LINES = 5.0


@contextmanager
def progress(mode: str, quiet: bool = False) -> Iterator[Listener]:
    """Yield a listener that shows events as `mode` asks: 'auto', 'plain', 'json' or 'none'."""
    if mode == "none" or (quiet and mode != "json"):
        yield silent
    elif mode == "json":
        yield json_lines
    elif on_terminal(mode, quiet):
        from tilepipe.cli.screen import screen  # rich is read only if it draws

        with screen() as listener:
            yield listener
    else:
        yield PlainLines()


def on_terminal(mode: str, quiet: bool = False) -> bool:
    """Return whether progress is drawn: a terminal reads standard error, and nothing else was asked for."""
    drawn = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"  # a dumb terminal cannot draw a line again
    return mode == "auto" and not quiet and drawn


def on_one_terminal(mode: str, quiet: bool = False) -> bool:
    """Return whether progress is drawn and results go to a terminal too: then what is drawn need not be said twice."""
    return on_terminal(mode, quiet) and sys.stdout.isatty()


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
