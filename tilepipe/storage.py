"""This module keeps small files safely, with one guarantee for all of them.

A file exists whole or not at all (temporary name, fsync, rename, fsync of the folder). Reading returns exactly what was
written: texts and lines have a checksum, and a text whose checksum does not match counts as missing. Logs are appended
and fsynced; a line that a crash has torn, or that was damaged since, is left out and counted. A lock belongs to one
file, and ends with the process that holds it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from tilepipe.errors import LockedError, StorageError, system_sentence
from tilepipe.text import JSON

NAME = "file"
"""Field of a JSON file that holds its own name."""
CHECK = "check"
"""Field of a JSON object that holds the checksum of the other fields."""
# 64 bits are enough to see damage. They do not protect against somebody who changes a file on purpose, and need not.
DIGITS = 16
"""Number of hexadecimal digits of a checksum."""


def sealed(fields: Mapping[str, object]) -> JSON:
    """Return JSON fields with their checksum as the last field."""
    plain = {name: value for name, value in fields.items() if name != CHECK}
    return {**plain, CHECK: _checksum(plain)}


def unsealed(text: str | bytes) -> JSON | None:
    """Return the fields of a JSON object that `sealed` made; None if they are not as they were written."""
    try:
        fields = json.loads(text)
        check = fields.pop(CHECK)
        return fields if check == _checksum(fields) else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _checksum(fields: Mapping[str, object]) -> str:
    # Sorted, since the order of the fields is no part of the content.
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:DIGITS]


def write_json(path: Path, fields: Mapping[str, object]) -> None:
    """Write JSON fields with their checksum, durably, whole or not at all. Raises `StorageError`."""
    # The file's own name is sealed with them: a copy of another file, whole as it is, must not pass for this one.
    write_durably(path, json.dumps(sealed({**fields, NAME: path.name}), indent=1) + "\n")


def read_json(path: Path) -> JSON:
    """Return the fields that `write_json` wrote. Raises `StorageError` if the file is missing or damaged."""
    try:
        found = unsealed(path.read_bytes())
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}") from None
    if found is None or found.pop(NAME, path.name) != path.name:
        raise StorageError(f"{path} is damaged: it is not what tilepipe wrote there")
    return found


def append_line(path: Path, fields: Mapping[str, object]) -> None:
    """Add a line with its checksum and make it durable; a torn line before it stays as it is. Raises `StorageError`."""
    with storage_errors(path):
        created = not path.exists()
        with path.open("ab+") as file:
            if file.tell():
                # A crash may have torn the last line. Without a line feed, the new line would be joined to it and both
                # would be lost.
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write(json.dumps(sealed(fields)).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        # The name of a new file is an entry of its folder, which is synced apart from the file.
        if created:
            sync(path.parent, path.parent)


def each_line(path: Path) -> Iterator[JSON | None]:
    """Yield the lines of a log, one in memory at a time; None for a line that is not as it was written."""
    if path.exists():
        with path.open("rb") as file:
            for line in file:
                if line != b"\n":
                    yield unsealed(line)


def read_lines(path: Path) -> tuple[list[JSON], int]:
    """Return the lines of a log that are as they were written, and the number of other lines between or after them."""
    found = list(each_line(path))
    whole = [fields for fields in found if fields is not None]
    return whole, len(found) - len(whole)


def sync(path: Path, top: Path) -> None:
    """Make a file or folder durable, and its entries in the folders above it up to `top`."""
    target = path
    while True:
        handle = os.open(target, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        if target in (top, target.parent):
            return
        target = target.parent


def sync_tree(path: Path) -> None:
    """Make a file, or a folder with all its content, durable."""
    for inside in sorted(path.rglob("*")) if path.is_dir() else ():
        sync(inside, inside)
    sync(path, path)


def write_durably(path: Path, content: str | bytes | Iterable[str]) -> None:
    """Write a file, from bytes or from one text or several, whole or not at all. Raises `StorageError`."""
    with replaced(path) as part:
        if isinstance(content, bytes):
            part.write_bytes(content)
        else:
            with part.open("w", encoding="utf-8") as file:
                file.writelines([content] if isinstance(content, str) else content)


def write_new(path: Path, content: str) -> None:
    """Write a file that does not exist yet, whole or not at all.

    Raises `FileExistsError` if there is a file, also one that somebody else has written meanwhile, and `StorageError`.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with storage_errors(part):
            part.write_text(content, encoding="utf-8")
            sync(part, part)
        try:
            os.link(part, path)  # unlike a rename, a link never replaces a file
        except FileExistsError:
            raise
        except OSError as error:
            raise cannot_write(path, error) from None
        sync(path.parent, path.parent)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Yield the path of a new file, which replaces `path` when the block ends; after an error `path` stays as it was.

    Raises `StorageError`.
    """
    part = path.with_name(path.name + ".part")
    with storage_errors(path):
        try:
            yield part
            sync(part, part)
            os.replace(part, path)
            sync(path, path.parent)
        # Ctrl-C, too, must leave no part behind.
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink()
            raise


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn errors of the operating system about `path` (full, not writable) into `StorageError`."""
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from None


def cannot_write(path: Path, error: OSError) -> StorageError:
    """Return the error for a write to `path` that the operating system refuses."""
    free = free_space(path)
    told = "" if free is None else f"; {free >> 20} MiB are free there"
    return StorageError(f"cannot write: {system_sentence(error, path)}{told}")


def free_space(path: Path) -> int | None:
    """Return the number of free bytes on the disk of a path, which need not exist; None if it is not known."""
    while not path.exists() and path != path.parent:
        path = path.parent
    try:
        disk = shutil.disk_usage(path)
    except OSError:
        return None
    # A file system that holds no files, such as /proc, has no size at all.
    return disk.free if disk.total else None


@contextmanager
def locked(*files: Path) -> Iterator[None]:
    """Hold the given lock files, all or none; they are removed at the end.

    Raises `LockedError` if another process holds one of them, `StorageError` if the file system has no locks.
    """
    with ExitStack() as held:
        # One order for all processes: else each of two runs could get one file of two, and both would give up.
        for file in sorted(files):
            held.enter_context(_lock(file))
        yield


def is_locked(path: Path) -> bool:
    """Return whether a process holds a lock file now; the file stays unchanged."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # the file does not exist, or the file system has no locks
        return False
    return False


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    while True:
        with storage_errors(path):
            file = path.open("a+")
        with file:
            _take(file, path)
            if _same(file, path):  # otherwise its last holder has just removed it
                try:
                    yield
                finally:
                    # It is removed while it is held: a moment later it could be the lock of another process.
                    path.unlink(missing_ok=True)
                return


def _take(file: IO[str], path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LockedError(f"another run holds {path}; wait for it or choose another output") from None
    except OSError as error:
        # File systems say in different ways that they have no locks.
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            raise
        raise StorageError(
            f"the file system of {path.parent} cannot lock files ({error.strerror}), so two runs could mix their "
            "labels there; write to another disk and copy the result"
        ) from None


def _same(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False
