"""This module keeps what was measured once per machine, in one cache directory; a damaged entry is measured again."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path

from tilepipe.storage import sealed, unsealed


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
        found = unsealed((directory / name).read_bytes())
    except OSError:
        return None
    return found.get("text") if found else None


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
            file.write(json.dumps(sealed({"text": text})) + "\n")
        os.replace(path, directory / name)
