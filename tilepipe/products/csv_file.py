"""CSV files have UTF-8 text, a header, one row for each thing, and no cell that a spreadsheet would compute."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tilepipe.products.material import Material
from tilepipe.products.staging import staged
from tilepipe.text import csv_cell


class _Line:
    """Stands for a file: `csv.writer` returns what `write` of this class returns."""

    def write(self, text: str) -> str:
        return text


def csv_lines(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> Iterator[str]:
    """Yield the lines of a CSV file, the header first; a cell without a value is left empty."""
    writer = csv.writer(_Line(), lineterminator="\n")
    yield writer.writerow([csv_cell(name) for name in columns])
    for row in rows:
        yield writer.writerow([csv_cell(row.get(name)) for name in columns])


def write_numbers(material: Material, path: Path) -> None:
    """Write the numbers of each class as a CSV file at the new path `path`, one row for each class.

    Raises `StorageError` if the disk is full, `UsageError` if `path` exists.
    """
    table = material.numbers().table()
    # The csv module asks for newline="", or else line breaks inside cells change on some systems.
    with staged(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        file.writelines(csv_lines(list(table[0]), table))


def parse_csv(path: Path) -> None:
    """Read a CSV file from end to end. Raises `csv.Error`, `ValueError` or `OSError` if it is none."""
    with path.open(encoding="utf-8", newline="") as file:
        # Without `strict` the module takes broken quotes for text.
        reader = csv.reader(file, strict=True)
        width = len(next(reader, ()))
        if not width or any(len(row) != width for row in reader):
            raise ValueError(f"{path} is no table of one width")
