"""Zarr array: opens a stored array, reads it in bounded memory, and tells how its chunks become pixels."""

from __future__ import annotations

import itertools
import json
import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import zarr

from tilepipe.arrays import Pixels
from tilepipe.errors import InputError
from tilepipe.sources.checks import LARGE_PIECE_BYTES, decoding_alone
from tilepipe.sources.chunks import MARKERS, is_zarr

if TYPE_CHECKING:
    from zarr.types import AnyArray

ONE_BY_ONE_BYTES = 1 << 20
"""Decoded size of a chunk above which chunks are read one by one [bytes]."""


def open_zarr(name: str, path: Path) -> AnyArray | zarr.Group:
    """Open the array or group in the folder `path` for reading. Raises `InputError` if the folder holds neither."""
    if not is_zarr(path):
        raise InputError(f"{path} is not a Zarr image: it has none of {', '.join(MARKERS)}")
    try:
        return zarr.open(str(path), mode="r")
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{name} cannot be opened as Zarr: {error}") from error


def coding(array: AnyArray) -> str:
    """Return the metadata that decide how the bytes of chunks become pixels, as JSON text."""
    said = array.metadata.to_dict()
    decides = (
        "zarr_format",
        "shape",
        "data_type",
        "dtype",
        "chunks",
        "chunk_grid",
        "order",
        "fill_value",
        "codecs",
    )
    known = {name: said.get(name) for name in (*decides, "compressor", "filters")}
    return json.dumps(known, sort_keys=True, default=str)


def read_part(array: AnyArray, where: tuple[int | slice, ...]) -> Pixels:
    """Return the part `where` of an array. An axis that is picked by a number is left out of the result.

    Zarr decodes ten chunks at once. Large chunks are read one by one, and the largest by one thread at a time.
    """
    piece_bytes = int(np.prod(array.chunks)) * array.dtype.itemsize
    if piece_bytes <= ONE_BY_ONE_BYTES:
        return np.asarray(array[where])
    spans = [k.indices(size)[:2] for k, size in zip(where, array.shape, strict=True) if isinstance(k, slice)]
    chunks = [c for k, c in zip(where, array.chunks, strict=True) if isinstance(k, slice)]
    found = np.empty([stop - start for start, stop in spans], dtype=array.dtype)
    cuts = [
        [(max(start, k * chunk), min(stop, (k + 1) * chunk)) for k in range(start // chunk, -(-stop // chunk))]
        for (start, stop), chunk in zip(spans, chunks, strict=True)
    ]
    for part in itertools.product(*cuts):
        left = iter(part)
        wanted = tuple(slice(*next(left)) if isinstance(k, slice) else k for k in where)
        at = tuple(slice(a - start, b - start) for (a, b), (start, _) in zip(part, spans, strict=True))
        with decoding_alone(os.getpid()) if piece_bytes > LARGE_PIECE_BYTES else nullcontext():
            found[at] = array[wanted]
    return found
