"""Content: the hash of an image's pixels, read piece by piece; it identifies an image that has no file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

import numpy as np

from tilepipe.arrays import Array
from tilepipe.box import Box
from tilepipe.errors import UsageError
from tilepipe.sources.base import Source
from tilepipe.text import JSON

ROWS = 256
"""Number of rows of a source that are read at once."""


def identity_of(source: Source) -> JSON:
    """Return what decides a source's pixels: its own identity, or a hash of all pixels if its identity is empty.

    Raises `UsageError` if its identity cannot be kept as JSON.
    """
    known = source.identity()
    try:
        json.dumps(known)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"identity() of {source.name} (a {type(source).__name__}) cannot be kept: {error}; "
            "return a dict of JSON types"
        ) from None
    return known or {"reader": type(source).__qualname__, "sha256": source_sha256(source)}


def source_sha256(source: Source) -> str:
    """Return the hash of all pixels of a source and of their validity, read in bands of rows."""
    digest = hashlib.sha256(f"{source.shape} {source.dtype}".encode())
    _, height, width = source.shape
    for y in range(0, height, ROWS):
        box = Box(y, 0, min(y + ROWS, height), width)
        valid = source.valid(box)
        digest.update(np.ascontiguousarray(source.read(box)).data)
        digest.update(b"" if valid is None else np.packbits(valid).tobytes())
    return digest.hexdigest()


def array_sha256(array: Array) -> str:
    """Return the hash of an array's bytes."""
    digest = hashlib.sha256()
    for plane in array:
        # Plane by plane: an array that is a view is never copied whole.
        digest.update(np.ascontiguousarray(plane).data)
    return digest.hexdigest()


def chunks_sha256(chunks: Iterable[tuple[str, Array]]) -> str:
    """Return the hash of an array's content by the place and the values of each chunk; no chunk is kept.

    The name of a dask array cannot stand for its content: dask takes the name from the code that makes the array, or
    from the user, and not from the data. The same values in other chunks have another hash.
    """
    found = {}
    for place, chunk in chunks:
        found[place] = array_sha256(np.atleast_1d(np.ma.getdata(chunk)))
        if isinstance(chunk, np.ma.MaskedArray):
            found[place] += array_sha256(np.atleast_1d(np.ma.getmaskarray(chunk)))
    return hashlib.sha256(json.dumps(sorted(found.items())).encode()).hexdigest()
