"""Histograms of the sizes of objects: one for each class, with an axis that doubles from bar to bar."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tilepipe.products.numbers import ClassNumbers, Numbers

WIDTH, HEIGHT = 360, 110
"""Size of the bars' area, in units of the drawing."""
LEAST = 6
"""Least number of bars that the axis has room for."""
SHOWN = 8
"""Largest number of histograms; classes with most objects come first."""
APART, MARGIN = 52, 12
"""Least distance between two numbers of the axis, and from a number to its ends, in units of the drawing."""
UNITS = {
    "m2": ((1e6, "km²"), (1e4, "ha"), (1.0, "m²")),
    "um2": ((1e6, "mm²"), (1.0, "µm²")),
    "px": ((1.0, "px"),),
}
"""Units of an area, the largest first, each with its size in the unit that names the row."""


@dataclass(frozen=True)
class Bar:
    """One bar."""

    x: float
    y: float
    width: float
    height: float
    text: str
    """Words about the bar."""


@dataclass(frozen=True)
class Tick:
    """One number of the axis."""

    x: float
    text: str


@dataclass(frozen=True)
class Histogram:
    """The histogram of one class."""

    name: str
    """Name of the class."""
    value: int
    """Label value of the class."""
    caption: str
    """Number of objects, their mean size, and how many the highest bar stands for, in words."""
    bars: list[Bar]
    ticks: list[Tick]


def histograms(numbers: Numbers) -> list[Histogram]:
    """Return a histogram for each class that has objects, at most `SHOWN`, in the order of the classes."""
    found = [one for one in numbers.classes if one.objects and one.sizes]
    most = sorted(found, key=lambda one: -(one.objects or 0))[:SHOWN]
    return [_histogram(one, numbers.unit) for one in found if one in most]


def area(value: float, unit: str) -> str:
    """Return an area in words: 12.3 m², 4.5 ha, 78 µm², 250 px. `unit` is 'm2', 'um2' or 'px'."""
    size, name = next((one for one in UNITS[unit] if value >= one[0]), UNITS[unit][-1])
    number = value / size
    return f"{number:,.0f} {name}" if number >= 100 else f"{number:.3g} {name}"


def _histogram(one: ClassNumbers, measured: str) -> Histogram:
    unit, each = _unit(one, measured)
    first = next(k for k, count in enumerate(one.sizes) if count)
    count = max(len(one.sizes) - first, LEAST)
    most, step = max(one.sizes), WIDTH / count
    bars = []
    for k, objects in enumerate(one.sizes[first:]):
        if objects:
            # One object among thousands must still be seen.
            height = max(HEIGHT * objects / most, 1.5)
            low, high = (area(2.0 ** (first + n) * each, unit) for n in (k, k + 1))
            bars.append(
                Bar(round(k * step + 1, 2), round(HEIGHT - height, 2), round(step - 2, 2), round(height, 2),
                    f"{objects:,} of {low} to {high}")
            )  # fmt: skip
    objects = one.objects or 0
    noun = "object" if objects == 1 else "objects"
    mean = area(one.pixels * each / objects, unit)
    caption = f"{objects:,} {noun}, {mean} on average; {most:,} in the highest bar"
    return Histogram(one.name, one.value, caption, bars, _ticks(first, count, each, unit))


def _unit(one: ClassNumbers, measured: str) -> tuple[str, float]:
    """Return the unit of sizes, and the area of a pixel in it; pixels of a raster in degrees count by their mean."""
    if one.area is None or not measured:
        return "px", 1.0
    return ("m2", one.area / one.pixels) if measured == "m2" else ("um2", one.area / one.pixels * 1e6)


def _ticks(first: int, count: int, each: float, unit: str) -> list[Tick]:
    """Return powers of ten along the axis, whose left end stands for 2**first pixels."""
    low, high = math.log2(each) + first, math.log2(each) + first + count
    powers = range(math.floor(low / math.log2(10)), math.ceil(high / math.log2(10)) + 1)
    kept: list[Tick] = []
    for number in (10.0**power for power in powers):
        x = round((math.log2(number) - low) / count * WIDTH, 2)
        if MARGIN <= x <= WIDTH - MARGIN and not (kept and x - kept[-1].x < APART):
            kept.append(Tick(x, area(number, unit)))
    return kept
