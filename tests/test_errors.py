"""Ordinary trouble is an error of tilepipe with its own exit code; a bug stays a bug."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest
import torch

from tilepipe.errors import TilepipeError, ordinary, public


def system(number: int) -> OSError:
    return OSError(number, os.strerror(number), "/out/a.tif")


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (system(errno.ENOSPC), 6, "free some space"),
        (system(errno.EDQUOT), 6, "free some space"),
        (system(errno.EFBIG), 6, "free some space"),
        (system(errno.EACCES), 6, "permissions"),
        (system(errno.EROFS), 6, "another path"),
        (system(errno.EISDIR), 6, "name a file"),
        (system(errno.ENOTDIR), 6, "check the path"),
        (system(errno.ENAMETOOLONG), 6, "shorter"),
        (system(errno.EMFILE), 6, "ulimit"),
        (system(errno.ENOLCK), 6, "local disk"),
        (system(errno.EIO), 6, "check the path and the disk"),
        (system(errno.ENOMEM), 7, "less `memory`"),
        (system(errno.EAGAIN), 7, "ulimit -u"),
        (RuntimeError("can't start new thread"), 7, "ulimit -u"),
        (MemoryError(), 7, "less `memory`"),
        (np._core._exceptions._ArrayMemoryError((9, 9), np.dtype("f8")), 7, "less `memory`"),  # type: ignore[attr-defined]
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 7, "less `memory`"),
        (torch.OutOfMemoryError("CUDA out of memory"), 7, "less `memory`"),
        (torch.AcceleratorError("CUDA error: device-side assert triggered"), 7, "the device failed"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), 7, "the device failed"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), 4, "UTF-8"),
        (ValueError("embedded null byte"), 2, "zero byte"),
    ],
)
def test_trouble_has_a_code_and_says_what_to_do(error: Exception, code: int, sentence: str) -> None:
    found = ordinary(error)
    assert found is not None
    assert (found.exit_code, sentence in str(found)) == (code, True), found

    @public
    def fails() -> None:
        raise error

    with pytest.raises(TilepipeError) as raised:
        fails()
    assert raised.value.__cause__ is error


@pytest.mark.parametrize("error", [ValueError("x"), RuntimeError("x"), KeyError("x"), BrokenPipeError()])
def test_a_bug_stays_a_bug(error: Exception) -> None:
    assert ordinary(error) is None
