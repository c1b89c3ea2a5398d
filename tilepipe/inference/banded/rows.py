"""Rows: rows of a plane that wait to be used."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

ROWS = 2
"""Dimension of the rows."""


@dataclass
class Rows:
    """Rows that wait to be used, from row `first` of the plane on."""

    pieces: list[Tensor] = field(default_factory=list)
    """The rows, in order."""
    first: int = 0
    """Number of the first row."""

    @property
    def end(self) -> int:
        """Number of the row after the last one."""
        return self.first + sum(piece.shape[ROWS] for piece in self.pieces)

    def add(self, rows: Tensor | None) -> None:
        """Add rows at the end."""
        if rows is not None:
            self.pieces.append(rows)

    def between(self, start: int, stop: int) -> Tensor:
        """Return rows [start, stop), which must all be there."""
        if len(self.pieces) > 1:
            self.pieces = [torch.cat(self.pieces, ROWS)]
        return self.pieces[0].narrow(ROWS, start - self.first, stop - start)

    def drop(self, start: int) -> None:
        """Forget the rows before row `start`."""
        while self.pieces and self.first + self.pieces[0].shape[ROWS] <= start:
            self.first += self.pieces.pop(0).shape[ROWS]
        if not self.pieces:
            self.first = max(self.first, start)
        elif start > self.first:
            whole = self.pieces[0]
            # A copy, since a view of a few rows would keep the whole piece in memory.
            self.pieces[0] = whole.narrow(ROWS, start - self.first, whole.shape[ROWS] - start + self.first).clone()
            self.first = start

    def take(self, count: int) -> Tensor:
        """Return the first `count` rows, and forget them."""
        if self.pieces[0].shape[ROWS] == count:
            self.first += count
            return self.pieces.pop(0)
        rows = self.between(self.first, self.first + count)
        rest = self.pieces[0].shape[ROWS] - count
        self.pieces = [self.pieces[0].narrow(ROWS, count, rest)] if rest else []
        self.first += count
        return rows
