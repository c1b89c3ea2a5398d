"""This module keeps standard error for tilepipe's messages: messages of libraries are kept away, however they are made.

Some messages of GDAL and libtiff come from C, and no handler of Python sees them.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

STANDARD_ERROR = 2


@contextmanager
def own_stderr() -> Iterator[None]:
    """Keep `sys.stderr` as it is, and discard all else that this process and its children write to standard error.

    With -W or PYTHONWARNINGS the messages of libraries are shown.
    """
    if sys.warnoptions:
        yield
        return
    warnings.simplefilter("ignore")
    logging.getLogger().addHandler(logging.NullHandler())  # without any handler, Python prints warnings that are logged
    before, kept = sys.stderr, os.dup(STANDARD_ERROR)
    try:
        # A letter that the terminal cannot show must not end the run.
        with open(kept, "w", encoding=before.encoding, errors="backslashreplace", closefd=False) as sys.stderr:
            _point_to(os.devnull)
            yield
    finally:
        sys.stderr = before
        os.dup2(kept, STANDARD_ERROR)
        os.close(kept)


def _point_to(path: str) -> None:
    nowhere = os.open(path, os.O_WRONLY)
    os.dup2(nowhere, STANDARD_ERROR)
    os.close(nowhere)
