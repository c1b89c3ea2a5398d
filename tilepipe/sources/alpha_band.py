"""Alpha band: says whether a band marks where there is image data, or is an image band that a program flagged."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tilepipe.box import Box
from tilepipe.sources.bands import Band, bands_of, two_values, with_bands
from tilepipe.sources.base import Source
from tilepipe.text import setting

PATCH = 256
"""Side of the patches in which a band is looked at [pixels]."""
PATCHES = 8
"""Number of patches per axis that are looked at; a small band is looked at whole."""


def alphas(bands: Sequence[Band]) -> list[int]:
    """Return the numbers, from 1, of the bands that are flagged as alpha."""
    return [k for k, band in enumerate(bands, 1) if band.meaning == "alpha"]


def cleared(source: Source, bands: Sequence[Band], read: tuple[int, ...]) -> tuple[str, ...]:
    """Return sentences about the pixels that an alpha band of many values takes out; () if it takes out none.

    The alpha band is not among the bands that are `read`.
    """
    alpha = alphas(bands)
    if len(alpha) != 1 or alpha[0] in read or is_two_valued(source, alpha[0]):
        return ()
    return (
        f"band {alpha[0]} is flagged as alpha and holds other values than 0 and 255; pixels where it is 0 hold no "
        f"data. If it is an image band, for instance near infrared: {setting(mask='none')} takes them for data",
    )


def alpha_of(source: Source) -> str | None:
    """Return which band is flagged as alpha and what this band holds, in words; None if no band is."""
    alpha = alphas(bands_of(source))
    if not alpha:
        said: str | None = getattr(source, "alpha", None)
        return said
    if is_two_valued(source, alpha[0]):
        return f"band {alpha[0]}, holds only 0 and 255: where there is image data"
    return f"band {alpha[0]}, holds other values than 0 and 255: it may be an image band, for instance near infrared"


def is_two_valued(source: Source, number: int, *, seen: bool = False) -> bool:
    """Return whether a band holds only 0 and 255 in patches spread over it; with `seen`, not 0 alone."""
    band = with_bands(source, [number])
    height, width = band.shape[1:]
    allowed, opaque = two_values(band.dtype), False
    for y in _starts(height):
        for x in _starts(width):
            values = band.read(Box(y, x, min(y + PATCH, height), min(x + PATCH, width)))
            if not np.isin(values, allowed).all():
                return False
            opaque = opaque or bool(values.any())
    # A band of zeros alone would mark the whole image as nodata.
    return opaque or not seen


def _starts(size: int) -> list[int]:
    """Return where patches begin along an axis: next to each other if they then cover the axis, else spread evenly."""
    if size <= PATCH * PATCHES:
        return list(range(0, size, PATCH))
    return [k * (size - PATCH) // (PATCHES - 1) for k in range(PATCHES)]
