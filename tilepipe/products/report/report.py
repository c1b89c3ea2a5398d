"""The report of a run: one HTML page with pictures, numbers and what is known about the run, which loads nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tilepipe.products.label_map import Legend
from tilepipe.products.material import Material
from tilepipe.products.numbers import Numbers
from tilepipe.products.report import facts as about
from tilepipe.products.report.histogram import area, histograms
from tilepipe.products.report.page import render
from tilepipe.products.report.picture import picture_of
from tilepipe.products.staging import staged

END = "</html>\n"


@dataclass(frozen=True)
class ClassRow:
    """One row of the table of classes."""

    name: str
    value: int
    colour: str
    """Colour as #rrggbb."""
    share: float
    """Part of the labelled pixels, from 0 to 1."""
    pixels: str
    area: str
    objects: str
    density: str
    clear: bool
    """Whether the pictures leave the class clear."""


def write_report(material: Material, path: Path) -> None:
    """Write the report as one HTML file at the new path `path`; the labels are read once, for pictures and numbers.

    Raises `StorageError` if the disk is full, `UsageError` if `path` exists.
    """
    text = report_of(material, path.name)
    with staged(path) as part:
        part.write_text(text, encoding="utf-8")


def report_of(material: Material, own: str = "") -> str:
    """Return the page; `own` is the name of its file, which the list of files leaves out."""
    facts, legend = material.facts, material.map.legend
    failed = about.failed_of(facts)
    # The pictures come first: the tally counts what they read.
    picture = picture_of(material, failed)
    numbers = material.numbers()
    rows = class_rows(numbers, legend, picture.clear)
    return render(
        "report.html",
        title=about.title_of(facts, legend.name),
        layer=legend.name,
        image_text=about.image_text(facts),
        known=bool(facts),
        ended=str(facts.get("ended", "")).replace("T", " ").replace("+00:00", " UTC"),
        picture=picture,
        rows=[row for row in rows if row.pixels != "0"],
        absent=[row.name for row in rows if row.pixels == "0"],
        colours={row.value: row.colour for row in rows},
        density_unit={"m2": "per km²", "mm2": "per mm²"}.get(numbers.unit, ""),
        nodata=_share_of_nodata(numbers),
        tissue=area(numbers.tissue * 1e6, "um2") if numbers.tissue is not None else "",
        histograms=histograms(numbers),
        plain=str(facts.get("plain", "")),
        seams=[str(sentence) for sentence in facts.get("seams", ())],
        fit=about.fit_rows(facts),
        failed=failed[: about.SHOWN],
        failed_more=max(0, len(failed) - about.SHOWN),
        failed_count=len(failed),
        times=list(about.time_rows(facts, numbers)),
        settings=list(about.setting_rows(facts)),
        versions=list(about.version_rows(facts)),
        files=about.files_of(facts, own),
        command=str(facts.get("command", "")),
        version=str(facts.get("versions", {}).get("tilepipe", "")),
    )


def class_rows(numbers: Numbers, legend: Legend, clear: frozenset[int] = frozenset()) -> list[ClassRow]:
    """Return one row for each class."""
    return [
        ClassRow(
            name=one.name,
            value=one.value,
            colour="#{:02x}{:02x}{:02x}".format(*legend.palette[one.value]),
            share=one.share,
            pixels=f"{one.pixels:,}",
            area=numbers.area_text(one.area).replace("m2", "m²"),
            objects="" if one.objects is None else f"{one.objects:,}",
            density="" if one.density is None else _number(one.density),
            clear=one.value in clear,
        )
        for one in numbers.classes
    ]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def parse_report(path: Path) -> None:
    """Read a report from end to end. Raises `ValueError` or `OSError` if it is none, or was cut."""
    text = path.read_text(encoding="utf-8")
    if not (text.startswith("<!doctype html>") and text.endswith(END)):
        raise ValueError(f"{path} is no whole report")


def _share_of_nodata(numbers: Numbers) -> str:
    labelled = sum(one.pixels for one in numbers.classes)
    return f"{100 * numbers.nodata / (labelled + numbers.nodata):.1f} %" if numbers.nodata else ""
