"""This module keeps the ledger: one line with a checksum per finished block. In memory a block takes a few words."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, MutableMapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tilepipe.errors import StorageError
from tilepipe.storage import append_line, each_line, sealed, storage_errors, sync, write_durably
from tilepipe.text import JSON
from tilepipe.tiling.grid import Index

AGAIN = "give the same command again: what is damaged is computed again"
"""Words at the end of a message about a damaged work directory."""
# The sign < keeps the layout free of padding; a double gives the seconds back as they were.
_HEAD = struct.Struct("<IdBBB")
"""Packed fields: tiles, seconds, number of layers, number of hashes of what was seen, which sides have a strip (with a
bit for an earlier run)."""
_SIDES = ("right", "below", "corner")
_HASH = 32
"""Length of a sha256 (bytes)."""
_SEEN, _TAKEN = 16, 8
"""Lengths of a hash of what was seen, and of the name of an earlier run (bytes)."""


@dataclass(frozen=True, slots=True)
class Record:
    """The record of a committed block; one line of the ledger."""

    block: Index
    """Index of the block."""
    sha256: str
    """Hash of the block's labels in C order; the hash of no bytes if no pixel was valid."""
    tiles: int
    """Number of tiles predicted."""
    failed: tuple[str, ...] = ()
    """Reasons, one for each tile that could not be read or predicted; the pixels of these tiles are nodata."""
    seconds: float = 0.0
    """Wall time (seconds)."""
    layers: tuple[str, ...] = ()
    """Hashes (sha256) of the block's codes, one per uncertainty layer, in the order of the plan."""

    strips: dict[str, str] = field(default_factory=dict)
    """Hashes (sha256) of the strips that the block has left for its later neighbours, by side."""
    seen: tuple[str, ...] = ()
    """Hashes of what decides the labels besides the model (see `incremental.block_hashes`); () if none are kept."""
    taken: str = ""
    """First digits of the run key of the earlier run whose labels were taken over; '' if the block was computed."""

    @property
    def hashes(self) -> tuple[str, ...]:
        """Hashes (sha256) of the labels and of each layer."""
        return self.sha256, *self.layers

    def to_dict(self) -> JSON:
        """Return the fields of the ledger line as JSON types."""
        fields = asdict(self) | {"block": list(self.block)}
        # These fields came later; an earlier version reads a line without them.
        return {name: value for name, value in fields.items() if value or name not in ("seen", "taken")}

    @classmethod
    def from_dict(cls, fields: JSON) -> Record:
        """Return the record of a ledger line's fields. Raises KeyError or TypeError if a field is missing or of another
        kind."""
        lists: JSON = {name: tuple(fields[name]) for name in ("failed", "layers", "seen") if name in fields}
        return cls(**{**fields, **lists, "block": Index(*fields["block"])})


class Records(MutableMapping[Index, Record]):  # noqa: PLW1641 - it changes, so it has no hash
    """The ledger lines by block, in the order of arrival. They are packed, since a run may have a million."""

    def __init__(self) -> None:
        """Start without lines."""
        self._packed: dict[int, bytes | Record] = {}

    def __getitem__(self, block: Index) -> Record:
        """Return the line of a block. Raises KeyError."""
        packed = self._packed[_number(block)]
        return packed if isinstance(packed, Record) else _unpacked(Index(*block), packed)

    def __setitem__(self, block: Index, record: Record) -> None:
        """Store the line of a block."""
        self._packed[_number(block)] = _packed(record) or record

    def __delitem__(self, block: Index) -> None:
        """Remove the line of a block. Raises KeyError."""
        del self._packed[_number(block)]

    def __contains__(self, block: object) -> bool:
        """Return whether the block has a line."""
        return isinstance(block, tuple) and _number(block) in self._packed

    def __eq__(self, other: object) -> bool:
        """Return whether both hold the same lines, in any order; equal lines are packed alike."""
        return self._packed == other._packed if isinstance(other, Records) else dict(self.items()) == other

    def __iter__(self) -> Iterator[Index]:
        """Yield the blocks."""
        return (Index(number >> 32, number & 0xFFFFFFFF) for number in self._packed)

    def __len__(self) -> int:
        """Return the number of blocks."""
        return len(self._packed)


def _number(block: tuple[int, ...]) -> int:
    row, column = block
    # One integer takes less memory than a tuple of two, and a run may have a million of them.
    return row << 32 | column


def _packed(record: Record) -> bytes | None:
    """Return the record as bytes for `_unpacked`; None if bytes cannot hold it, for example if a tile failed."""
    try:
        sides = sum(1 << k for k, side in enumerate(_SIDES) if side in record.strips)
        hashes = [record.sha256, *record.layers, *(record.strips[side] for side in _SIDES if side in record.strips)]
        sides |= bool(record.taken) << len(_SIDES)
        content = _HEAD.pack(record.tiles, record.seconds, len(record.layers), len(record.seen), sides)
        content += b"".join(map(bytes.fromhex, (record.taken, *record.seen, *hashes)))
        # A record that does not come back the same (a sentence about a failed tile, a hash of another length) is not
        # packed: packing must never change a line.
        return content if _unpacked(record.block, content) == record else None
    except (struct.error, ValueError, TypeError):
        return None


def _unpacked(block: Index, content: bytes) -> Record:
    tiles, seconds, layers, count, sides = _HEAD.unpack_from(content)
    begin = _HEAD.size + _TAKEN * (sides >> len(_SIDES) & 1)
    seen = tuple(content[at : at + _SEEN].hex() for at in range(begin, begin + _SEEN * count, _SEEN))
    places = range(begin + _SEEN * count, len(content), _HASH)
    first, *others = (content[at : at + _HASH].hex() for at in places)
    there = [side for k, side in enumerate(_SIDES) if sides >> k & 1]
    strips = dict(zip(there, others[layers:], strict=True))
    taken = content[_HEAD.size : begin].hex()
    return Record(block, first, tiles, (), seconds, tuple(others[:layers]), strips, seen, taken)


def read_records(path: Path) -> tuple[Records, int]:
    """Return the records of a ledger, which another process may be writing, and how many of its lines are damaged."""
    records, damaged = Records(), 0
    for fields in each_line(path):
        if fields is None:
            damaged += 1
            continue
        try:
            record = Record.from_dict(fields)
        except (KeyError, TypeError):
            raise StorageError(f"{path} was written by another version; remove {path.parent}") from None
        records[record.block] = record
    return records, damaged


def begin_anew(path: Path) -> None:
    """Remove a ledger whose arrays are missing, durably, since its lines count for nothing. Raises `StorageError`."""
    with storage_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        sync(path.parent, path.parent)


class Ledger:
    """A file of JSON lines that only grows; each line has a checksum.

    A line that a crash has torn, or that was damaged since, counts as never written: its block is computed again.
    """

    def __init__(self, path: Path) -> None:
        """Read the lines of the file; `damaged` lines are cut out of the file."""
        self.path = path
        self.done, self.damaged = read_records(path)
        if self.damaged:
            self._rewrite()

    def append(self, record: Record) -> None:
        """Add a line and make it durable."""
        append_line(self.path, record.to_dict())
        self.done[record.block] = record

    def forget(self, blocks: Iterable[Index]) -> None:
        """Take blocks out of the ledger, so that they are computed again."""
        for block in blocks:
            del self.done[block]
        self._rewrite()

    def _rewrite(self) -> None:
        lines = (json.dumps(sealed(record.to_dict())) + "\n" for record in self.done.values())
        write_durably(self.path, lines)
