"""Reports of a run for people in Python: the logger `tilepipe`, and a bar in a terminal or a notebook."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

from tilepipe.errors import UsageError
from tilepipe.events import Event, Listener, silent

LOGGER = logging.getLogger("tilepipe")
"""Logger of all runs: WARNING for what is likely wrong, INFO for what a run says, DEBUG for each step of progress."""
LOGGER.addHandler(logging.NullHandler())
EVERY = 0.2
"""Least time between two pictures of a bar (seconds)."""


def log(event: Event) -> None:
    """Log an event."""
    warns = event.message.startswith("warning: ")
    level = logging.WARNING if warns else logging.INFO if event.message and not event.total else logging.DEBUG
    if LOGGER.isEnabledFor(level):
        count = f" {event.done}/{event.total}" if event.total else ""
        LOGGER.log(level, "%s%s%s", event.stage, count, f": {event.message}" if event.message else "")


@contextmanager
def reported(listener: Listener | None, progress: bool = False) -> Iterator[Listener]:
    """Yield a listener that logs each event, shows a bar if `progress` is True, and tells the caller's `listener`."""
    if listener is not None and not callable(listener):
        raise UsageError(f"`listener` {listener!r} is no function; give one that takes an Event, as print does")
    bar = (_NotebookBar() if _in_notebook() else _TerminalBar()) if progress else None

    def tell(event: Event) -> None:
        log(event)
        if bar is not None:
            bar(event)
        (listener or silent)(event)

    try:
        yield tell
    finally:
        if bar is not None:
            bar.close()


def _in_notebook() -> bool:
    """Return whether this code runs in a cell of a notebook; IPython is not imported to ask."""
    found = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(found).__name__ == "ZMQInteractiveShell"


class _TerminalBar:
    """One line per stage on stderr."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, TextColumn("{task.fields[said]}"), console=Console(stderr=True))
        self._stages: dict[str, Any] = {}
        self._bar.start()

    def __call__(self, event: Event) -> None:
        if not event.total:
            return
        if event.stage not in self._stages:
            self._stages[event.stage] = self._bar.add_task(event.stage, total=event.total, said="")
        self._bar.update(self._stages[event.stage], completed=event.done, total=event.total, said=event.message)

    def close(self) -> None:
        self._bar.stop()


class _NotebookBar:
    """A bar in the output of a cell, which needs no widgets."""

    def __init__(self) -> None:
        self._place: Any = None
        self._stages: dict[str, Event] = {}
        self._shown = 0.0

    def __call__(self, event: Event) -> None:
        if not event.total:
            return
        self._stages[event.stage] = event
        if event.done == event.total or time.monotonic() - self._shown > EVERY:
            self._show()

    def close(self) -> None:
        if self._stages:
            self._show()

    def _show(self) -> None:
        from IPython import display

        rows = (
            f"<div><code>{escape(stage)}</code> <progress value='{event.done}' max='{event.total}'></progress> "
            f"{event.done} / {event.total} {escape(event.message)}</div>"
            for stage, event in self._stages.items()
        )
        page = display.HTML("".join(rows))  # type: ignore[no-untyped-call]
        self._shown = time.monotonic()
        if self._place is None:
            self._place = display.display(page, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._place.update(page)
