"""This module controls what worker processes inherit from this process when they start."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker

import dask

CHANGED_BY_DASK = "distributed.nanny.pre-spawn-environ"
"""Dask's setting for the variables that Dask puts into this process so that worker processes inherit them."""


@contextmanager
def own_environment() -> Iterator[None]:
    """Keep warnings of libraries in worker processes off stderr, which they share with this process; -W shows them.

    At the end, the variables set here or by Dask are as they were.
    """
    names = {"PYTHONWARNINGS", *dask.config.get(CHANGED_BY_DASK, {})}
    before = {name: os.environ.get(name) for name in names}
    # A filter set here does not reach a process that is started anew; an environment variable does.
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def deaf_to_ctrl_c() -> Iterator[None]:
    """Start threads and processes that do not get Ctrl-C: a terminal sends it to all processes of a command.

    This process ends them in good order. A Ctrl-C that arrives meanwhile is not lost.
    """
    # If it started later, it would undo the signal mask of the thread that starts a process.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def main_hidden() -> Iterator[None]:
    """Keep worker processes from running the user's script again, which multiprocessing does if the script has no
    guard."""
    main = sys.modules["__main__"]
    hidden: dict[str, object] = {name: vars(main).pop(name) for name in ("__file__", "__spec__") if name in vars(main)}
    # multiprocessing reads `__spec__` without asking whether it is there, so it cannot be left out.
    main.__spec__ = None
    try:
        yield
    finally:
        vars(main).update(hidden)
