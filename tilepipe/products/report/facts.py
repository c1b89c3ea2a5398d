"""What a report says about its run, in rows and sentences, from the facts that run.json holds.

Facts of older versions lack some fields; what is not known is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from urllib.parse import quote

from tilepipe.products.numbers import M2_PER_KM2, Numbers
from tilepipe.stage_times import WORDS, bottleneck
from tilepipe.text import JSON, duration

LEAST = 0.01
"""Share of the time from which on a stage is shown."""
PARTS = {**WORDS, "wait": "waiting for pixels", "read": "reading pixels beside the model"}
"""What a stage does, in words, as the row of all stages says it."""
SHOWN = 200
"""Largest number of failed tiles that are listed."""


@dataclass(frozen=True)
class Row:
    """One row of a table: a name and what is known."""

    name: str
    text: str
    state: str = ""
    """State of a row of the fit table: ok, note, warning or refuse."""


@dataclass(frozen=True)
class File:
    """A file beside the report."""

    name: str
    link: str
    """Relative address of the file."""
    content: str
    """'labels', or the name of an uncertainty layer."""


def title_of(facts: JSON, name: str) -> str:
    """Return the name of the image; `name`, that of the labels, if the image has none."""
    source = str(facts.get("source", ""))
    return PurePath(source).name if source not in ("", "array") else name


def fit_rows(facts: JSON) -> list[Row]:
    """Return the rows of the fit table."""
    return [Row(row["name"], row["text"], row["state"]) for row in facts.get("plan", {}).get("fit_table", ())]


def failed_of(facts: JSON) -> list[str]:
    """Return a sentence about each tile without labels, with its place and reason."""
    return [str(problem) for problem in facts.get("failed", ())]


def files_of(facts: JSON, own: str) -> list[File]:
    """Return the files that the run has written beside the report, whose own name is left out."""
    names = facts.get("contents", {})
    return [File(name, quote(name), what) for name, what in names.items() if name != own]


def time_rows(facts: JSON, numbers: Numbers) -> Iterator[Row]:
    """Yield how long the run took, per area too, and how much it did."""
    seconds, plan = float(facts.get("elapsed_seconds", 0)), facts.get("plan", {})
    if seconds > 0:
        yield Row("total time", seconds_text(seconds))
        pixels = _region_pixels(plan)
        if pixels:
            yield Row("throughput", f"{pixels / seconds / 1e6:.3g} megapixels of the image per second")
        for unit, units in units_of_area(numbers):
            yield Row(f"time per {unit}", seconds_text(seconds / units))
    if spent := float(facts.get("processor_seconds", 0)):
        per = "".join(f", {seconds_text(spent / units)} per {unit}" for unit, units in units_of_area(numbers))
        yield Row("processor time", f"{seconds_text(spent)} of all cores{per}")
    if "tiles" in facts:
        blocks = "1 block" if facts["blocks"] == 1 else f"{facts['blocks']:,} blocks"
        yield Row("tiles predicted", f"{facts['tiles']:,} in {blocks}")
    if facts.get("block_seconds"):
        yield Row("time in blocks", f"{seconds_text(facts['block_seconds'])}, summed over all workers")
    stages = facts.get("stages") or {}
    if why := bottleneck(stages):
        yield Row("bottleneck", f"{why[0].upper()}{why[1:]}.")
        names = [name for name in PARTS if stages.get(name, 0) >= LEAST * stages["elapsed"]]
        yield Row("time by stage", ", ".join(f"{PARTS[name]} {seconds_text(stages[name])}" for name in names))


def setting_rows(facts: JSON) -> Iterator[Row]:
    """Yield what the user asked for, then what was chosen for it."""
    for name, value in facts.get("settings", {}).items():
        yield Row(name.replace("_", "-"), _listed(value))
    plan = facts.get("plan")
    if not plan:
        return
    cut, how = plan["tiling"], plan["compute"]
    yield Row("model", _listed(facts.get("model", plan["model"])))
    yield Row("tiles", f"{cut['tile']} px, overlap {cut['overlap']} px, {cut['window']} windows")
    yield Row("model's grid", f"{plan['predicted'][0]:,} x {plan['predicted'][1]:,} px")
    workers = f", {how['workers']} worker processes" if how["workers"] else ""
    yield Row("device", f"{how['device']}, {how['precision']}, batches of {how['batch']}{workers}")


def version_rows(facts: JSON) -> Iterator[Row]:
    """Yield the versions of the software that decides labels, the hash of the weights, and the run key."""
    yield from (Row(name, str(text)) for name, text in facts.get("versions", {}).items())
    if facts.get("key"):
        yield Row("run key", str(facts["key"]))


def seconds_text(seconds: float) -> str:
    """Return a time in words; times below 10 seconds have two digits: '0.42 s', '12 min'."""
    return f"{seconds:.2g} s" if seconds < 9.95 else duration(seconds)


def image_text(facts: JSON) -> str:
    """Return the size (height x width) and type of the image in words, and which part of it has labels."""
    plan = facts.get("plan")
    if not plan:
        return ""
    height, width = plan["shape"]
    y0, x0, y1, x1 = plan["region"]
    part = f"; rows {y0:,} to {y1:,}, columns {x0:,} to {x1:,} of it" if (y1 - y0, x1 - x0) != (height, width) else ""
    bands = f"{plan['bands']} band{'' if plan['bands'] == 1 else 's'}"
    return f"{height:,} x {width:,} px, {bands}, {plan['dtype']}{part}"


def units_of_area(numbers: Numbers) -> Iterator[tuple[str, float]]:
    """Yield the unit that times are given for, and the area in it, if it is known."""
    area = sum(one.area or 0 for one in numbers.classes)
    if numbers.unit == "m2" and area > 0:
        yield "km²", area / M2_PER_KM2
    if numbers.unit == "mm2" and numbers.tissue:
        yield "cm² of tissue", numbers.tissue / 100


def _region_pixels(plan: JSON) -> int:
    if "region" not in plan:
        return 0
    y0, x0, y1, x1 = plan["region"]
    return int((y1 - y0) * (x1 - x0))


def _listed(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
