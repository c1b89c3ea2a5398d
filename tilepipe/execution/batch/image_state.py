"""This module says in what state the files of an image are, without opening them.

A night that finds an image in the state of the record needs neither to open nor to hash it. A state that differs
proves nothing: then the content decides.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from tilepipe.execution.batch.items import BatchItem
from tilepipe.paths import is_work

DIGITS = 16
"""Number of hexadecimal digits of a state."""


class Folders:
    """The names in the folders of the images of a batch, each folder listed once."""

    def __init__(self) -> None:
        self._names: dict[Path, list[str]] = {}

    def state(self, item: BatchItem, others: Iterable[str] = ()) -> str:
        """Return a hash of the name, inode, size and times of an image's files; '' if the image is not there.

        These are the image, or all files of its folder, the files beside it that have its stem, and `others`, which
        are files that it reads elsewhere.
        """
        if not item.image.exists():
            return ""
        found = dict.fromkeys([item.image, *self._beside(item), *map(Path, others)])
        stamps = [stamp for path in found for stamp in _stamps(path)]
        return hashlib.sha256(json.dumps(stamps).encode()).hexdigest()[:DIGITS]

    def _beside(self, item: BatchItem) -> Iterator[Path]:
        """Yield what lies beside an image and has its stem, but for its products and what belongs to these."""
        folder, stem = item.image.parent, item.image.stem
        if folder not in self._names:
            with suppress(OSError):
                self._names[folder] = sorted(os.listdir(folder))
        own = tuple(path.name for path in item.products if path.parent == folder)
        stems = tuple(f"{Path(name).stem}." for name in own)
        # GDAL's names for files beside an image are the image's stem and more; MIRAX has a folder of that name.
        begins = (f"{stem}.", f"{stem}_RPC", f"{stem}_rpc", f"{stem}_metadata")
        for name in self._names.get(folder, ()):
            product = name in own or (stems and name.startswith(stems) and name != item.image.name)
            if (name == stem or name.startswith(begins)) and not product:
                yield folder / name


def elsewhere(item: BatchItem, files: Sequence[Path]) -> tuple[str, ...]:
    """Return those of an image's `files` that do not lie in its own folder, which `Folders.state` must be told."""
    inside = item.image.resolve()
    return tuple(str(file) for file in files if not file.resolve().is_relative_to(inside))


def age(item: BatchItem) -> float:
    """Return the time since an image was changed last (seconds); 0 if that lies in the future."""
    times = [stamp[3] for stamp in _stamps(item.image)]
    return max(0.0, time.time() - max(times, default=0) / 1e9)


def size_on_disk(item: BatchItem) -> int:
    """Return the size of an image's file, or of all files of its folder (bytes)."""
    return sum(stamp[2] for stamp in _stamps(item.image))


def _stamps(path: Path) -> Iterator[tuple[str, int, int, int, int]]:
    """Yield name, inode, size and times (ns) of a file, or of all files in a folder."""
    for file in sorted(path.rglob("*")) if path.is_dir() else (path,):
        with suppress(OSError):
            known = file.stat()
            if not (file.is_dir() or is_work(file.relative_to(path.parent))):
                yield str(file), known.st_ino, known.st_size, known.st_mtime_ns, known.st_ctime_ns
