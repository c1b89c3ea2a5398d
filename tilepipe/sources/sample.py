"""A sample of an image's pixels, and values in it that may stand for no data without the file saying so."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.sources.base import Source

PLACES, SIDE = ((1, 3), (3, 7), (5, 1), (7, 5)), 64
"""Patches that are looked at: (y, x) of their middle [eighths of the image], and their side [pixels]."""
WHOLE = 512
"""Largest side of an image, or of its smallest level, that is looked at whole [pixels]."""
ENOUGH = 2048
"""Number of pixels that tell the range of an image."""
MANY = 16384
"""Number of pixels that show a value that is repeated."""
OFTEN = 0.005
"""Smallest share of a sample for a value that may stand for no data."""
APART = 5.0
"""Smallest distance of such a value from all other values, as a multiple of their spread."""


@dataclass(frozen=True)
class FillValue:
    """A value that is repeated far from all others, as -9999 among reflectances."""

    band: int
    """Number of the band, counted from 1."""
    value: float
    share: float
    """Share of the sample that holds the value, 0 to 1."""
    low: float
    """Lower end of the other values: nearly all of them lie between `low` and `high`."""
    high: float
    alone: bool
    """Whether other bands hold other values in these pixels: such pixels are image data, whatever the file declares."""

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
    """Pixels that hold image data, (bands, pixels)."""
    share: float
    """Share of the pixels looked at that hold image data, 0 to 1."""


def sample_of(source: Source) -> Sample | None:
    """Return pixels of some patches of an image; None for an image that is computed.

    Patches that cannot be read are left out: the run reports them.
    """
    # Looking at such an image would compute it.
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
        # Of 8 bits only the range is asked for, which fewer pixels tell as well.
        every = max(1, isqrt(box.area // (ENOUGH if pixels.dtype == np.uint8 else MANY)))
        pixels, valid = pixels[:, ::every, ::every], None if valid is None else valid[::every, ::every]
        flat = pixels.reshape(bands, -1)
        looked += flat.shape[1]
        keep = np.ones(flat.shape[1], bool) if valid is None else valid.reshape(-1)
        if pixels.dtype.kind == "f":
            keep = keep & np.isfinite(flat).all(0)
        parts.append((flat if keep.all() else flat[:, keep]).astype(np.float64))
    data: NDArray[np.float64] = np.concatenate(parts, axis=1)
    return Sample(data, data.shape[1] / looked if looked else 1.0)


def fill_value(source: Source, sample: Sample | None) -> FillValue | None:
    """Return a value that seems to stand for no data, of the first band that has such a value; None if no band has.

    An image of 8 bits has no such value: 0 and 255 are ordinary there.
    """
    if sample is None or source.dtype == np.uint8:
        return None
    for band, values in enumerate(sample.pixels, 1):
        # A value far from all others is the smallest or the largest one.
        for value in (values.min(), values.max()) if values.size else ():
            share = float((values == value).mean())
            # A band of one value has no others that this value could be far from.
            if share < OFTEN or share == 1:
                continue
            low, high = np.percentile(values[values != value], (1, 99))
            if max(low - value, value - high) > APART * (high - low) > 0:
                alone = bool((sample.pixels[:, values == value] != value).any())
                return FillValue(band, float(value), share, float(low), float(high), alone)
    return None
