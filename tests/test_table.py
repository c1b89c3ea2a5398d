from __future__ import annotations

import pytest

from tilepipe.errors import UsageError
from tilepipe.table import SHOWN, Table

ROWS = [{"class": "a<b", "share": 0.25}, {"class": "forest", "share": 1 / 3, "area": None}]


def test_rows_and_columns_are_got_by_number_and_name() -> None:
    table = Table(ROWS)
    assert table.columns == ("class", "share", "area")
    assert (len(table), table[1]["class"], table["share"], table[:1]["class"]) == (2, "forest", [0.25, 1 / 3], ["a<b"])
    assert table.to_dict() == {"class": ["a<b", "forest"], "share": [0.25, 1 / 3], "area": [None, None]}
    with pytest.raises(UsageError, match=r"no column 'clas'; its columns are class, share, area"):
        table["clas"]


def test_it_is_shown_as_text_and_as_html() -> None:
    assert repr(Table(ROWS)).splitlines() == ["class   share     area", "a<b     0.25", "forest  0.333333"]
    page = Table(ROWS)._repr_html_()
    assert "<th>share</th>" in page
    assert "<td>a&lt;b</td>" in page
    assert f"and 5 more rows; table[{SHOWN}:] shows them" in repr(Table([{"n": k} for k in range(SHOWN + 5)]))
    assert repr(Table([])) == ""


def test_pandas_takes_it() -> None:
    pandas = pytest.importorskip("pandas")
    frame = Table(ROWS).to_pandas()
    assert list(frame.columns) == ["class", "share", "area"]
    assert isinstance(frame, pandas.DataFrame)
