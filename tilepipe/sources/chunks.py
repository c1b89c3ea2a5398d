"""Stored chunks of a Zarr array: finds them, and checks their sizes before they are decoded.

A chunk must decode to its known size. The size that a chunk claims is read from its header first, so a chunk of 33 kB
that claims 1 GB is refused before memory is allocated.
"""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tilepipe.errors import InputError
from tilepipe.paths import refuse_special
from tilepipe.sources.checks import LARGE_PIECE_BYTES
from tilepipe.sources.stored_chunk import COMPRESSORS, PARTWISE, LocalFile, Piece, StoredFile, unpacked_size
from tilepipe.text import JSON

KEY = re.compile(r"c|(c[/.])?\d+([/.]\d+)*")
"""Name of a chunk below its array, in Zarr 2 and 3."""
INDEX_BYTES = 64 << 20
"""Largest index of a shard that is read [bytes]."""
SUMS = ("crc32c", "crc32", "adler32", "fletcher32", "jenkins_lookup3")
ARRANGE = ("bytes", "endian", "transpose")
FILTERS = ("delta", "shuffle", "fixedscaleoffset", "quantize", "bitround", "astype", "packbits")
LOSSY = {"fixedscaleoffset", "quantize", "bitround"}
"""Filters that round values."""
EMPTY = (1 << 64) - 1
"""Number that stands for the offset and the size of a chunk that its shard does not hold."""
MARKERS = ("zarr.json", ".zarray", ".zgroup")
"""Names of the files by which a folder is known to be Zarr."""


def is_zarr(path: Path) -> bool:
    """Return whether a folder is a Zarr array or group."""
    return any((path / marker).is_file() for marker in MARKERS)


class Chunks:
    """The stored chunks of one array below `folder`.

    Raises `InputError` for codecs that are not known (some codecs run code when they decode), and for an array that is
    a link out of the image's folder `root`.
    """

    def __init__(self, name: str, array: Any, folder: Path, root: Path) -> None:
        self.name, self.array, self.folder = name, array, folder
        self._root = os.path.realpath(root)
        said = array.metadata.to_dict()
        self._shard = next(
            (c["configuration"] for c in said.get("codecs", ()) if c["name"] == "sharding_indexed"), None
        )
        codecs = self._shard["codecs"] if self._shard else said.get("codecs")
        if codecs is None:  # Zarr 2
            codecs = [*(said.get("filters") or ()), *([said["compressor"]] if said.get("compressor") else ())]
        self._codecs = [_codec_name(codec) for codec in codecs]
        self._packed = [codec for codec in self._codecs if codec in COMPRESSORS]
        self._check_codecs()
        most = math.prod(array.chunks) * array.dtype.itemsize
        # A filter may keep values in a larger type than the array's. The rest is room for headers and checksums.
        self._limit = most * (8 if set(self._codecs) & set(FILTERS) else 1) + (64 << 10)
        self._check_metadata()

    @property
    def lossy(self) -> bool:
        """Whether the values may differ from those that were written."""
        return bool(LOSSY & set(self._codecs))

    @property
    def copies(self) -> float:
        """Number of times that a chunk lies in memory while it is decoded, measured for chunks of 100 MiB."""
        copies = 1.25
        if self._packed and self._packed[0] in PARTWISE:
            copies += 3.25  # the parts that Python's decoders give, and the whole that they are joined to
        if set(self._codecs) & set(FILTERS):
            copies += 1.75
        return copies if self.array.dtype.isnative else copies + 1

    def stored_bytes(self, piece: int) -> int:
        """Return the largest size on disk [bytes] of a chunk of `piece` decoded bytes; it is looked up if large."""
        if piece <= LARGE_PIECE_BYTES or self._shard:
            return piece
        return max((file.stat().st_size for _, file in self.files()), default=0)

    def stored(self, key: str) -> StoredFile | None:
        """Return the file of a chunk or a shard; None if it was never written."""
        file = self.folder / key
        if not os.path.lexists(file):
            return None
        self._check_inside(file)
        return LocalFile(file, key)

    def _check_metadata(self) -> None:
        for file in (self.folder, *(self.folder / name for name in ("zarr.json", ".zarray", ".zattrs"))):
            self._check_inside(file)

    def _check_codecs(self) -> None:
        known = (*SUMS, *COMPRESSORS, *ARRANGE, *FILTERS)
        for codec in self._codecs:
            if codec not in known:
                raise InputError(f"{self.name} is stored with the codec {codec!r}; read are {', '.join(known)}")
        # The header of a chunk tells the size behind the outer compressor alone.
        if len(self._packed) > 1:
            raise InputError(f"{self.name} is compressed twice, by {' and '.join(self._packed)}; once is read")
        if self._shard:
            index = [_codec_name(codec) for codec in self._shard["index_codecs"]]
            if index not in (["bytes"], ["bytes", "crc32c"]):
                raise InputError(
                    f"{self.name} has shards whose index is coded by {', '.join(index)}; plain ones are read"
                )
            if self._index_size() > INDEX_BYTES:
                raise InputError(
                    f"{self.name} has shards whose index takes {self._index_size() >> 20} MiB; "
                    f"at most {INDEX_BYTES >> 20} MiB are read"
                )

    def check(self, where: Sequence[int | slice]) -> None:
        """Check the chunks that the selection `where` needs.

        Raises `InputError` if a chunk lies outside the image or claims to be larger than a chunk of this array, and
        `ValueError` if a chunk is shorter than it says.
        """
        for piece in self._pieces(where):
            found = max(piece.size, self._unpacked(piece))
            if found > self._limit:
                raise InputError(
                    f"{self.name}: a chunk in {piece.file.label} has {piece.size} bytes and says "
                    f"that it becomes {found}; a chunk of this array has {self._limit - (64 << 10)}. It is not decoded"
                )

    def files(self) -> Iterator[tuple[str, Path]]:
        """Yield (key, file) of every chunk or shard that is stored, in the order of keys.

        Raises `InputError` if a file is a link out of the image.
        """
        found = []
        for folder, _, names in os.walk(self.folder):
            below = os.path.relpath(folder, self.folder)
            keys = [name if below == "." else f"{below}/{name}".replace(os.sep, "/") for name in names]
            found += [key for key in keys if KEY.fullmatch(key)]
        for key in sorted(found):
            file = self.folder / key
            self._check_inside(file)
            yield key, file

    def _pieces(self, where: Sequence[int | slice]) -> Iterator[Piece]:
        shape, chunks = self.array.shape, self.array.chunks
        ranges = []
        for index, size, chunk in zip(where, shape, chunks, strict=True):
            start, stop, _ = (index if isinstance(index, slice) else slice(index, index + 1)).indices(size)
            ranges.append(range(start // chunk, (stop - 1) // chunk + 1))
        per = [1] * len(chunks)
        if self._shard:
            per = [shard // chunk for shard, chunk in zip(self.array.shards, chunks, strict=True)]
        shards: dict[tuple[int, ...], bytes] = {}
        for position in itertools.product(*ranges):
            outer = tuple(p // n for p, n in zip(position, per, strict=True))
            file = self.stored(self.array.metadata.encode_chunk_key(outer))
            if file is None:
                continue  # it holds the fill value
            if not self._shard:
                yield Piece(file, 0, file.size)
                continue
            if outer not in shards:
                shards[outer] = self._index(file)
            yield from self._inner(file, shards[outer], [p % n for p, n in zip(position, per, strict=True)], per)

    def _index_size(self) -> int:
        assert self._shard is not None
        per = [shard // chunk for shard, chunk in zip(self.array.shards, self.array.chunks, strict=True)]
        # The index holds an offset and a size of 8 bytes each for every chunk, and a checksum of 4 bytes behind them.
        return 16 * int(math.prod(per)) + 4 * (len(self._shard["index_codecs"]) - 1)

    def _index(self, file: StoredFile) -> bytes:
        assert self._shard is not None
        size, whole = self._index_size(), file.size
        if whole < size:
            raise ValueError(f"shard {file.label} has {whole} bytes, less than its index of {size}")
        at_start = self._shard.get("index_location") == "start"
        return Piece(file, 0 if at_start else whole - size, size).read()

    def _inner(self, file: StoredFile, index: bytes, position: Sequence[int], per: Sequence[int]) -> Iterator[Piece]:
        number = 0
        for at, count in zip(position, per, strict=True):
            number = number * count + at
        offset, size = (int.from_bytes(index[16 * number + k : 16 * number + k + 8], "little") for k in (0, 8))
        if (offset, size) == (EMPTY, EMPTY):
            return
        if offset + size > file.size:
            raise ValueError(f"shard {file.label} ends before byte {offset + size}, where its index says a chunk lies")
        yield Piece(file, offset, size)

    def _check_inside(self, file: Path) -> None:
        real = os.path.realpath(file)
        # With the separator, since /a/image2 does not lie in /a/image.
        if real != self._root and not real.startswith(self._root + os.sep):
            raise InputError(f"{file} is a link to {real}, outside of {self.name}; nothing outside an image is opened")
        refuse_special(file)

    def _unpacked(self, piece: Piece) -> int:
        """Return the decoded size of a chunk [bytes], as its header says or by counting; 0 if it is not compressed."""
        if not self._packed:
            return 0
        skip = 4 if self._codecs[-1] in SUMS[1:] else 0  # these checksums stand before the data
        return unpacked_size(self._packed[0], piece.behind(skip), self._limit)


def _codec_name(codec: JSON) -> str:
    return str(codec.get("name") or codec.get("id")).removeprefix("numcodecs.")
