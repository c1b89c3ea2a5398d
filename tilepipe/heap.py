"""This module gives memory that was freed back to the system."""

from __future__ import annotations

import ctypes
from contextlib import suppress


def give_back() -> None:
    """Return free memory of the heaps to the system if the C library can. By default glibc keeps what threads have
    freed."""
    with suppress(OSError, AttributeError, TypeError):
        # None stands for the process itself, in which the C library is loaded whatever its file is called.
        ctypes.CDLL(None).malloc_trim(0)
