"""A sample of an image's pixels, and values in it that may stand for no data without the file saying so."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.sources.base import Source

PLACES, SIDE = ((1, 3), (3, 7), (5, 1), (7, 5)), 64
"""Patches that are looked at: (y, x) of their middle in eighths of the image; their side in pixels."""
WHOLE = 512
"""Side in pixels up to which an image, or its smallest level, is looked at whole."""
OFTEN = 0.005
"""Share of a sample that a value takes, at least, to stand for something."""
APART = 5.0
"""Times the spread of all other values that such a value lies beyond them, at least."""


@dataclass(frozen=True)
class FillValue:
    """A value that is repeated far from all others, as -9999 among reflectances."""

    band: int
    """Counted from 1."""
    value: float
    share: float
    """Of the sample, 0 to 1."""
    low: float
    """Of the other values: nearly all lie between this and `high`."""
    high: float
    alone: bool
    """Whether other bands hold other values there: such pixels count as image data, whatever the file declares."""

    def said(self, name: str, remedy: str) -> str:
        """Return a sentence about the image `name`; `remedy` is what to type."""
        told = (
            f"band {self.band} of {name} holds {self.value:.9g} in {self.share:.1%} of a sample, far from its other "
            f"values ({self.low:.3g} to {self.high:.3g}), and it is read as image"
        )
        if self.alone:
            return f"{told}, as other bands hold data there; if it stands for no data, write it to all bands there"
        return f"{told}; if it stands for no data: {remedy}"


@dataclass(frozen=True)
class Sample:
    """Pixels of some patches of an image."""

    pixels: NDArray[np.float64]
    """Those that hold image data, (bands, pixels)."""
    share: float
    """Share of the pixels looked at that hold image data, 0 to 1."""


def sample_of(source: Source) -> Sample | None:
    """Return pixels of some patches of an image; None for an image that is computed.

    What cannot be read is left out: the run says that.
    """
    if getattr(source, "lazy", False):
        return None
    small = source.coarser(WHOLE // 2, WHOLE // 2)
    bands, height, width = small.shape
    boxes = [Box.of_shape(height, width)]
    if max(height, width) > WHOLE:
        whole = boxes[0]
        corners = [(max(0, y * height // 8 - SIDE // 2), max(0, x * width // 8 - SIDE // 2)) for y, x in PLACES]
        boxes = [box for y, x in corners if (box := Box(y, x, y + SIDE, x + SIDE) & whole) is not None]
    looked = 0
    parts: list[NDArray[np.float64]] = [np.empty((bands, 0))]
    for box in boxes:
        try:
            pixels, valid = small.read(box), small.valid(box)
        except InputError:
            continue
        flat = pixels.reshape(bands, -1)
        keep = np.isfinite(flat).all(0) if pixels.dtype.kind == "f" else np.ones(flat.shape[1], bool)
        if valid is not None:
            keep &= valid.reshape(-1)
        looked += keep.size
        parts.append(flat[:, keep].astype(np.float64))
    data: NDArray[np.float64] = np.concatenate(parts, axis=1)
    return Sample(data, data.shape[1] / looked if looked else 1.0)


def fill_value(source: Source, sample: Sample | None) -> FillValue | None:
    """Return a value that looks like one for no data, of the first band that has one; None if none has.

    Eight bits hold none: 0 and 255 are ordinary there.
    """
    if sample is None or source.dtype == np.uint8:
        return None
    for band, values in enumerate(sample.pixels, 1):
        for value in (values.min(), values.max()) if values.size else ():
            share = float((values == value).mean())
            if share < OFTEN or share == 1:
                continue
            low, high = np.percentile(values[values != value], (1, 99))
            if max(low - value, value - high) > APART * (high - low) > 0:
                alone = bool((sample.pixels[:, values == value] != value).any())
                return FillValue(band, float(value), share, float(low), float(high), alone)
    return None
