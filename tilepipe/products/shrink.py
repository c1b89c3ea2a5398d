"""A label map and its image are made small enough for a picture; they are read in pieces of bounded size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tilepipe.arrays import Pixels
from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.products.label_map import LabelMap
from tilepipe.sources.base import Source
from tilepipe.sources.resample import Resampled

PIECE = 2048
"""Number of pixels per axis that are read of the label map at once; more if a pixel of the picture covers more."""
DAMAGED_PIECES = 32
"""Number of pieces per axis in which an image is read for a picture if a part of it is damaged."""
PAPER = 255
"""Grey value of pixels without image data."""


def picture_shape(labels: LabelMap, most: int, least: int) -> tuple[int, int]:
    """Return (height, width) of a picture of the map, its longer side at most `most` pixels.

    A small map is enlarged by a whole number, as far as its longer side stays within `least`.
    """
    height, width = labels.shape
    longer = max(height, width)
    if longer > most:
        return max(1, round(height * most / longer)), max(1, round(width * most / longer))
    zoom = max(1, least // longer)
    return height * zoom, width * zoom


def shrunk_colours(labels: LabelMap, shape: tuple[int, int], clear: frozenset[int]) -> NDArray[np.uint8]:
    """Return the mean colour of the labels in each pixel of a picture, (height, width, 4).

    The first three channels are red, green and blue times the fourth channel over 255. The fourth is the part of the
    pixel that is not clear, from 0 to 255; nodata and the classes `clear` are clear.
    """
    # Every value up to nodata can be looked up, so one that has no class is clear and no error.
    table = np.zeros((labels.legend.nodata + 1, 4), np.uint8)
    table[: len(labels.legend.palette), :3] = labels.legend.palette
    table[: len(labels.legend.palette), 3] = 255
    table[list(clear)] = 0
    small = min(labels.shape[0], shape[0]), min(labels.shape[1], shape[1])
    rows, columns = (np.arange(n + 1) * full // n for n, full in zip(small, labels.shape, strict=True))
    found = np.zeros((*small, 4), np.uint8)
    for cells in _pieces(rows, columns):
        y, x = rows[cells.y0 : cells.y1 + 1], columns[cells.x0 : cells.x1 + 1]
        values = labels.read(Box(int(y[0]), int(x[0]), int(y[-1]), int(x[-1])))
        areas = np.outer(np.diff(y), np.diff(x))
        for channel in range(4):
            sums = np.add.reduceat(table[:, channel][values], y[:-1] - y[0], axis=0, dtype=np.uint32)
            sums = np.add.reduceat(sums, x[:-1] - x[0], axis=1, dtype=np.int64)
            found[cells.y0 : cells.y1, cells.x0 : cells.x1, channel] = (2 * sums + areas) // (2 * areas)
    return found.repeat(shape[0] // small[0], axis=0).repeat(shape[1] // small[1], axis=1)


def _pieces(rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Iterator[Box]:
    """Yield boxes of picture pixels that cover the picture; `rows` and `columns` are the edges of its pixels."""
    steps = [max(1, PIECE * (len(edges) - 1) // int(edges[-1])) for edges in (rows, columns)]
    for y in range(0, len(rows) - 1, steps[0]):
        for x in range(0, len(columns) - 1, steps[1]):
            yield Box(y, x, min(y + steps[0], len(rows) - 1), min(x + steps[1], len(columns) - 1))


def shrunk_image(source: Source, labels: LabelMap, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the part of the image that the label map covers as a picture, (height, width, 3).

    The first three bands stand for red, green and blue. uint8 bands stay as they are; other bands are stretched between
    their 2nd and 98th percentile. An image with fewer bands is grey. The image's own overviews are used. Pixels without
    data are white.
    """
    _, height, width = source.shape
    small, spans = [], []
    for full, start, scale, size, wanted in zip(
        (height, width), labels.origin, labels.scale, labels.shape, shape, strict=True
    ):
        shrink = min(1.0, wanted / (size * scale))
        small.append(max(1, math.ceil(full * shrink)))
        spans.append((start * small[-1] / full, min((start + size * scale) * small[-1] / full, small[-1])))
    (y0, y1), (x0, x1) = spans
    hull = Box(math.floor(y0), math.floor(x0), math.ceil(y1), math.ceil(x1))
    resampled = Resampled(source, *small)
    colours = rgb_of(*_readable(resampled, hull))
    part = (x0 - hull.x0, y0 - hull.y0, x1 - hull.x0, y1 - hull.y0)
    enlarged = shape[0] > hull.height
    # Enlarged pixels stay squares, as those of the labels beside them.
    how = Image.Resampling.NEAREST if enlarged else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(colours).resize(shape[::-1], how, box=part))


def _readable(source: Source, box: Box) -> tuple[Pixels, NDArray[np.bool_] | None]:
    """Return the pixels of a box and which of them hold data; a damaged place of the image holds none.

    Raises `InputError` if no part of the box can be read.
    """
    try:
        return source.read(box), source.valid(box)
    except InputError as error:
        pixels, there = np.zeros((source.shape[0], *box.shape), source.dtype), np.zeros(box.shape, bool)
        # The run has labelled what lies around the damage, so the picture shows it too.
        step = max(1, max(box.shape) // DAMAGED_PIECES)
        for y in range(box.y0, box.y1, step):
            for x in range(box.x0, box.x1, step):
                piece = Box(y, x, min(y + step, box.y1), min(x + step, box.x1))
                at = piece.slices_in(box)
                with suppress(InputError):
                    pixels[:, *at] = source.read(piece)
                    valid = source.valid(piece)
                    there[at] = True if valid is None else valid
        if not there.any():
            raise error
        return pixels, there


def rgb_of(pixels: Pixels, valid: NDArray[np.bool_] | None) -> NDArray[np.uint8]:
    """Return pixels (bands, height, width) as colours (height, width, 3), as `shrunk_image` shows them."""
    pixels = pixels[[0, 1, 2] if len(pixels) >= 3 else [0, 0, 0]]
    there = np.ones(pixels.shape[1:], bool) if valid is None else valid
    if pixels.dtype.kind == "f":
        there = there & np.isfinite(pixels).all(0)
    if pixels.dtype != np.uint8:
        low, high = np.percentile(pixels[:, there], (2, 98)) if there.any() else (0.0, 1.0)
        # An image of one value has no range to be stretched.
        scaled = (pixels.astype(np.float64) - low) * (255 / max(high - low, 1e-9))
        pixels = np.clip(np.nan_to_num(scaled), 0, 255).astype(np.uint8)
    return np.where(there, pixels, PAPER).astype(np.uint8).transpose(1, 2, 0).copy()
