"""The numbers of all images of a batch in one CSV file: what each class has in each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tilepipe.errors import UsageError
from tilepipe.execution.batch.record import DONE, UNCHANGED, Entry
from tilepipe.products.csv_file import csv_lines
from tilepipe.products.numbers import Numbers
from tilepipe.storage import write_durably

HEAD = ("image", "output", "status", "message")
"""First columns."""


def refuse_foreign(path: Path) -> None:
    """Raise `UsageError` if the file was not written by a batch: it would be lost."""
    if path.exists() and not path.read_bytes().startswith(",".join(HEAD).encode()):
        raise UsageError(f"{path} is not the table of a batch, which would be written there; move it away first")


def write_table(path: Path, entries: Sequence[Entry]) -> None:
    """Write the table, all of it or nothing: a row for each image and class, and one for an image without labels.

    Nothing is written if it says the same already.
    """
    rows = [row for entry in entries for row in _rows(entry)]
    columns = dict.fromkeys((*HEAD, *(name for row in rows for name in row)))
    text = "".join(csv_lines(list(columns), rows))
    if not path.exists() or path.read_bytes() != text.encode():
        write_durably(path, text)


def _rows(entry: Entry) -> list[dict[str, object]]:
    done = replace(entry, status=DONE) if entry.status == UNCHANGED else entry  # whenever that was
    head: dict[str, object] = {name: getattr(done, name) for name in HEAD}
    return [{**head, **row} for row in Numbers.from_dict(entry.numbers).table()] if entry.numbers else [head]
