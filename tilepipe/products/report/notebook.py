"""What a notebook shows of a run: a thumbnail, the classes, and whether labels depend on the tiling."""

from __future__ import annotations

from tilepipe.products.label_map import LabelMap
from tilepipe.products.numbers import SHOWN, Numbers
from tilepipe.products.report.facts import failed_of, title_of
from tilepipe.products.report.page import fragment
from tilepipe.products.report.report import class_rows
from tilepipe.products.report.thumbnail import thumbnail
from tilepipe.sources.base import Source
from tilepipe.text import JSON


def notebook_of(facts: JSON, labels: LabelMap, small: LabelMap, image: Source | None) -> str:
    """Return HTML without a script; `small` is a smaller version of `labels`, `facts` are those of run.json."""
    numbers = facts.get("numbers")
    rows = class_rows(Numbers.from_dict(numbers), labels.legend) if numbers else []
    there = [row for row in rows if row.pixels != "0"]
    most = sorted(there, key=lambda row: -row.share)[:SHOWN]
    height, width = labels.shape
    return fragment(
        "notebook.html",
        title=title_of(facts, labels.legend.name),
        size=f"{height:,} x {width:,} px",
        picture=thumbnail(small, image),
        rows=[row for row in there if row in most],
        more=len(there) - len(most),
        failed=len(failed_of(facts)),
        plain=str(facts.get("plain", "")),
    )
