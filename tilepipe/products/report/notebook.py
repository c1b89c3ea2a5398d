"""What a notebook shows of a run: a thumbnail, the classes, and whether labels depend on the tiling."""

from __future__ import annotations

import math
from html import escape

from tilepipe.products.label_map import LabelMap
from tilepipe.products.numbers import SHOWN, Numbers
from tilepipe.products.report.facts import failed_of, title_of
from tilepipe.products.report.page import fragment
from tilepipe.products.report.report import class_rows
from tilepipe.products.report.thumbnail import thumbnail
from tilepipe.products.tally import Tally
from tilepipe.sources.base import Source
from tilepipe.table import Table
from tilepipe.text import JSON

LARGE = 64_000_000
"""Number of pixels from which on labels are not read for a picture, since nobody asked for them."""


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


def notebook_of_labels(labels: LabelMap) -> str:
    """Return HTML without a script of labels alone; of very large ones only their classes."""
    if math.prod(labels.shape) <= LARGE:
        return notebook_of({"numbers": Tally(labels).numbers().to_dict()}, labels, labels, None)
    height, width = labels.shape
    classes = Table({"value": value, "class": name} for value, name in enumerate(labels.legend.classes))
    return f"<p>{escape(labels.legend.name)}: {height:,} x {width:,} px</p>{classes._repr_html_()}"
