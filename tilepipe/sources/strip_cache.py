"""Strip cache: reads images stored in strips in full-width bands of rows, and keeps the bands for neighbouring boxes.

A strip is decoded whole; if the file is one strip, it is decoded from its first row. Reading such a file tile by tile
repeats this for every tile of a row, and is 17 to 70 times slower than reading bands of rows.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import numpy as np

from tilepipe.arrays import Pixels
from tilepipe.box import Box

ROW_CACHE_BYTES = 128 << 20
"""Largest size of the decoded rows that a process keeps, over all files stored in strips [bytes]."""
ROW_BAND_BYTES = 8 << 20
"""Approximate size of a band of rows that is decoded at once [bytes]."""

Load = Callable[[Box], Pixels]


@dataclass(frozen=True)
class Striped:
    """An image that is read in bands of rows."""

    key: Hashable
    """Key that tells the image from other images, and pixels from masks."""
    height: int
    """Height of the image [pixels]."""
    width: int
    """Width of the image [pixels]."""
    rows: int
    """Number of rows of a band."""


class RowCache:
    """Bands of rows of striped images, safe under threads; beyond `limit` bytes the least recently used are dropped."""

    def __init__(self, limit: int = ROW_CACHE_BYTES) -> None:
        self._limit = limit
        self._bands: OrderedDict[tuple[Hashable, int], Pixels] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def read(self, image: Striped, box: Box, load: Load) -> Pixels:
        """Return `box` of an image, put together from bands of rows that `load` reads.

        `load` gets full-width boxes and returns (..., y, x).
        """
        rows, result = image.rows, None
        # One thread decodes at a time: a strip decoder that several threads use in turn starts again each time.
        with self._lock:
            for k in range(box.y0 // rows, (box.y1 - 1) // rows + 1):
                band = Box(k * rows, 0, min((k + 1) * rows, image.height), image.width)
                pixels = self._band((image.key, k), band, load)
                if result is None:
                    result = np.empty((*pixels.shape[:-2], *box.shape), dtype=pixels.dtype)
                part = band & box
                if part is not None:
                    result[(..., *part.slices_in(box))] = pixels[(..., *part.slices_in(band))]
        assert result is not None, "a box has at least one row"
        return result

    @property
    def held_bytes(self) -> int:
        """Bytes of the rows that are kept."""
        return self._bytes

    def clear(self) -> None:
        """Drop all rows."""
        with self._lock:
            self._bands.clear()
            self._bytes = 0

    def _band(self, key: tuple[Hashable, int], band: Box, load: Load) -> Pixels:
        if key in self._bands:
            self._bands.move_to_end(key)
            return self._bands[key]
        found = load(band)
        self._bytes += found.nbytes
        self._bands[key] = found
        # The band in use stays even if it is larger than the limit: without it the next tile would decode it again.
        while self._bytes > self._limit and len(self._bands) > 1:
            self._bytes -= self._bands.popitem(last=False)[1].nbytes
        return found


def band_rows(height: int, row_bytes: int, block_rows: int) -> int:
    """Return the number of rows to decode at once: whole blocks of about `ROW_BAND_BYTES` in all."""
    # Whole blocks, since a part of a block costs as much as the block.
    wanted = max(1, ROW_BAND_BYTES // row_bytes)
    return min(height, max(block_rows, wanted // block_rows * block_rows))
