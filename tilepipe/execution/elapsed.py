"""This module measures the times of a run: the wall time of all its attempts, and the processor time of one attempt.

The wall time is kept in the work directory. An attempt writes its time when it ends. An attempt that is killed
(SIGKILL, power) cannot write, so the sum is a lower bound.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tilepipe.errors import StorageError
from tilepipe.storage import append_line, read_lines

NAME = "elapsed.jsonl"


@dataclass(eq=False)
class _Attempt:
    """An attempt that this process works on."""

    shared: bool = False
    """Whether this process has worked on another attempt at the same time."""


_attempts: set[_Attempt] = set()
_changing = threading.Lock()


def elapsed_before(directory: Path) -> float:
    """Return the wall time of the attempts that have ended (seconds)."""
    with suppress(OSError):
        return sum(float(line.get("seconds", 0)) for line in read_lines(directory / NAME)[0])
    return 0.0


@contextmanager
def timed(directory: Path) -> Iterator[Callable[[], float]]:
    """Time an attempt; yield a function that returns the seconds so far, earlier attempts included."""
    # The clock on the wall can be set while a run works; this clock cannot.
    start, before = time.monotonic(), elapsed_before(directory)
    try:
        yield lambda: round(before + time.monotonic() - start, 3)
    finally:
        # A run removes its directory if its image has changed, and then there is nothing to add to.
        if directory.is_dir():
            # A full disk must not hide the error that ends the run.
            with suppress(StorageError):
                append_line(directory / NAME, {"seconds": round(time.monotonic() - start, 3)})


@contextmanager
def processor_timed() -> Iterator[Callable[[], float]]:
    """Time an attempt; yield a function that returns the processor time of this process so far (seconds).

    The function returns 0 if this process has worked on another attempt meanwhile, as a batch with several images at a
    time does: a process does not know which of them has spent its time.
    """
    start, own = time.process_time(), _Attempt()
    with _changing:
        for one in (own, *_attempts) if _attempts else ():
            one.shared = True
        _attempts.add(own)
    try:
        yield lambda: 0.0 if own.shared else time.process_time() - start
    finally:
        with _changing:
            _attempts.remove(own)
