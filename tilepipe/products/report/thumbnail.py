"""A thumbnail shows the labels of one image over it, small enough for a page of many."""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from tilepipe.errors import TilepipeError
from tilepipe.products.label_map import LabelMap
from tilepipe.products.quicklook import clear_classes, edges, on_paper, over
from tilepipe.products.report.page import jpeg_uri
from tilepipe.products.shrink import picture_shape, shrunk_colours, shrunk_image
from tilepipe.sources.base import Source
from tilepipe.sources.shown import Shown

MOST, LEAST = 320, 160
"""Longer side of a thumbnail in pixels: the largest, and the size to which small maps are enlarged."""
QUALITY = 80
"""Quality of the JPEG."""


def thumbnail(labels: LabelMap, image: Source | None) -> str:
    """Return the labels over their image as a data: URI; alone if there is no image, or it cannot be read.

    `labels` may be a smaller version.
    """
    shape = picture_shape(labels, MOST, LEAST)
    with suppress(TilepipeError):  # an image with a damaged place has labels all the same
        if image is not None:
            below = shrunk_image(Shown(image), labels, shape)
            colours = shrunk_colours(labels, shape, clear_classes(labels.legend))
            return jpeg_uri(np.ascontiguousarray(over(below, colours, edges(colours))), QUALITY)
    return jpeg_uri(on_paper(shrunk_colours(labels, shape, frozenset())), QUALITY)
