"""RemoteZarr: a Zarr image on a server, of which zarr gets each file from `RemoteFile`.

The store is our own, since obstore follows redirections to servers that nobody named.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zarr
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest

from tilepipe.errors import InputError
from tilepipe.sources.address import Address, address_of
from tilepipe.sources.base import Resolution
from tilepipe.sources.chunks import MARKERS, Chunks
from tilepipe.sources.remote_file import CACHE_BYTES, AbsentError, DeniedError, RemoteFile, open_remote
from tilepipe.sources.zarr import ZarrSource
from tilepipe.sources.zarr_array import coding
from tilepipe.text import JSON, setting

if TYPE_CHECKING:
    from zarr.core.buffer import Buffer, BufferPrototype
    from zarr.types import AnyArray

METADATA = (*MARKERS, ".zattrs", ".zmetadata")
"""Names of the files that describe arrays and groups."""
NONE: tuple[str, ...] = ()
"""What a server lists."""


class RemoteZarr(ZarrSource):
    """A Zarr image on a server as a source; only the chunks that are needed are sent.

    The options are those of `ZarrSource`. Raises `InputError` if the server does not send it.
    """

    def __init__(self, what: str | Path, *, resolution: Resolution | float | None = None, **picked: Any) -> None:
        said = address_of(str(what))
        folder = "/".join(part for part in said.key.split("/") if part not in ("", *METADATA))
        self._folder = ServerFolder(Address(said.scheme, said.place, folder, said.query))
        self.place = self._folder.address.local_name
        """Path beside which labels go: a file of this name in the working folder."""
        _found.cache_clear()  # an image that is opened anew is asked for anew
        super().__init__(str(self._folder.address), resolution=resolution, **picked)
        self.notes = (
            *self.notes,
            f"{self.name} is a Zarr on a server: chunks that change are not noticed between runs; if it was changed, "
            f"use {setting(overwrite=True)}",
        )

    @property
    def files(self) -> list[Path]:
        """Paths of files on this machine: none."""
        return []

    def identity(self) -> JSON:
        """Return the address, the coding of all levels and the versions of their metadata; no chunk is asked for."""
        levels = [[level.part, coding(level.array), self._folder.versions(level.part)] for level in self._levels]
        return {"reader": "zarr", "address": str(self._folder.address), "levels": levels, **self._picked()}

    @property
    def cache_bytes(self) -> int:
        """Memory that decoding and the pages that were sent take in a process [bytes]."""
        return super().cache_bytes + CACHE_BYTES

    def _node(self, part: str) -> AnyArray | zarr.Group:
        name = str(self._folder.address.below(part) if part else self._folder.address)
        if not self._folder.versions(part):
            raise InputError(f"{name} is not a Zarr image: the server has none of {', '.join(MARKERS)} there")
        try:
            return zarr.open(ServerStore(self._folder), path=part, mode="r", use_consolidated=False)
        except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{name} cannot be opened as Zarr: {error}") from error

    def _chunks(self, array: AnyArray, part: str) -> Chunks:
        return ServerChunks(self.name, array, self._folder, part)


@dataclass(frozen=True)
class ServerFolder:
    """A folder on a server, whose files cannot be listed but asked for by name."""

    address: Address

    def file(self, key: str) -> RemoteFile | None:
        """Return the file `key` of the folder; None if the server has none. Raises `InputError` if it fails."""
        if ".." in key.split("/"):
            raise InputError(f"{self.address} names a file outside itself: {key}")
        try:
            return _found(os.getpid(), self.address.below(key))
        except DeniedError:
            # A store that does not let its files be listed says so of those that are not there. What is left out of
            # the metadata is noticed, and a chunk is not taken for one that was never written.
            if key.rsplit("/", 1)[-1] in METADATA:
                return None
            raise

    def versions(self, part: str) -> list[list[str | int]]:
        """Return the versions of the files that say that an array or a group lies at `part`."""
        below = f"{part}/" if part else ""
        for names in (MARKERS[:1], (*MARKERS[1:], ".zattrs")):
            if found := [file for name in names if (file := self.file(below + name))]:
                return [list(file.version) for file in found]
        _found(os.getpid(), self.address.below(below + MARKERS[0]))  # if it is denied, this is said
        return []


@lru_cache(maxsize=4096)
def _found(process: int, address: Address) -> RemoteFile | None:
    try:
        return open_remote(address)[0]
    except AbsentError:
        return None


class ServerChunks(Chunks):
    """The stored chunks of one array on a server."""

    def __init__(self, name: str, array: Any, folder: ServerFolder, part: str) -> None:
        self._server, self._below = folder, f"{part}/" if part else ""
        super().__init__(name, array, Path(part), Path())

    def stored(self, key: str) -> RemoteFile | None:
        """Return the file of a chunk or a shard; None if it was never written."""
        return self._server.file(self._below + key)

    def stored_bytes(self, piece: int) -> int:
        """Return `piece`: sizes are not looked up on a server."""
        return piece

    def files(self) -> Iterator[tuple[str, Path]]:
        """Yield nothing: a server lists no files."""
        return iter(())

    def _check_metadata(self) -> None:
        """Links are on the server, and are its own affair."""


class ServerStore(Store):
    """What zarr reads from: the files of a folder on a server, which are never written."""

    supports_writes = supports_deletes = supports_listing = False

    def __init__(self, folder: ServerFolder) -> None:
        super().__init__(read_only=True)
        self.folder = folder

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ServerStore) and other.folder == self.folder

    def __hash__(self) -> int:
        return hash(self.folder)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Return a file, or a part of it; None if there is no such file. Raises `InputError` if the server fails."""
        data = await asyncio.to_thread(self._read, key, byte_range)
        return None if data is None else prototype.buffer.from_bytes(data)

    def _read(self, key: str, part: ByteRequest | None) -> bytes | None:
        file = self.folder.file(key)
        if file is None:
            return None
        start, stop = 0, file.size
        match part:
            case RangeByteRequest():
                start, stop = part.start, part.end
            case OffsetByteRequest():
                start = part.offset
            case SuffixByteRequest():
                start = max(0, file.size - part.suffix)
        return file.read(start, stop - start)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Return parts of files."""
        return [await self.get(key, prototype, part) for key, part in key_ranges]

    async def exists(self, key: str) -> bool:
        """Return whether the server has a file."""
        return await asyncio.to_thread(self.folder.file, key) is not None

    async def set(self, key: str, value: Buffer) -> None:
        """Refuse. Raises `PermissionError`."""
        raise PermissionError(key)

    async def delete(self, key: str) -> None:
        """Refuse. Raises `PermissionError`."""
        raise PermissionError(key)

    async def list(self) -> AsyncIterator[str]:
        """Yield no names."""
        for name in NONE:
            yield name

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Yield no names."""
        for name in NONE:
            yield name

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Yield no names."""
        for name in NONE:
            yield name
