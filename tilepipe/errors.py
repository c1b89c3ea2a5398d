"""This module defines every error a user can cause, and turns ordinary errors of the system and libraries into these.

    TilepipeError                       exit code
    |-- UsageError       2   the question is wrong: a flag, a region, an output that exists
    |-- InputError       4   the input is refused: missing, not an image, truncated, wrong bands
    |-- ModelError       5   the model is refused: missing tensors, wrong shapes, NaN from it
    |-- StorageError     6   disk or I/O: full, not writable, corrupt work directory
    |-- DeviceError      7   the device: not there, out of memory
    `-- LockedError     75   another run works on this output

Each message names the thing, both numbers and what to do next. A message is one to three sentences.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

from tilepipe.text import setting

P = ParamSpec("P")
T = TypeVar("T")
NO_MEMORY = (
    "can't allocate memory", "not enough memory", "out of memory", "unable to allocate", "failed to allocate memory",
    "bad_alloc", "status_alloc_failed",
)  # fmt: skip
"""Phrases by which libraries without an error class for it say that memory ran out."""
DEVICE_WORDS = ("cuda error", "cuda failure")
"""Phrases by which torch and onnxruntime say that a device failed; the process cannot use the device any more then."""
DISK_WORDS = ("no space left", "failed to write", "write error", "error while writing", "disk full", "file too large")
"""Phrases by which GDAL and libtiff say that a disk is full."""
NO_THREAD = ("can't start new thread", "resource temporarily unavailable")
"""Phrases by which Python and the system say that a limit on threads, processes or address space is reached."""
ZERO_BYTE = ("null byte", "null character")
KEPT = "what is done is kept, the same command goes on"
FREE_SPACE = f"free some space or choose an output on another disk; {KEPT}"
_FULL = f"the disk is full, or a file may not grow further, at {{path}} ({{said}}); {FREE_SPACE}"
_REFUSED = "{path} may not be read or written ({said}); check its permissions and its folder's, or choose another path"
_UNABLE = "the file system of {path} cannot do this ({said}); choose an output on a local disk"
_OPEN = "too many files are open ({said}); raise the limit with 'ulimit -n 4096', or use fewer workers"
_OTHER = "{path}: {said}; check the path and the disk, then give the same command again"
SENTENCES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _FULL),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _REFUSED),
    **dict.fromkeys((errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP), _UNABLE),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), _OPEN),
    errno.ENAMETOOLONG: "the name {path:.80}... is too long for this file system; choose a shorter one",
    errno.EEXIST: "{path} is there already; choose another path",
    errno.EISDIR: "{path} is a folder, and a file is needed; name a file",
    errno.ENOTDIR: "{path} goes through a file as if it were a folder; check the path",
    errno.ENOENT: "{path} is not there ({said}); check the path",
}
"""Sentences of messages by error number."""


class TilepipeError(Exception):
    """Base class of every error that a user can cause. Catch this one to catch them all.

    The message says in one to three sentences what is wrong, with the numbers, and what to do next.

    Example:
        >>> import tilepipe as tp
        >>> try:
        ...     tp.Box(10, 0, 10, 5)
        ... except tp.TilepipeError as error:
        ...     print(error.exit_code, error)
        2 region has no pixels: rows 10 to 10, columns 0 to 5; give it at least one row and one column
    """

    exit_code = 1
    """Exit code of the command line for this error."""


class UsageError(TilepipeError):
    """The question is wrong: an option, a region, an output that exists."""

    exit_code = 2


class InputError(TilepipeError):
    """The input, an image or labels, is refused: missing, not an image, truncated, wrong band count or dtype."""

    exit_code = 4


class ChangedError(TilepipeError):
    """The input was written to while it was open. It ends a run at once: no tile of the file can be relied on."""

    exit_code = 4


class ModelError(TilepipeError):
    """The model is refused: missing or misshapen tensors, an unknown architecture, NaN in its output."""

    exit_code = 5


class StorageError(TilepipeError):
    """Disk or I/O: full, not writable, or a work directory that does not match its ledger."""

    exit_code = 6


class DeviceError(TilepipeError):
    """The device is not there or has too little memory."""

    exit_code = 7


class NoMemoryError(DeviceError):
    """Memory of the machine ran out."""


class LockedError(TilepipeError):
    """Another run works on the same output; try again later."""

    exit_code = 75


def system_sentence(error: OSError, path: object = None) -> str:
    """Return a sentence with the system's error for a path, and what to do next."""
    where = str(path or error.filename or "the output")
    return SENTENCES.get(error.errno or 0, _OTHER).format(path=where, said=error.strerror or _line(error))


def ordinary(error: BaseException) -> TilepipeError | None:
    """Return the tilepipe error for an ordinary error; None if the error is already tilepipe's own, or a bug."""
    # A closed pipe is no trouble with a file: the reader of the output has seen enough.
    if isinstance(error, TilepipeError | BrokenPipeError):
        return None
    # These two are limits of memory and processes; no path is to blame.
    if isinstance(error, OSError) and error.errno not in (errno.ENOMEM, errno.EAGAIN):
        return StorageError(system_sentence(error))
    # The errors of onnxruntime derive from Exception alone.
    if isinstance(error, MemoryError | OSError | RuntimeError) or type(error).__module__.startswith("onnxruntime"):
        return _of_device(error)
    if isinstance(error, ValueError):
        return _of_text(error)
    if type(error).__module__.startswith("rasterio") and _says(error, DISK_WORDS):
        return StorageError(f"a file could not be written whole ({_line(error)}); is the disk full? {FREE_SPACE}")
    return None


def _of_device(error: BaseException) -> TilepipeError | None:
    if _says(error, NO_THREAD):
        return DeviceError(
            f"no further thread or process may be started ({_line(error)}); raise the limits that 'ulimit -u' and "
            f"'ulimit -v' print, or give fewer `workers`; {KEPT}"
        )
    if isinstance(error, MemoryError | OSError) or _says(error, NO_MEMORY):
        said = f" ({_line(error)})" if _line(error) else ""
        return NoMemoryError(f"memory ran out{said}; give less `memory`, a smaller `tile` or fewer `workers`; {KEPT}")
    if _says(error, DEVICE_WORDS):
        return DeviceError(
            f"the device failed ({_line(error)}); give the same command again, or {setting(device='cpu')}; {KEPT}"
        )
    return None


def _of_text(error: ValueError) -> TilepipeError | None:
    if isinstance(error, UnicodeError):
        return InputError(f"a file or a name is no text in UTF-8 ({_line(error)}); save or name it again as UTF-8")
    # Python refuses such a path with a ValueError, before the system sees it.
    if _says(error, ZERO_BYTE):
        return UsageError("a path holds a zero byte, which no file can have; give another path")
    return None


def _says(error: BaseException, words: tuple[str, ...]) -> bool:
    said = str(error).lower()
    return any(word in said for word in words)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


@contextmanager
def as_errors() -> Iterator[None]:
    """Turn ordinary errors raised inside into `TilepipeError`."""
    try:
        yield
    except Exception as error:
        known = ordinary(error)
        if known is None:
            raise
        raise known from error


def public(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a public function so that it raises every ordinary error as a `TilepipeError`."""

    @wraps(function)
    def safe(*args: P.args, **kwargs: P.kwargs) -> T:
        with as_errors():
            return function(*args, **kwargs)

    return safe
