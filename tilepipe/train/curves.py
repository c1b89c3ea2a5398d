"""Curves over steps as a PNG: panels below each other on one axis, drawn twice as large and shrunk to smooth lines."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageColor, ImageDraw, ImageFont

WIDTH, HEIGHT = 960, 260
"""Of a panel in pixels."""
LEFT, RIGHT, TOP, BOTTOM = 84, 190, 34, 12
"""Room around the axes of a panel: values, names of the lines, title."""
AXIS = 50
"""Room below the last panel for the common axis."""
TEXT, SMALL = 15, 13
FINE = 2
"""Drawn so many times larger."""
INK, GRID, PAPER = "#222222", "#e3e3e3", "#ffffff"
LIGHTEST = 190
"""Brightness (0 to 255) above which a colour is darkened, as it would be lost on white."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """One curve."""

    name: str
    color: str
    """'#rrggbb'."""
    points: Sequence[Point]
    """(step, value); those that are no numbers are left out."""
    mark: Point | None = None
    """A point of it that is ringed and named with its value."""

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
    """Of the vertical axis; None goes from 0 to the largest value."""

    @property
    def range(self) -> tuple[float, float]:
        """(low, high) of the vertical axis."""
        top = max((y for line in self.lines for _, y in line.finite), default=0.0)
        return self.limits or (0.0, top * 1.05 if top > 0 else 1.0)


def picture(panels: Sequence[Panel], across: str) -> bytes:
    """Return a PNG of the panels; `across` names their horizontal axis, which starts at 0."""
    last = max((x for panel in panels for line in panel.lines for x, _ in line.points), default=1.0)
    size = WIDTH * FINE, (HEIGHT * len(panels) + AXIS) * FINE
    page = Image.new("RGB", size, PAPER)
    for k, panel in enumerate(panels):
        _draw_panel(ImageDraw.Draw(page), panel, k * HEIGHT, max(last, 1.0), across if panel is panels[-1] else "")
    file = io.BytesIO()
    page.resize((size[0] // FINE, size[1] // FINE), Image.Resampling.LANCZOS).save(file, "PNG", optimize=True)
    return file.getvalue()


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return at most `most` round values (1, 2 or 5 times a power of ten apart) from `low` to `high`."""
    least = (high - low) / (most - 1)
    power = 10.0 ** math.floor(math.log10(least))
    step = next(power * k for k in (1, 2, 5, 10) if power * k >= least * (1 - 1e-9))
    return [k * step for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _draw_panel(draw: ImageDraw.ImageDraw, panel: Panel, top: int, last: float, across: str) -> None:
    """Draw one panel whose upper edge is at `top`; the horizontal axis is labelled where `across` names it."""
    (low, high), x0, x1 = panel.range, LEFT, WIDTH - RIGHT
    y0, y1 = top + TOP, top + HEIGHT - BOTTOM

    def at(point: Point) -> Point:
        x, y = x0 + point[0] / last * (x1 - x0), y1 - (min(max(point[1], low), high) - low) / (high - low) * (y1 - y0)
        return x * FINE, y * FINE

    for value in ticks(low, high):
        _line(draw, [at((0, value)), at((last, value))], GRID)
        _text(draw, (at((0, value))[0] - 8 * FINE, at((0, value))[1]), f"{value:.4g}", "rm", SMALL)
    for value in ticks(0, last, 9):
        _line(draw, [at((value, low)), at((value, high))], GRID)
        if across:
            _text(draw, (at((value, low))[0], (y1 + 6) * FINE), f"{value:.6g}", "mt", SMALL)
    _line(draw, [at((0, high)), at((0, low)), at((last, low))], INK)
    _text(draw, (x0 * FINE, (y0 - 8) * FINE), panel.title, "ls", TEXT)
    if across:
        _text(draw, ((x0 + x1) / 2 * FINE, (y1 + 26) * FINE), across, "mt", TEXT)
    for line in panel.lines:
        _draw_line(draw, line, at)
    _write_names(draw, panel.lines, (x1 + 14, y0))


def _draw_line(draw: ImageDraw.ImageDraw, line: Line, at: Callable[[Point], Point]) -> None:
    color, points = _legible(line.color), [at(point) for point in line.finite]
    if len(points) > 1:
        _line(draw, points, color, 2)
    elif points:
        _ring(draw, points[0], 2, color)
    if line.mark is not None:
        x, y = at(line.mark)
        _ring(draw, (x, y), 5, color)
        _text(draw, (x, y - 9 * FINE), f"best {line.mark[1]:.3f} at {line.mark[0]:.0f}", "ms", SMALL)


def _write_names(draw: ImageDraw.ImageDraw, lines: Sequence[Line], corner: tuple[int, int]) -> None:
    """Write the names of the lines below each other, each with its colour and last value."""
    x, y = corner
    for k, line in enumerate(lines):
        middle = (y + 8 + k * 20) * FINE
        _line(draw, [(x * FINE, middle), ((x + 18) * FINE, middle)], _legible(line.color), 3)
        value = f" {line.finite[-1][1]:.3g}" if line.finite else ""
        _text(draw, ((x + 24) * FINE, middle), f"{line.name[:14]}{value}", "lm", SMALL)


def _line(draw: ImageDraw.ImageDraw, points: Sequence[Point], color: str, width: int = 1) -> None:
    draw.line(list(points), fill=color, width=width * FINE, joint="curve")


def _ring(draw: ImageDraw.ImageDraw, at: Point, radius: int, color: str) -> None:
    r = radius * FINE
    draw.ellipse((at[0] - r, at[1] - r, at[0] + r, at[1] + r), outline=color, width=2 * FINE)


def _text(draw: ImageDraw.ImageDraw, at: Point, text: str, anchor: str, size: int) -> None:
    font = ImageFont.load_default(size * FINE)
    draw.text(at, text, fill=INK, anchor=anchor, font=font, stroke_width=2 * FINE, stroke_fill=PAPER)


def _legible(color: str) -> str:
    """Return a colour that is seen on white."""
    red, green, blue = ImageColor.getrgb(color)[:3]
    bright = 0.299 * red + 0.587 * green + 0.114 * blue
    factor = min(1.0, LIGHTEST / max(bright, 1.0))
    return "#{:02x}{:02x}{:02x}".format(*(int(channel * factor) for channel in (red, green, blue)))
