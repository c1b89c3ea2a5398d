"""This module defines durable arrays: the Zarr arrays of a run, with one guarantee for all of them.

When `write` returns, its values stay, whatever happens next: Zarr writes a chunk to a temporary name and renames it,
then the chunk and the folders above it, up to a given one, are fsynced. The sha256 that `write` returns belongs in a
ledger, and `checked` returns the values of this sha256 or raises. Each chunk has one writer; a chunk that holds the
fill value alone is not stored. Threads and processes can use an array at once.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from tilepipe.arrays import Array
from tilepipe.box import Box
from tilepipe.errors import StorageError
from tilepipe.execution.ledger import AGAIN
from tilepipe.storage import storage_errors, sync, write_durably

if TYPE_CHECKING:
    import zarr
    from zarr.core.buffer import Buffer

DAMAGED = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError)
"""Errors that Zarr raises if an array is not what was written."""


@dataclass(frozen=True)
class Layout:
    """The layout of an array in Zarr: everything that its metadata say."""

    shape: tuple[int, ...]
    """Shape of the array."""
    chunk: tuple[int, ...]
    """Shape of a chunk."""
    dtype: str
    """Type of the values."""
    fill: int = 0
    """Value of chunks that are not stored."""
    flat: bool = False
    """Whether the chunks lie beside zarr.json, and not in folders of their own."""

    @lru_cache(maxsize=64)  # noqa: B019 - a layout is frozen and small; making it takes milliseconds, a block has several
    def metadata(self) -> str:
        """Return the content of zarr.json; it depends on the layout alone."""
        import zarr
        from zarr.codecs import BytesCodec, Crc32cCodec, ZstdCodec

        files: dict[str, Buffer] = {}
        zarr.create_array(
            zarr.storage.MemoryStore(files), shape=self.shape, chunks=self.chunk, dtype=self.dtype,
            # The checksum comes after the compression, so damage is found before the bytes reach the decompressor.
            fill_value=self.fill, serializer=BytesCodec(), compressors=[ZstdCodec(level=1), Crc32cCodec()],
            chunk_key_encoding={"name": "default", "separator": "." if self.flat else "/"},
        )  # fmt: skip
        return files["zarr.json"].to_bytes().decode()


class DurableArray:
    """An array of two or three axes; a box is a part of the first two and all of the third."""

    def __init__(self, path: Path, top: Path) -> None:
        """Open the array at `path`; names in the folder `top` and below it are made durable when values are written.

        Raises `StorageError` if its metadata are damaged.
        """
        import zarr  # takes half a second, and a region in memory does without

        self.path, self.top = path, top
        try:
            self._zarr: zarr.Array[Any] = zarr.open_array(path, mode="r+")
        except DAMAGED as error:
            raise StorageError(f"{path} is missing or corrupt: {error}; {AGAIN}") from None

    @classmethod
    def create(cls, path: Path, top: Path, layout: Layout) -> Self:
        """Make an array, or open it if it exists; damaged metadata are put right."""
        file, wanted = path / "zarr.json", layout.metadata()
        with storage_errors(path):
            # The bytes are compared and not parsed: zarr.json with a flipped bit may still parse, with another fill
            # value or chunk.
            if not file.exists() or file.read_bytes() != wanted.encode():
                path.mkdir(parents=True, exist_ok=True)
                write_durably(file, wanted)
                # The folder `top` may be new as well, so its name in the folder above it is made durable too.
                sync(path, top.parent)
        return cls(path, top)

    def write(self, values: Array, box: Box | None = None) -> str:
        """Write the values of `box`, or of the whole array, durably; return their sha256."""
        with storage_errors(self.path):
            self._zarr[_slices(box)] = values
            for chunk in self._chunks(box):
                # Zarr stores no chunk that holds the fill value alone, and removes one that was there.
                if chunk.exists():
                    sync(chunk, self.top)
        return _sha256(values, box)

    def read(self, box: Box | None = None) -> Array:
        """Return the values of `box`, or of the whole array. Raises `StorageError` if the data are damaged."""
        try:
            return np.asarray(self._zarr[_slices(box)])
        except DAMAGED as error:
            raise StorageError(f"{self.path} is corrupt{_at(box)}: {error}; {AGAIN}") from None

    def checked(self, sha256: str, box: Box | None = None) -> Array:
        """Return the values of `box`, or of the whole array. Raises `StorageError` if they do not have this sha256."""
        values = self.read(box)
        if _sha256(values, box) != sha256:
            raise StorageError(f"{self.path} does not match its ledger{_at(box)}; {AGAIN}")
        return values

    def state(self, box: Box) -> list[tuple[int, ...] | None]:
        """Return the state of each file of a box, which changes when the file is written again; None for a missing
        file."""
        return [_state(file) for file in self._chunks(box)]

    def _chunks(self, box: Box | None) -> list[Path]:
        """Return the files of the chunks that a box lies in, whether they exist or not."""
        (tall, wide, *_), box = self._zarr.chunks, box or Box.of_shape(*self._zarr.shape[:2])
        rows, columns = range(box.y0 // tall, -(-box.y1 // tall)), range(box.x0 // wide, -(-box.x1 // wide))
        name, rest = self._zarr.metadata.encode_chunk_key, (0,) * (self._zarr.ndim - 2)
        return [self.path / name((row, column, *rest)) for row in rows for column in columns]


def _slices(box: Box | None) -> tuple[slice, ...]:
    return (slice(box.y0, box.y1), slice(box.x0, box.x1)) if box else (slice(None),)


def _sha256(values: Array, box: Box | None) -> str:
    """Return the hash of the values; for a whole array it covers the shape too, which nothing else records."""
    found = hashlib.sha256(b"" if box else f"{values.shape}".encode())
    found.update(np.ascontiguousarray(values).data)
    return found.hexdigest()


def _at(box: Box | None) -> str:
    return f" at {box}" if box else ""


def _state(file: Path) -> tuple[int, ...] | None:
    try:
        found = os.stat(file)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
