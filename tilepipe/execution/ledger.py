"""Ledger: what is done, one line with a checksum per block."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tilepipe.errors import StorageError
from tilepipe.storage import append_line, read_lines, sealed, write_durably
from tilepipe.tiling.grid import Index

AGAIN = "give the same command again: what is damaged is computed again"
"""What a message about a damaged work directory ends with."""
_DAMAGED = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError)
"""What Zarr raises for arrays that are not what was written."""


@dataclass(frozen=True, slots=True)
class Record:
    """A committed block; one line of the ledger."""

    block: Index
    """Which block."""
    sha256: str
    """Of the block's labels, C order; of nothing where no pixel was valid."""
    tiles: int
    """Tiles predicted."""
    failed: tuple[str, ...] = ()
    """What went wrong with tiles that could not be read or predicted; their pixels are nodata."""
    seconds: float = 0.0
    """Wall time."""
    layers: tuple[str, ...] = ()
    """sha256 of the block's codes by uncertainty layer, in the order of the plan."""

    strips: dict[str, str] = field(default_factory=dict)
    """sha256 of what the block has left for its later neighbours, by side."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields of the ledger line; JSON types."""
        return asdict(self) | {"block": list(self.block)}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Record:
        """Return the record of a ledger line's fields. Raises KeyError or TypeError when they are of another kind."""
        lists: dict[str, Any] = {name: tuple(fields[name]) for name in ("failed", "layers") if name in fields}
        return cls(**{**fields, **lists, "block": Index(*fields["block"])})


def read_records(path: Path) -> tuple[dict[Index, Record], int]:
    """Return the blocks of a ledger that may be at work, and how many of its lines are torn or damaged."""
    lines, damaged = read_lines(path)
    try:
        records = [Record.from_dict(fields) for fields in lines]
    except (KeyError, TypeError):
        raise StorageError(f"{path} was written by another version; remove {path.parent}") from None
    return {record.block: record for record in records}, damaged


class Ledger:
    """Append-only JSON lines, each with its checksum.

    A line that a crash has torn, or that was damaged since, counts as never written: its block is computed again.
    """

    def __init__(self, path: Path) -> None:
        """Read what is there; `damaged` lines are cut out of the file."""
        self.path = path
        self.done, self.damaged = read_records(path)
        if self.damaged:
            self._rewrite()

    def append(self, record: Record) -> None:
        """Add a line and make it durable."""
        append_line(self.path, record.to_dict())
        self.done[record.block] = record

    def forget(self, blocks: Iterable[Index]) -> None:
        """Take blocks out: they are to be computed again."""
        for block in blocks:
            del self.done[block]
        self._rewrite()

    def _rewrite(self) -> None:
        lines = (json.dumps(sealed(record.to_dict())) + "\n" for record in self.done.values())
        write_durably(self.path, "".join(lines))
