"""Checks that every source makes before the first read, and the form in which it gives validity."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import DTypeLike, NDArray

from tilepipe.box import Box
from tilepipe.errors import InputError, UsageError
from tilepipe.sources.base import Resolution

DTYPES = ("uint8", "uint16", "int16", "float32")
"""Pixel types that are read; all others are refused rather than converted silently."""

SHOWN = 8
"""Largest number of images of a file that a message lists."""
MAX_SIDE = 2**31 - 1
MAX_BANDS = 4096
# Measured: a TIFF of 33 kB held one block that took 1 GB when 16 x 16 pixels of it were read.
MAX_BLOCK_BYTES = 256 << 20
"""Largest decoded size of a stored piece (tile, strip, chunk) [bytes]: reading one pixel takes that much memory."""
MAX_BLOCKS = 2**24
READERS = 4
"""Number of threads of a process that read at once: two read tiles, and two find the image data of two blocks."""
LARGE_PIECE_BYTES = 16 << 20
"""Decoded size of a stored piece [bytes] above which one thread at a time decodes and keeps the decoded piece."""
SPARE_BYTES = 32 << 20
"""Memory that a run has for decoding beside its source's own number [bytes]; see
`tilepipe.planning.memory.DECODERS`."""


def check_dtype(name: str, dtype: DTypeLike, remedy: str) -> np.dtype[np.generic]:
    """Return `dtype` in native byte order. Raises `InputError` with `remedy` if it is not one of `DTYPES`."""
    found = np.dtype(dtype).newbyteorder("=")
    if found.name not in DTYPES:
        raise InputError(f"{name} holds {found.name} pixels; {', '.join(DTYPES)} are read. {remedy}")
    return found


def check_size(name: str, shape: tuple[int, int, int], block_bytes: int = 0, blocks: int = 0) -> None:
    """Raise `InputError` if an image or its stored pieces are too large or too many for bounded memory.

    `shape` is (bands, height, width), and `block_bytes` the decoded size of a stored piece.
    """
    bands, height, width = shape
    if min(shape) < 1:
        raise InputError(f"{name} has no pixels: {bands} bands of {height} x {width}")
    if bands > MAX_BANDS or max(height, width) > MAX_SIDE:
        raise InputError(
            f"{name} has {bands} bands of {height} x {width} pixels; at most {MAX_BANDS} bands of {MAX_SIDE} are read"
        )
    if block_bytes > MAX_BLOCK_BYTES:
        raise InputError(
            f"{name} is stored in pieces of {block_bytes >> 20} MiB, which must be decoded whole; at most "
            f"{MAX_BLOCK_BYTES >> 20} MiB are read. Store it in tiles: gdal_translate -co TILED=YES in.tif out.tif"
        )
    if blocks > MAX_BLOCKS:
        raise InputError(
            f"{name} is stored in {blocks} pieces; at most {MAX_BLOCKS} are read. "
            "Store it in tiles of 256 x 256: gdal_translate -co TILED=YES in.tif out.tif"
        )


def decoding_bytes(piece: int, stored: int = 0, copies: float | None = None) -> int:
    """Return the bytes of memory that decoding takes in a process beyond `SPARE_BYTES`.

    `piece` is the decoded size of a stored piece [bytes], and `stored` its size in the file [bytes]. `copies` is the
    number of times that a decoded piece lies in memory: by default once, and twice for a large piece. One thread at a
    time decodes a large piece.
    """
    large = piece > LARGE_PIECE_BYTES
    copies = (2 if large else 1) if copies is None else copies
    return max(0, (1 if large else READERS) * (int(copies * piece) + stored) - SPARE_BYTES)


@lru_cache(maxsize=1)
def decoding_alone(process: int) -> threading.RLock:
    """Return the lock that a thread of this `process` holds while it decodes a large piece.

    A thread that holds the lock may take it again.
    """
    # One lock per process: a forked process must not wait for a lock that a thread of its parent held.
    return threading.RLock()


def given_resolution(size: Resolution | float | tuple[float, float] | None, unit: str) -> Resolution | None:
    """Return a pixel size given by a person, one number or (y, x) in `unit`. Raises `UsageError` unless positive."""
    if size is None:
        return None
    if not isinstance(size, Resolution):
        y, x = size if isinstance(size, tuple) else (size, size)
        size = Resolution(float(y), float(x), unit)
    if not (0 < size.y < math.inf and 0 < size.x < math.inf):
        raise UsageError(f"a pixel cannot be {size.y} x {size.x} {size.unit} large; give a positive size")
    return size


def pick(name: str, axis: str, wanted: int | None, planes: int) -> int:
    """Return the plane to read of `planes` along z or t, counted from 0.

    Raises `InputError` if there are several and none is named, `UsageError` if the named plane is not there.
    """
    if wanted is None and planes > 1:
        raise InputError(f"{name} has {planes} planes along {axis}; pick one with `{axis}`, from 0 to {planes - 1}")
    if wanted is not None and not 0 <= wanted < planes:
        raise UsageError(f"{name} has {axis}=0 to {axis}={planes - 1}; {axis}={wanted} was asked for")
    return wanted or 0


def pick_scene(
    name: str, wanted: int | str | None, scenes: Sequence[tuple[str, int, int]]
) -> tuple[int, tuple[str, ...]]:
    """Return which of a file's images (name, height, width) is read, counted from 0, and sentences about this choice.

    If nobody picks an image, the largest is read. There are no sentences if the file holds one image or `wanted` picks
    one. Raises `UsageError` if there is no such image.
    """
    if isinstance(wanted, str) or (wanted is not None and not 0 <= wanted < len(scenes)):
        if len(scenes) == 1:
            raise UsageError(f"{name} holds one image, and scene={wanted!r} was asked for; leave `scene` out")
        raise UsageError(f"{name} has scene=0 to scene={len(scenes) - 1}; scene={wanted!r} was asked for")
    if len(scenes) == 1 or wanted is not None:
        return wanted or 0, ()
    # Of images of one size the first is taken.
    largest = max(range(len(scenes)), key=lambda k: (scenes[k][1] * scenes[k][2], -k))
    shown = [f"{k} {title}".strip() + f" ({h} x {w} px)" for k, (title, h, w) in enumerate(scenes[:SHOWN])]
    more = f" and {len(scenes) - SHOWN} more" if len(scenes) > SHOWN else ""
    said = f"{name} holds {len(scenes)} images: {', '.join(shown)}{more}; {largest}, the largest, is read"
    return largest, (f"{said}; `scene` chooses another",)


def pick_bands(name: str, bands: Sequence[int] | None, count: int) -> tuple[int, ...]:
    """Return the bands to read, counted from 1; all if none are named. Raises `UsageError` if one is not there."""
    picked = tuple(range(1, count + 1)) if bands is None else tuple(int(band) for band in bands)
    if not picked or not all(1 <= band <= count for band in picked):
        raise UsageError(f"{name} has bands 1 to {count}; {list(picked)} were asked for")
    return picked


def usable(mask: NDArray[np.bool_] | None, box: Box, height: int, width: int) -> NDArray[np.bool_] | None:
    """Return the validity of `box`, (box.height, box.width); None if everything is True.

    `mask` is the validity of the part of `box` inside a height x width image; None if that part is all valid. Pixels
    outside the image are False.
    """
    whole = Box.of_shape(height, width)
    inside = box & whole
    if mask is not None and mask.all():
        mask = None
    if mask is None and inside == box:
        return None
    full = np.zeros(box.shape, dtype=np.bool_)
    if inside is not None:
        full[inside.slices_in(box)] = True if mask is None else mask
    return full
