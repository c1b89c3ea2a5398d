"""This module draws curves over steps as a PNG: panels below each other on one axis, if matplotlib is installed."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT, DPI = 9.6, 2.6, 100
"""Width and height of a panel (inches), and resolution (pixels per inch)."""
LIGHTEST = 0.745
"""Brightness (0 to 1) above which a colour is darkened, because it would be hard to see on white."""
LONGEST = 20
"""Largest number of characters of a name that are shown."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """One curve."""

    name: str
    color: str
    """Colour of the curve, '#rrggbb'."""
    points: Sequence[Point]
    """Points (step, value) of the curve; a point whose value is not a number is left out."""
    mark: Point | None = None
    """Point of the curve that gets a ring and its value as text."""

    @property
    def finite(self) -> list[Point]:
        """Points that can be drawn."""
        return [(x, y) for x, y in self.points if math.isfinite(y)]


@dataclass(frozen=True)
class Panel:
    """Curves that share both axes."""

    title: str
    """What the vertical axis shows."""
    lines: Sequence[Line]
    limits: tuple[float, float] | None = None
    """Limits of the vertical axis; None goes from 0 to the largest value."""

    @property
    def range(self) -> tuple[float, float]:
        """Limits (low, high) of the vertical axis."""
        top = max((y for line in self.lines for _, y in line.finite), default=0.0)
        return self.limits or (0.0, top * 1.05 if top > 0 else 1.0)


def missing() -> str:
    """Return a sentence that says why no curves can be drawn and what to type; '' if matplotlib is installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return "curves.png is not drawn: matplotlib is not installed; run: pip install 'tilepipe[report]'"
    return ""


def picture(panels: Sequence[Panel], across: str) -> bytes:
    """Return a PNG of the panels; `across` names their horizontal axis, which starts at 0.

    The same panels give the same bytes, whatever a matplotlibrc of the user says. Raises `ImportError` if `missing`
    says so.
    """
    from matplotlib import style

    file = io.BytesIO()
    with style.context(["default", {"text.parse_math": False}]):  # a class may be called '$'
        # matplotlib would write its version into the file, and the same panels must give the same bytes.
        figure(panels, across).savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return file.getvalue()


def figure(panels: Sequence[Panel], across: str) -> Figure:
    """Return the figure of `picture`, one pair of axes per panel."""
    # pyplot is not used: it keeps each figure in memory until it is closed.
    from matplotlib.figure import Figure

    last = max((x for panel in panels for line in panel.lines for x, _ in line.points), default=1.0)
    page = Figure((WIDTH, HEIGHT * len(panels)), layout="constrained")
    axes = page.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
    for panel, one in zip(panels, axes, strict=True):
        one.set_title(panel.title, loc="left")
        one.set(xlim=(0, max(last, 1.0)), ylim=panel.range)
        one.grid(color="#e3e3e3")
        one.spines[["top", "right"]].set_visible(False)
        for line in panel.lines:
            _draw(one, line)
        one.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    axes[-1].set_xlabel(across)
    return page


def _draw(axes: Axes, line: Line) -> None:
    color, points = _legible(line.color), line.finite
    value = f"{points[-1][1]:.3g}" if points else "none"
    x, y = [x for x, _ in points], [y for _, y in points]
    # The value comes first, since matplotlib hides labels that begin with an underscore.
    axes.plot(x, y, color=color, marker="o" if len(points) == 1 else "", label=f"{value}  {line.name[:LONGEST]}")
    if line.mark is not None:
        step, best = line.mark
        axes.plot([step], [best], marker="o", fillstyle="none", color=color)
        axes.annotate(f"best {best:.3f} at {step:.0f}", line.mark, (0, 7), textcoords="offset points", ha="center")


def _legible(color: str) -> str:
    """Return the colour, darkened if it would be hard to see on white."""
    from matplotlib.colors import to_hex, to_rgb

    red, green, blue = to_rgb(color)
    # These are the weights of red, green and blue in the brightness that the eye sees (ITU-R BT.601).
    factor = min(1.0, LIGHTEST / max(0.299 * red + 0.587 * green + 0.114 * blue, 1e-9))
    return to_hex((red * factor, green * factor, blue * factor))
