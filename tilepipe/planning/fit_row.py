"""This module defines a row of the fit table, and the short form of the table.

A row is `ok`, a `note` (worth knowing), a `warning` (labels are likely wrong, or the run may end early) or `refuse`. A
row that is not ok says what to type.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "note", "warning", "refuse"]
"""How well something fits, from good to hopeless."""


@dataclass(frozen=True)
class FitRow:
    """One row of the fit table."""

    name: str
    """Name of the row: bands, values, pixel size, place, nodata, region, model, tiles, work, memory, disk or time."""
    state: State
    """How well the thing fits."""
    text: str
    """What is known, with the numbers, and what to type if the row is not ok."""

    def __str__(self) -> str:
        return f"{self.state}: {self.text}"


def short_form(rows: Iterable[FitRow]) -> Iterator[str]:
    """Yield the table in a few lines for the start of a run: first the names of the rows that are ok, then each other
    row."""
    rows = tuple(rows)
    shown = ("tiles", "memory", "disk", "time")
    fine = ", ".join(row.name for row in rows if row.state == "ok" and row.name not in shown)
    # The text after the first '; ' is detail, which `tilepipe plan` shows.
    sizes = [f"{row.name} {row.text.partition('; ')[0]}" for row in rows if row.state == "ok" and row.name in shown]
    if said := "; ".join([*([f"{fine} ok"] if fine else []), *sizes]):
        yield f"fit: {said}"
    yield from (str(row) for row in rows if row.state != "ok")
