"""This module keeps what was measured once per machine, in one cache directory; a damaged entry is measured again.

An entry decides what tilepipe promises about seams and memory, so only entries of this user are believed: a file that
belongs to somebody else, that others may write, that is a link, or that was kept under another name counts as missing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import tempfile
import time
from pathlib import Path

from tilepipe.storage import sealed, unsealed

LARGE = 16 << 20
"""Size from which on the hash of a file is kept [bytes]; a smaller file is hashed in less than 50 ms."""
SETTLED = 3_000_000_000
"""Least age of a file's last change for its hash to be kept [ns]. Many file systems tell times in steps of up to 2 s,
so a younger file could be changed again without another time."""


def cache_directory() -> Path | None:
    """Return `TILEPIPE_CACHE`, or `tilepipe` under `XDG_CACHE_HOME` or `~/.cache`; None if the variable is set but
    empty."""
    chosen = os.environ.get("TILEPIPE_CACHE")
    if chosen is not None:
        return Path(chosen) if chosen else None
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "tilepipe"


def recall(name: str, directory: Path | None) -> str | None:
    """Return the text kept as `name` in a directory; None if there is no text, or it is not as it was written."""
    if directory is None:
        return None
    try:
        found = unsealed(_own_bytes(directory / name))
    except OSError:
        return None
    return found.get("text") if found and found.get("name") == name else None


def _own_bytes(path: Path) -> bytes:
    """Return the content of a file that only this user can have written. Raises `OSError` for another file."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(handle, "rb") as file:
        known = os.fstat(handle)
        # The administrator may have filled the cache for everybody.
        own = not hasattr(os, "geteuid") or known.st_uid in (os.geteuid(), 0)
        others_write = known.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if not own or others_write or not stat.S_ISREG(known.st_mode):
            raise PermissionError(f"{path} is not this user's own file")
        return file.read()


def keep(name: str, text: str, directory: Path | None) -> None:
    """Keep a text as `name` in a directory, whole or not at all; do nothing if there is no writable directory."""
    if directory is None:
        return
    with contextlib.suppress(OSError):
        directory.mkdir(parents=True, exist_ok=True)
        # Several processes may keep the same name at once. Nothing is synced: an entry that a power failure tears has a
        # wrong checksum and is measured again.
        handle, path = tempfile.mkstemp(dir=directory, suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(json.dumps(sealed({"text": text, "name": name})) + "\n")
        os.replace(path, directory / name)


def file_sha256(path: Path) -> str:
    """Return the hash of a file. Raises `OSError`.

    The hash of a large file is kept, and is believed while the file's place, size and times stay as they were.
    """
    before, directory = _stamp(path), cache_directory()
    name = f"hash-{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]}.json"
    if before[2] >= LARGE:
        with contextlib.suppress(ValueError, TypeError, KeyError):
            kept = json.loads(recall(name, directory) or "")
            if kept["stamp"] == before:
                return str(kept["sha256"])
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    settled = time.time_ns() - max(before[3:]) > SETTLED
    if before[2] >= LARGE and settled and _stamp(path) == before:
        keep(name, json.dumps({"stamp": before, "sha256": found}), directory)
    return found


def _stamp(path: Path) -> list[int]:
    """Return device, inode, size, and times of the last change of content and of status [ns].

    Programs set the time of the content back (rsync, cp -p); nothing sets the time of the status back.
    """
    known = path.stat()
    return [known.st_dev, known.st_ino, known.st_size, known.st_mtime_ns, known.st_ctime_ns]
