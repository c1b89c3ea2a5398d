"""Averages of 2**k x 2**k pixels of an image, which tiles of the screen show. Pillow makes them several times faster
than `Resampled`, whose sums are exact: here they are for looking at."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tilepipe.arrays import Pixels
from tilepipe.box import Box
from tilepipe.sources.base import Source

Averages = tuple[list[NDArray[np.number]], NDArray[np.bool_] | None]
"""One or three bands (height, width), and which of their pixels are valid; None if all are."""


def shown_bands(count: int) -> list[int]:
    """Return the indices of the bands that are shown: the first three, or the first one."""
    return [0, 1, 2] if count >= 3 else [0]


def averages(source: Source, box: Box, times: int, bands: list[int]) -> Averages:
    """Return averages of the valid ones of 2**times x 2**times pixels each, for `box` of the result's own pixels.

    uint8 bands stay uint8 and are rounded; others become float32. A pixel is valid if it covers a valid pixel, and 0 if
    it does not. Raises `InputError` if the source cannot be read.
    """
    part = Box(box.y0 << times, box.x0 << times, box.y1 << times, box.x1 << times)
    pixels, valid = source.read(part)[bands], source.valid(part)  # readers keep the mask of what was read last
    if valid is None and pixels.dtype == np.uint8:
        # Each band is a picture of its own: bands lie one after the other, and turning them round takes longer.
        return [_reduced(band, times) for band in pixels], None
    return _of_valid(pixels, valid, times)


def _of_valid(pixels: Pixels, valid: NDArray[np.bool_] | None, times: int) -> Averages:
    if valid is None:
        found: list[NDArray[np.number]] = [_reduced(band.astype(np.float32), times) for band in pixels]
        return found, None
    weight = _reduced(valid.astype(np.float32), times)
    there = weight > 0
    weight = np.maximum(weight, np.finfo(np.float32).tiny)
    found = [_reduced(np.where(valid, band, 0).astype(np.float32), times) / weight for band in pixels]
    if pixels.dtype == np.uint8:
        found = [np.floor(band + 0.5).astype(np.uint8) for band in found]
    return found, None if there.all() else there


def _reduced(band: NDArray[np.number], times: int) -> NDArray[np.number]:
    return np.asarray(Image.fromarray(band).reduce(1 << times)) if times else band
