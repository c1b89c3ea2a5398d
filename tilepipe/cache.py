"""Cache: small texts kept between processes, one file each, with a checksum.

It only saves time: what cannot be kept is left alone, what was damaged since is made again.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path

from tilepipe.storage import sealed, unsealed


def cache_directory() -> Path | None:
    """Return `TILEPIPE_CACHE`, or `tilepipe` under `XDG_CACHE_HOME` or `~/.cache`; None where it is set to nothing."""
    chosen = os.environ.get("TILEPIPE_CACHE")
    if chosen is not None:
        return Path(chosen) if chosen else None
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "tilepipe"


def recall(name: str, directory: Path | None) -> str | None:
    """Return the text kept as `name` in a directory; None where there is none, or not as it was written."""
    if directory is None:
        return None
    try:
        found = unsealed((directory / name).read_bytes())
    except OSError:
        return None
    return found.get("text") if found else None


def keep(name: str, text: str, directory: Path | None) -> None:
    """Keep a text as `name` in a directory, all of it or nothing; nothing where there is no directory to write to."""
    if directory is None:
        return
    with contextlib.suppress(OSError):
        directory.mkdir(parents=True, exist_ok=True)
        handle, path = tempfile.mkstemp(dir=directory, suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(json.dumps(sealed({"text": text})) + "\n")
        os.replace(path, directory / name)
