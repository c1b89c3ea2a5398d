"""Looks through an HDF5 or netCDF-4 file, by h5py, for links to other files, and for the size of its stored pieces.

Such a file may say that the bytes of a variable lie in any other file, and HDF5 reads them there without a word: a file
from elsewhere could show the secrets of this machine as pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tilepipe.errors import InputError

MOST_OBJECTS = 100_000
"""Largest number of links of a file that are looked at; a file with more is refused."""


def check_hdf(name: str, path: str) -> None:
    """Raise `InputError` if a file of HDF5 names another file, or if h5py is not installed to look for that."""
    with _opened(name, path) as file:
        for count, (where, linked) in enumerate(_links(file)):
            if count >= MOST_OBJECTS:
                raise InputError(f"{name} holds more than {MOST_OBJECTS} objects, so it is not looked through and read")
            if linked:
                raise InputError(
                    f"{name} says that {where} lies in {linked[:80]!r}; nothing outside an image is opened. Write it "
                    "into one file: h5repack or nccopy in out"
                )


def piece_bytes(name: str, path: str, variable: str) -> int:
    """Return the decoded size of a stored piece (chunk) of a variable [bytes]; 0 if it is not stored in pieces."""
    with _opened(name, path) as file:
        found = file.get(variable)
        chunks = getattr(found, "chunks", None)
        return math.prod(chunks) * int(found.dtype.itemsize) if chunks else 0


def variables_of(name: str, path: str) -> list[str]:
    """Return the names of all variables with at least two axes."""
    found: list[str] = []
    with _opened(name, path) as file:
        file.visititems(
            lambda where, item: found.append(where) if len(getattr(item, "shape", None) or ()) > 1 else None
        )
    return found


@contextmanager
def _opened(name: str, path: str) -> Iterator[Any]:
    """Yield the open file. Raises `InputError` if it is damaged: h5py finds that out wherever it reads."""
    try:
        import h5py
    except ImportError:
        raise InputError(
            f"{name} is HDF5, and a file of HDF5 may name other files; h5py, which finds that out, is not installed: "
            "pip install 'tilepipe[hdf5]'"
        ) from None
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        raise InputError(f"{name} cannot be read as HDF5: {error}. It may be truncated or damaged.") from error


def _links(file: Any) -> Iterator[tuple[str, str]]:
    """Yield (name, other file) of each object of an open file; the other file is '' if there is none."""
    import h5py

    groups, seen = [("", file["/"])], set()
    while groups:
        where, group = groups.pop()
        # A group may hold itself, by a link.
        if (known := h5py.h5o.get_info(group.id).addr) in seen:
            continue
        seen.add(known)
        for key in group:
            link, path = group.get(key, getlink=True), f"{where}/{key}"
            if isinstance(link, h5py.ExternalLink):
                yield path, link.filename
                continue
            item = None if isinstance(link, h5py.SoftLink) else group[key]
            if isinstance(item, h5py.Group):
                groups.append((path, item))
            yield path, next(_other_files(item), "") if isinstance(item, h5py.Dataset) else ""


def _other_files(data: Any) -> Iterator[str]:
    for file, _, _ in data.external or ():
        yield str(file)
    if data.is_virtual:
        yield from (str(source.file_name) for source in data.virtual_sources() if source.file_name != ".")
