"""Pictures show a label map, alone or over its image, with a legend and a scale bar; they are not for measuring."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy
from numpy.typing import NDArray
from PIL import Image

from tilepipe.errors import UsageError
from tilepipe.products.label_map import LabelMap, Legend
from tilepipe.products.material import Material
from tilepipe.products.numbers import Numbers
from tilepipe.products.picture_page import Colour, Colours, ScaleBar, page_of
from tilepipe.products.shrink import picture_shape, shrunk_colours, shrunk_image
from tilepipe.products.staging import staged
from tilepipe.sources.base import Source

MOST, LEAST = 2000, 640
"""Longer side of a picture in pixels: the largest, and the size to which small maps are enlarged."""
OPACITY = 0.35
"""Part of the image, from 0 to 1, that the colour of a class hides, except at the edges of the class."""
EDGE = 64
"""Difference between the colours of neighbouring pixels, from 0 to 255, that makes an edge."""
THICK = 800
"""Pixels of the longer side per pixel that is added to an edge, which is at least one pixel thick."""
GAP = 12
"""Distance in pixels between two pictures."""

BAND = 256
"""Number of rows of a picture that are mixed at once."""


def write_png(material: Material, path: Path) -> None:
    """Write the labels as a PNG at the new path `path`, at most `MOST` pixels per side; nodata is white.

    Raises `StorageError` if the disk is full, `UsageError` if `path` exists.
    """
    labels = material.map
    picture = on_paper(shrunk_colours(labels, picture_shape(labels, MOST, LEAST), frozenset()))
    save_page(page_of(picture, _legend(labels, material.numbers()), ScaleBar.of(labels, picture.shape[1])), path)


def write_overlay(material: Material, path: Path) -> None:
    """Write the image with the labels over it as a PNG at the new path `path`, at most `MOST` pixels per side.

    A class 0 that is called 'background' or 'other' is left clear. Raises `UsageError` without an image.
    """
    labels = material.map
    if material.image is None:
        raise UsageError(f"{path.name} shows labels over their image, and none is given; name it with `image`")
    shape = picture_shape(labels, MOST, LEAST)
    clear = clear_classes(labels.legend)
    colours = shrunk_colours(labels, shape, clear)
    picture = over(shrunk_image(material.image, labels, shape), colours, edges(colours))
    save_page(page_of(picture, _legend(labels, material.numbers(), clear), ScaleBar.of(labels, shape[1])), path)


def write_beside(source: Source, labels: LabelMap, path: Path, size: int = 800) -> None:
    """Write a PNG at the new path `path`: on the left the part of the image with labels, on the right the labels.

    Each picture has at most `size` pixels per side.
    """
    shape, legend = picture_shape(labels, size, 1), labels.legend
    left, right = shrunk_image(source, labels, shape), on_paper(shrunk_colours(labels, shape, frozenset()))
    picture = np.concatenate([left, np.full((shape[0], GAP, 3), 255, np.uint8), right], axis=1)
    names = list(zip(legend.classes, legend.palette, strict=True))
    save_page(page_of(picture, names, ScaleBar.of(labels, shape[1])), path)


def clear_classes(legend: Legend) -> frozenset[int]:
    """Return the classes that hide nothing of the image: class 0, if it is called 'background' or 'other'."""
    return frozenset() if legend.clear is None else frozenset({legend.clear})


def edges(colours: Colours) -> NDArray[np.bool_]:
    """Return the edge of each class, (height, width): its pixels beside clear pixels or pixels of another colour."""
    there = colours[..., 3] >= 128
    edges = np.zeros_like(there)
    for axis in (0, 1):
        last = colours.shape[axis] - 1
        # The difference of two bytes would wrap around below 0.
        near, far = (np.take(colours, range(start, start + last), axis).astype(np.int16) for start in (0, 1))
        # Colours are compared and not classes: in a shrunk picture a pixel is a mean over several classes.
        differs = np.abs(near - far).max(-1) > EDGE
        for start in (0, 1):
            edges[(slice(None),) * axis + (slice(start, start + last),)] |= differs
    edges &= there
    thicker = max(there.shape) // THICK
    return scipy.ndimage.binary_dilation(edges, iterations=thicker, mask=there) if thicker else edges


def on_paper(colours: Colours) -> Colours:
    """Return colours over white, as the opaque pixels of a picture."""
    return over(np.full((*colours.shape[:2], 3), 255, np.uint8), colours, np.ones(colours.shape[:2], bool))


def over(below: Colours, colours: Colours, opaque: NDArray[np.bool_]) -> Colours:
    """Return `below` under colours multiplied by their fourth channel; outside `opaque` they count by `OPACITY`."""
    page = np.empty_like(below)
    for y in range(0, len(page), BAND):
        band = slice(y, y + BAND)
        over = colours[band] * np.where(opaque[band], 1.0, OPACITY)[..., None]
        page[band] = np.floor(below[band] * (1 - over[..., 3:] / 255) + over[..., :3] + 0.5)
    return page


def _legend(labels: LabelMap, numbers: Numbers, clear: frozenset[int] = frozenset()) -> list[tuple[str, Colour]]:
    """Return name, share and colour of each class that has pixels and is not clear."""
    return [
        (f"{one.name} {100 * one.share:.1f} %", labels.legend.palette[one.value])
        for one in numbers.classes
        if one.pixels and one.value not in clear
    ]


def save_page(page: Image.Image, path: Path) -> None:
    """Write a page as a PNG at the new path `path`. Raises `StorageError` if the disk is full."""
    with staged(path) as part:
        page.save(part, "PNG", optimize=True)


def parse_png(path: Path) -> None:
    """Read a PNG from end to end. Raises `OSError`, `ValueError` or `SyntaxError` if it is none."""
    with Image.open(path, formats=["PNG"]) as picture:
        picture.load()
