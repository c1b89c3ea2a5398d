"""The pictures of a report: the image, and over it the labels and their edges, each as text inside the page."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tilepipe.errors import TilepipeError
from tilepipe.products.label_map import LabelMap
from tilepipe.products.material import Material
from tilepipe.products.picture_page import Colours
from tilepipe.products.quicklook import clear_classes, edges
from tilepipe.products.report.page import jpeg_uri, png_uri
from tilepipe.products.shrink import picture_shape, shrunk_colours, shrunk_image
from tilepipe.sources.base import Source
from tilepipe.sources.shown import Shown

MOST, LEAST = 1600, 1000
"""Longer side of the pictures in pixels: the largest, and the size to which small maps are enlarged."""
QUALITY = 86
"""Quality of the image's JPEG."""
MARKED = 2000
"""Largest number of failed tiles that are marked."""
PLACE = re.compile(r"rows (\d+) to (\d+), columns (\d+) to (\d+)")
"""Place of a failed tile in the sentence about it, in full-resolution pixels of the image."""


@dataclass(frozen=True)
class Rectangle:
    """A place in a picture, in pixels of the picture."""

    x: float
    y: float
    width: float
    height: float
    text: str
    """Words about the place."""


@dataclass(frozen=True)
class Picture:
    """The pictures of one label map; all have one size."""

    width: int
    """Width in pixels."""
    height: int
    """Height in pixels."""
    image: str
    """The image, as a data: URI; '' if the image is not at hand."""
    trouble: str
    """Reason why an image that is at hand cannot be shown; '' if there is none."""
    fill: str
    """Colours of the classes, as a data: URI; they are clear at nodata, and over an image at a class 0 called
    'background' or 'other'."""
    edges: str
    """The same along the edges of the classes alone."""
    clear: frozenset[int]
    """Classes that the pictures leave clear."""
    pixel: float
    """Size of a pixel of the picture in `unit`."""
    unit: str
    """Unit of `pixel`: 'm', 'um', or 'px' (full-resolution pixels of the image)."""
    failed: list[Rectangle]
    """Places of tiles that failed. Neighbouring tiles may have labelled a part of them."""


def picture_of(material: Material, failed: Iterable[str] = ()) -> Picture:
    """Return the pictures of a label map, which is read once; `failed` are sentences about tiles without labels."""
    labels = material.map
    shape = picture_shape(labels, MOST, LEAST)
    image, trouble = "", ""
    try:
        image = _image(material.image, labels, shape) if material.image is not None else ""
    # An image with a damaged place has labels everywhere else, and these have a report.
    except TilepipeError as error:
        trouble = str(error)
    clear = clear_classes(labels.legend) if image else frozenset[int]()
    colours = shrunk_colours(labels, shape, clear)
    fill = _straight(colours)
    outlined = np.where(edges(colours)[..., None], fill, np.uint8(0))
    size = labels.resolution
    return Picture(
        width=shape[1],
        height=shape[0],
        image=image,
        trouble=trouble,
        fill=png_uri(fill),
        edges=png_uri(outlined),
        clear=clear,
        pixel=labels.shape[1] / shape[1] * (size.x if size else labels.scale[1]),
        unit=size.unit if size else "px",
        failed=[place for sentence in list(failed)[:MARKED] if (place := _place(sentence, labels, shape))],
    )


def _image(image: Source, labels: LabelMap, shape: tuple[int, int]) -> str:
    # Overviews are good enough to look at; without them all of a large image would be read.
    return jpeg_uri(shrunk_image(Shown(image), labels, shape), QUALITY)


def _straight(colours: Colours) -> Colours:
    """Return colours that are not multiplied by their fourth channel, as PNG has them."""
    opaque = np.maximum(colours[..., 3:].astype(np.uint16), 1)
    straight = np.minimum((colours[..., :3].astype(np.uint16) * 255 + opaque // 2) // opaque, 255)
    return np.concatenate([straight.astype(np.uint8), colours[..., 3:]], axis=-1)


def _place(sentence: str, labels: LabelMap, shape: tuple[int, int]) -> Rectangle | None:
    """Return the part of the picture that a sentence is about; None if it names no place, or one outside."""
    found = PLACE.search(sentence)
    if found is None:
        return None
    ends = [int(text) for text in found.groups()]
    spans = []
    for (first, last), start, scale, full, wanted in zip(
        (ends[:2], ends[2:]), labels.origin, labels.scale, labels.shape, shape, strict=True
    ):
        low, high = ((min(max((end - start) / scale, 0), full)) * wanted / full for end in (first, last))
        spans.append((low, high - low))
    (y, height), (x, width) = spans
    return Rectangle(round(x, 2), round(y, 2), round(width, 2), round(height, 2), sentence) if width * height else None
