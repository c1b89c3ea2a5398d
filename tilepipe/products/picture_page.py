"""The legend and a scale bar stand below a picture of labels."""

from __future__ import annotations

import math
import unicodedata
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from tilepipe.products.label_map import LabelMap
from tilepipe.text import clean_line

PAPER, INK, FRAME = (255, 255, 255), (34, 34, 34), (150, 150, 150)
UNITS = {"m": (("km", 1e3), ("m", 1.0), ("cm", 1e-2)), "um": (("mm", 1e3), ("um", 1.0), ("nm", 1e-3))}
"""Units of a scale bar, the largest first, each with its size in the resolution's unit."""
NARROWEST = 320
"""Least width of a page in pixels."""
WIDE_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "arial.ttf", "Arial.ttf")
"""Fonts with letters beyond ASCII that the system may have; Pillow's own font has no such letters."""

Colours = NDArray[np.uint8]
Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class ScaleBar:
    """A scale bar of a picture."""

    text: str
    """Length of the bar in words."""
    pixels: int
    """Length of the bar in pixels of the picture."""

    @classmethod
    def of(cls, labels: LabelMap, width: int) -> ScaleBar:
        """Return the bar of a picture of labels that is `width` pixels wide: 1, 2 or 5 times a power of ten.

        The bar is at most a fifth of the picture, or 80 pixels, long. If the size of a pixel is unknown, the length is
        in pixels of the image.
        """
        size = labels.resolution
        each = labels.shape[1] / width * (size.x if size else labels.scale[1])
        return cls.at(each, size.unit if size else None, width)

    @classmethod
    def at(cls, each: float, unit: str | None, width: int) -> ScaleBar:
        """Return the bar of a picture of `width` pixels, each `each` metres (m) or micrometres (um) wide, or `each`
        pixels of the image (None)."""
        longest = max(width / 5, 80.0)
        power = 10.0 ** math.floor(math.log10(longest * each))
        length = max(times * power for times in (1, 2, 5) if times * power <= longest * each)
        units = UNITS[unit] if unit else (("px", 1.0),)
        name, one = next((known for known in units if length >= known[1]), units[-1])
        return cls(f"{length / one:g} {name}", max(1, round(length / each)))


def page_of(picture: Colours, legend: list[tuple[str, Colour]], bar: ScaleBar) -> Image.Image:
    """Return a picture (height, width, 3) with its legend below on the left and the scale bar on the right."""
    height, width = picture.shape[:2]
    size = min(28, max(14, width // 56))
    font, names = _drawable([name for name, _ in legend], size)
    # Pillow measures text by a pen, and a pen needs a picture.
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    wide = max(width, bar.pixels + 4 * size, NARROWEST)
    right = wide - size - bar.pixels
    places, x, row = [], size, 0
    for name in names:
        needed = 3 * size + math.ceil(measure.textlength(name, font))
        if x > size and x + needed > right - size:
            x, row = size, row + 1
        places.append((x, row))
        x += needed
    page = Image.new("RGB", (wide, height + (row + 1) * 2 * size + size), PAPER)
    page.paste(Image.fromarray(picture), ((wide - width) // 2, 0))
    pen = ImageDraw.Draw(page)
    for name, (_, colour), (x, row) in zip(names, legend, places, strict=True):
        y = height + size // 2 + row * 2 * size
        pen.rectangle((x, y + size // 4, x + size * 3 // 2, y + size * 5 // 4), fill=colour, outline=FRAME)
        pen.text((x + 2 * size, y), name, INK, font)
    y = height + size // 2
    pen.text((right + bar.pixels / 2, y), bar.text, INK, ImageFont.load_default(size), anchor="ma")
    pen.rectangle((right, y + size * 5 // 4, right + bar.pixels - 1, y + size * 5 // 4 + size // 5), fill=INK)
    return page


def _drawable(names: list[str], size: int) -> tuple[Font, list[str]]:
    """Return a font that has the letters of `names`, and the names; without such a font they become plain ASCII."""
    names = [clean_line(name) for name in names]
    if all(map(str.isascii, names)):
        return ImageFont.load_default(size), names
    for font in WIDE_FONTS:
        with suppress(OSError):
            return ImageFont.truetype(font, size), names
    # NFKD parts a letter from its accent, and the plain letter stays when the accent is left out.
    apart = [unicodedata.normalize("NFKD", name) for name in names]
    plain = ["".join(c if c.isascii() else "?" for c in name if not unicodedata.combining(c)) for name in apart]
    return ImageFont.load_default(size), plain
