"""Tells from a raster's compression whether its values are exactly the values that were written."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

HEAD = 256
"""Size of the start of a piece that holds the header of LERC [bytes]."""


def is_lossy(dataset: Any, reader: Callable[[int, int], bytes]) -> bool:
    """Return whether the values of a TIFF, opened by rasterio, may differ from those that were written.

    `reader` returns bytes of the file, by offset and size.
    LERC keeps whole numbers exactly if the allowed error is below 1, and fractions only if the allowed error is 0.
    """
    stored = dataset.tags(ns="IMAGE_STRUCTURE")
    compression = stored.get("COMPRESSION", "")
    if "LERC" in compression:
        exact = np.dtype(dataset.dtypes[0]).kind in "iu"
        # Not every program writes the allowed error as metadata; the compressed data always state it.
        error = max(_number(stored.get("MAX_Z_ERROR", "0")), _error_of_first_piece(dataset, reader))
        return error >= 1 if exact else error > 0
    return "JPEG" in compression or stored.get("COMPRESSION_REVERSIBILITY", "").startswith("LOSSY")


def _error_of_first_piece(dataset: Any, reader: Callable[[int, int], bytes]) -> float:
    """Return the largest error that LERC was allowed, from the header of the first piece.

    The result is 0.0 if the piece is not stored, or is packed by Zstandard, which is not unpacked here.
    """
    offset, size = (dataset.get_tag_item(f"BLOCK_{word}_0_0", "TIFF", 1) for word in ("OFFSET", "SIZE"))
    if not offset or not size or not int(size):
        return 0.0
    piece = reader(int(offset), min(int(size), HEAD))
    if piece[:1] == b"\x78":  # zlib
        piece = zlib.decompressobj().decompress(piece, HEAD)
    return error_of_lerc(piece)


def bytes_of(path: str, offset: int, size: int) -> bytes:
    """Return bytes of a file."""
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(size)


def error_of_lerc(piece: bytes) -> float:
    """Return the largest error that a piece of Lerc2 states (https://github.com/Esri/lerc); 0.0 for other bytes."""
    if not piece.startswith(b"Lerc2 "):
        return 0.0
    version = int.from_bytes(piece[6:10], "little")
    # Later versions have more numbers before the allowed error: a checksum, the number of values per pixel, and flags.
    counts = 6 + (version >= 4) + 2 * (version >= 6)
    at = 10 + 4 * (version >= 3) + 4 * counts
    return float(struct.unpack_from("<d", piece, at)[0]) if len(piece) >= at + 8 else 0.0


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
