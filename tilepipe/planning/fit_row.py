"""Fit row: one row of the fit table, and the table in a few lines.

A row is `ok`, a `note` (worth knowing), a `warning` (labels are likely wrong, or the run may end early) or `refuse`.
What is not ok says what to type.
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
    """Name: bands, values, pixel size, place, nodata, region, model, tiles, work, memory, disk or time."""
    state: State
    """How well it fits."""
    text: str
    """What is known, with the numbers, and what to type if it is not ok."""

    def __str__(self) -> str:
        return f"{self.state}: {self.text}"


def short_form(rows: Iterable[FitRow]) -> Iterator[str]:
    """Yield the table in a few lines for the head of a run: what is ok by name, then each row that is not."""
    rows = tuple(rows)
    shown = ("tiles", "memory", "disk", "time")
    fine = ", ".join(row.name for row in rows if row.state == "ok" and row.name not in shown)
    sizes = [f"{row.name} {row.text.partition('; ')[0]}" for row in rows if row.state == "ok" and row.name in shown]
    if said := "; ".join([*([f"{fine} ok"] if fine else []), *sizes]):
        yield f"fit: {said}"
    yield from (str(row) for row in rows if row.state != "ok")
