"""This module writes the numbers of all images of a batch into one CSV file, one row per image and class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tilepipe.errors import UsageError
from tilepipe.execution.batch.record import DONE, FAILED, KNOWN_BAD, PARTIAL, UNCHANGED, Entry
from tilepipe.products.csv_file import csv_lines
from tilepipe.products.numbers import Numbers
from tilepipe.storage import write_durably

HEAD = ("image", "output", "status", "message")
"""Names of the first columns."""


def refuse_foreign(path: Path) -> None:
    """Raise `UsageError` if the file was not written by a batch, because its content would be lost."""
    if path.exists() and not path.read_bytes().startswith(",".join(HEAD).encode()):
        raise UsageError(f"{path} is not the table of a batch, which would be written there; move it away first")


def write_table(path: Path, entries: Sequence[Entry]) -> None:
    """Write the table, whole or not at all: a row for each image and class, and one row for an image without labels.

    Nothing is written if the file has this content already.
    """
    rows = [row for entry in entries for row in _rows(entry)]
    columns = dict.fromkeys((*HEAD, *(name for row in rows for name in row)))
    text = "".join(csv_lines(list(columns), rows))
    if not path.exists() or path.read_bytes() != text.encode():
        write_durably(path, text)


def _rows(entry: Entry) -> list[dict[str, object]]:
    # An unchanged image counts as done, whenever it was done.
    done = replace(entry, status=DONE if entry.status == UNCHANGED else entry.status)
    if entry.status == KNOWN_BAD:
        done = replace(entry, status=PARTIAL if entry.numbers else FAILED)
    head: dict[str, object] = {name: getattr(done, name) for name in HEAD}
    return [{**head, **row} for row in Numbers.from_dict(entry.numbers).table()] if entry.numbers else [head]
