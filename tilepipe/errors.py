"""Every error a user can cause.

    TilepipeError                       exit code
    |-- UsageError       2   the question is wrong: a flag, a region, an output that exists
    |-- InputError       4   the image is refused: missing, not an image, truncated, wrong bands
    |-- ModelError       5   the model is refused: missing tensors, wrong shapes, NaN from it
    |-- StorageError     6   disk or I/O: full, not writable, corrupt work directory
    |-- DeviceError      7   the device: not there, out of memory
    `-- LockedError     75   another run works on this output

Each message names the thing, both numbers and what to do next. A message is one to three sentences.
"""

from __future__ import annotations


class TilepipeError(Exception):
    """Base of every error that a user can cause; `exit_code` is what the command line ends with."""

    exit_code = 1


class UsageError(TilepipeError):
    """The question is wrong: an option, a region, an output that exists."""

    exit_code = 2


class InputError(TilepipeError):
    """The image is refused: missing, not an image, truncated, wrong band count or dtype."""

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


class LockedError(TilepipeError):
    """Another run works on the same output; try again later."""

    exit_code = 75
