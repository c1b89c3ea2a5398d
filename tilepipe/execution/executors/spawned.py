"""What worker processes inherit of this process while they start, and what of it stays as it was here."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker

import dask

CHANGED_BY_DASK = "distributed.nanny.pre-spawn-environ"
"""Setting with the variables that Dask puts into this process so that worker processes inherit them."""


@contextmanager
def own_environment() -> Iterator[None]:
    """Keep what libraries remark in worker processes, which share stderr but no filters, from it; -W still shows it.

    In the end the variables set here, or by Dask, are as they were.
    """
    names = {"PYTHONWARNINGS", *dask.config.get(CHANGED_BY_DASK, {})}
    before = {name: os.environ.get(name) for name in names}
    # A filter set here does not reach a process that is started anew; its environment does.
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
    """Start threads and processes to which Ctrl-C does not come: a terminal sends it to all processes of a command.

    This process ends them in good order. A Ctrl-C that arrives meanwhile is not lost.
    """
    resource_tracker.ensure_running()  # started later it would undo the mask of the thread that starts a process
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def main_hidden() -> Iterator[None]:
    """Keep worker processes from running the user's script again, which multiprocessing does unless it is guarded."""
    main = sys.modules["__main__"]
    hidden: dict[str, object] = {name: vars(main).pop(name) for name in ("__file__", "__spec__") if name in vars(main)}
    main.__spec__ = None
    try:
        yield
    finally:
        vars(main).update(hidden)
