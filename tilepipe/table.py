"""Table: rows with named columns, for notebooks and for pandas, which tilepipe does not need itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, overload

from tilepipe.errors import UsageError

SHOWN = 20
"""Largest number of rows that are shown."""


class Table(Sequence[Mapping[str, Any]]):
    """Rows, each with the same columns. `table[0]` is a row as a dict, and `table["area"]` is a column as a list."""

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self._rows = [dict(row) for row in rows]
        self.columns = tuple(dict.fromkeys(name for row in self._rows for name in row))
        """Names of the columns."""

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, key: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, key: slice) -> Table: ...
    @overload
    def __getitem__(self, key: str) -> list[Any]: ...
    def __getitem__(self, key: int | slice | str) -> dict[str, Any] | Table | list[Any]:
        if isinstance(key, slice):
            return Table(self._rows[key])
        if not isinstance(key, str):
            return self._rows[key]
        if key not in self.columns:
            raise UsageError(f"the table has no column {key!r}; its columns are {', '.join(self.columns)}")
        return [row.get(key) for row in self._rows]

    def to_dict(self) -> dict[str, list[Any]]:
        """Return the columns by name, as `pandas.DataFrame` and `polars.DataFrame` take them."""
        return {name: self[name] for name in self.columns}

    def to_pandas(self) -> Any:
        """Return a `pandas.DataFrame`. Raises `UsageError` if pandas is not installed."""
        try:
            import pandas
        except ImportError:
            raise UsageError("pandas is not installed; run: pip install pandas, or use to_dict()") from None
        return pandas.DataFrame(self.to_dict())

    def __repr__(self) -> str:
        cells = [list(self.columns), *([_word(row.get(name)) for name in self.columns] for row in self._rows[:SHOWN])]
        wide = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(map(str.ljust, row, wide)).rstrip() for row in cells]
        return "\n".join([*lines, *self._rest()])

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        head = "".join(f"<th>{escape(name)}</th>" for name in self.columns)
        rows = (
            "".join(f"<td>{escape(_word(row.get(name)))}</td>" for name in self.columns) for row in self._rows[:SHOWN]
        )
        rest = "".join(f"<p>{line}</p>" for line in self._rest())
        return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>{rest}"

    def _rest(self) -> list[str]:
        more = len(self) - SHOWN
        return [f"and {more} more rows; table[{SHOWN}:] shows them"] if more > 0 else []


def _word(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
