"""Stored chunk: reads the bytes of one chunk, and finds its decoded size before the chunk is decoded."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tilepipe.sources.checks import MAX_BLOCK_BYTES

PARTWISE = ("gzip", "zlib", "bz2", "lzma")
COMPRESSORS = ("blosc", "zstd", "lz4", *PARTWISE)
"""Compressors that are read; for a compressor in `PARTWISE` the decoded size must be counted."""
HEAD = 32
"""Size of the start of a chunk that holds the header of every compressor [bytes]."""

STEP = 1 << 20
"""Size of the parts that are read or decoded at a time when sizes are counted [bytes]."""


class StoredFile(Protocol):
    """A file that stores one chunk or several, on this machine or on a server."""

    @property
    def size(self) -> int:
        """Size of the file [bytes]."""

    @property
    def label(self) -> str:
        """Name of the file in messages."""

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset` on."""


@dataclass(frozen=True)
class LocalFile:
    """A file on this machine."""

    path: Path
    label: str

    @property
    def size(self) -> int:
        """Size of the file [bytes]."""
        return self.path.stat().st_size

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset` on."""
        with self.path.open("rb") as opened:
            opened.seek(offset)
            return opened.read(size)


@dataclass(frozen=True)
class Piece:
    """A range of bytes of a file that stores one chunk."""

    file: StoredFile
    offset: int
    size: int
    """Size in the file [bytes]."""

    def read(self, count: int | None = None) -> bytes:
        """Return the first `count` bytes of the piece; all if `count` is None."""
        return self.file.read(self.offset, self.size if count is None else min(count, self.size))

    def behind(self, skip: int) -> Piece:
        """Return the rest of the piece behind its first `skip` bytes."""
        return Piece(self.file, self.offset + skip, max(0, self.size - skip))

    def parts(self) -> Iterator[bytes]:
        """Yield all bytes of the piece, `STEP` at a time, so a large piece never lies in memory whole."""
        for start in range(0, self.size, STEP):
            yield self.file.read(self.offset + start, min(STEP, self.size - start))


def unpacked_size(codec: str, piece: Piece, limit: int) -> int:
    """Return the decoded size [bytes] of a chunk that `codec` compressed, from its header or by counting up to `limit`.

    Raises `ValueError` if the chunk is shorter than its header says.
    """
    head = piece.read(HEAD)
    if codec == "blosc":
        stored = int.from_bytes(head[12:16], "little")  # Blosc 1: flags, sizes, then bytes in all
        if len(head) < 16 or piece.size < stored:
            raise ValueError(f"chunk {piece.file.label} has {piece.size} bytes of {stored}")
        return int.from_bytes(head[4:8], "little")
    if codec == "lz4":
        return int.from_bytes(head[:4], "little")
    if codec == "zstd":
        return zstd_size(head, piece)
    return counted(codec, piece.parts(), limit)


def zstd_size(head: bytes, piece: Piece) -> int:
    """Return the decoded size of a zstd frame [bytes]: the size in its header, else the largest its blocks can reach.

    https://www.rfc-editor.org/rfc/rfc8878#section-3.1.1
    """
    if len(head) < 6 or head[:4] != b"\x28\xb5\x2f\xfd":
        return 0  # this is no frame: the decoder says so
    flags = head[4]
    single, width = flags >> 5 & 1, (1 if flags >> 5 & 1 else 0, 2, 4, 8)[flags >> 6]
    start = 5 + (1 - single) + (0, 1, 2, 4)[flags & 3]
    if width:
        # A size in two bytes counts from 256 on.
        return int.from_bytes(head[start : start + width], "little") + (256 if width == 2 else 0)
    position, total = start, 0
    while position + 3 <= piece.size:
        block = int.from_bytes(piece.file.read(piece.offset + position, 3), "little")
        kind, size = block >> 1 & 3, block >> 3
        # A compressed block does not say its decoded size, which is at most 128 KiB and at most the window.
        total += min(128 << 10, 1 << (10 + (head[5] >> 3) + 1)) if kind == 2 else size
        position += 3 + (1 if kind == 1 else size)
        if block & 1 or kind == 3:
            break
    return total if total > MAX_BLOCK_BYTES else 0  # many small blocks are no bomb


def counted(codec: str, parts: Iterable[bytes], limit: int) -> int:
    """Return the decoded size of `parts` [bytes]; no decoded step is kept, and counting stops beyond `limit`."""
    make: Callable[[], Any] = {
        # With 31, zlib expects the header of gzip.
        "gzip": lambda: zlib.decompressobj(31),
        "zlib": zlib.decompressobj,
        "bz2": bz2.BZ2Decompressor,
        "lzma": lzma.LZMADecompressor,
    }[codec]
    decoder, total = make(), 0
    for part in parts:
        data = part
        while True:
            found = len(decoder.decompress(data, STEP))
            total += found
            if total > limit:
                return total
            if decoder.eof:  # another stream may follow
                data, decoder = decoder.unused_data, make()
            else:
                data = getattr(decoder, "unconsumed_tail", b"")
                if found:
                    continue  # more may be on its way
            if not data:
                break
    return total
