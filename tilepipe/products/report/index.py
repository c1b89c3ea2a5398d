"""The report of a batch: one HTML page with all images, their thumbnails, totals, and what failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import quote

from tilepipe.products.label_map import Legend
from tilepipe.products.numbers import M2_PER_KM2, ClassNumbers, Numbers
from tilepipe.products.report.facts import Row, seconds_text, units_of_area
from tilepipe.products.report.page import render
from tilepipe.products.report.report import ClassRow, class_rows
from tilepipe.text import JSON

MARK = '<meta name="generator" content="tilepipe batch">'
"""Text that only the report of a batch holds: such a page may be replaced by a newer one."""
STATES = {"done": "ok", "partial": "warning", "failed": "refuse", "waiting": "note"}
"""State of the fit table that has the colour of an image's status."""


@dataclass(frozen=True)
class Card:
    """One image of a batch."""

    name: str
    status: str
    state: str
    thumbnail: str
    """The labels over the image, as a data: URI; '' if there is none."""
    link: str
    """Relative address of the image's own report, else of its labels; '' if there is neither."""
    text: str
    """Area and time in words."""
    bars: list[Bar]


@dataclass(frozen=True)
class Bar:
    """The part of a class in an image, from 0 to 100."""

    x: float
    width: float
    colour: str
    text: str


def index_of(facts: JSON, thumbnails: Mapping[str, str], legend: Legend | None) -> str:
    """Return the page of a batch.

    `facts` are JSON types: `jobs` (name of the jobs file), `model`, `command`, and `images`, each with `image`, `name`,
    `status`, `message`, `seconds`, `processor_seconds`, `numbers`, `seams`, and `labels` and `page` (paths relative to
    the page, or '').
    `thumbnails` are data: URIs by name, `legend` has the colours of the classes.
    """
    images: list[JSON] = facts["images"]
    found = [Numbers.from_dict(one["numbers"]) for one in images if one["numbers"]]
    totals = total(found)
    rows = class_rows(totals, legend) if totals and legend else []
    counts = Counter(str(one["status"]) for one in images)
    return render(
        "index.html",
        title=facts["jobs"],
        model=facts["model"],
        command=facts["command"],
        counts=[Row(status, f"{counts[status]:,} {status}", STATES[status]) for status in STATES if counts[status]],
        count=len(images),
        failures=[one for one in images if one["status"] in ("failed", "partial")],
        rows=[row for row in rows if row.pixels != "0"],
        density_unit={"m2": "per km²", "mm2": "per mm²"}.get(totals.unit, "") if totals else "",
        seams=_seams(images),
        times=list(_times(images)),
        cards=[_card(one, thumbnails, legend) for one in images],
    )


def total(found: Sequence[Numbers]) -> Numbers | None:
    """Return the sums over all images; None without an image, or if images have other classes or units."""
    if len({(one.unit, tuple(row.name for row in one.classes)) for one in found}) != 1:
        return None
    first, nodata = found[0], sum(one.nodata for one in found)
    tissues = [one.tissue for one in found if one.tissue is not None]
    tissue = sum(tissues) if len(tissues) == len(found) else None
    labelled = sum(row.pixels for one in found for row in one.classes)
    areas = sum(row.area or 0 for one in found for row in one.classes)
    whole = tissue if tissue is not None else areas / (M2_PER_KM2 if first.unit == "m2" else 1)
    rows = [_summed([one.classes[k] for one in found], labelled, whole) for k in range(len(first.classes))]
    return Numbers(tuple(rows), nodata, first.unit, tissue)


def _summed(rows: Sequence[ClassNumbers], labelled: int, whole: float) -> ClassNumbers:
    pixels = sum(row.pixels for row in rows)
    areas = [row.area for row in rows if row.area is not None]
    counts = [row.objects for row in rows if row.objects is not None]
    objects = sum(counts) if counts else None
    return replace(
        rows[0],
        pixels=pixels,
        share=pixels / labelled if labelled else 0.0,
        area=sum(areas) if areas else None,
        objects=objects,
        density=objects / whole if objects is not None and whole and areas else None,
        sizes=(),
    )


def _seams(images: Sequence[JSON]) -> list[Row]:
    """Return each sentence about seams, with the number of images that it holds for."""
    said = Counter(str(one["seams"]) for one in images if one["seams"])
    return [Row(f"{count} image{'' if count == 1 else 's'}", sentence) for sentence, count in said.most_common()]


def _times(images: Sequence[JSON]) -> Iterator[Row]:
    """Yield the times of the images that have one."""
    if timed := [one for one in images if one["seconds"]]:
        spent = sum(float(one["seconds"]) for one in timed)
        yield Row("total time", seconds_text(spent))
        yield Row("time per image", f"{seconds_text(spent / len(timed))} on average")
        yield from (Row(f"time per {unit}", text) for unit, text in _per_area(timed, "seconds"))
    # Runs that were interrupted, and several at a time with worker processes, have no processor time.
    if known := [one for one in images if one["processor_seconds"]]:
        spent = sum(float(one["processor_seconds"]) for one in known)
        of = "" if len(known) == len(timed) else f", known of {len(known):,} of {len(timed):,} images"
        per = "".join(f", {text} per {unit}" for unit, text in _per_area(known, "processor_seconds"))
        yield Row("processor time", f"{seconds_text(spent)} of all cores{of}")
        yield Row("processor time per image", f"{seconds_text(spent / len(known))} on average{per}")


def _per_area(images: Sequence[JSON], field: str) -> Iterator[tuple[str, str]]:
    """Yield the unit of area, and the time in it over all images that have labels."""
    labelled = [one for one in images if one["numbers"]]
    if found := total([Numbers.from_dict(one["numbers"]) for one in labelled]):
        spent = sum(float(one[field]) for one in labelled)
        yield from ((unit, seconds_text(spent / area)) for unit, area in units_of_area(found))


def _card(one: JSON, thumbnails: Mapping[str, str], legend: Legend | None) -> Card:
    numbers = Numbers.from_dict(one["numbers"]) if one["numbers"] else None
    texts = []
    if numbers and numbers.unit:
        texts.append(numbers.area_text(sum(row.area or 0 for row in numbers.classes)).replace("m2", "m²"))
    if one["seconds"]:
        texts.append(seconds_text(float(one["seconds"])))
    return Card(
        name=one["name"],
        status=one["status"],
        state=STATES[one["status"]],
        thumbnail=thumbnails.get(one["name"], ""),
        link=quote(one["page"] or one["labels"]),
        text=" · ".join(text.replace(" ", "\u00a0") for text in texts),  # a number stays beside its unit
        bars=_bars(class_rows(numbers, legend)) if numbers and legend else [],
    )


def _bars(rows: Sequence[ClassRow]) -> list[Bar]:
    bars, x = [], 0.0
    for row in rows:
        if row.share:
            bars.append(Bar(round(100 * x, 3), round(100 * row.share, 3), row.colour, f"{row.name} {row.share:.1%}"))
            x += row.share
    return bars
