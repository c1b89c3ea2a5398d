"""Fit: whether an image suits a model, found before any work: pixel size, brightness, sizes that nobody means.

A hopeless case is a refusal, what is likely wrong a warning, what is worth knowing a note. Every run says them once at
its head; `plan` prints them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tilepipe.arrays import DType
from tilepipe.errors import InputError
from tilepipe.models.card import ModelCard
from tilepipe.planning.settings import Request
from tilepipe.sources.base import Resolution, Source
from tilepipe.sources.sample import SIDE, fill_value, sample_of
from tilepipe.text import setting

WARNED, REFUSED = 2.0, 8.0
"""Times that the image's pixels may be larger than those of the model, until it is said, and until it is refused."""
USUAL = {"um": (0.05, 100.0), "m": (1e-3, 1000.0)}
"""Pixel sizes of slides and of rasters, by unit; others are noted."""
LARGE = 64.0
"""Times that the image's pixels may be smaller than those of the model until that is noted."""
DARK = 0.2
"""Share of the model's mean below which half of the pixels are dark."""
UNLIKE = 1.5
"""Deviations of the card that dark pixels lie below its mean, at least."""
OUTSIDE = 2.0
"""Deviations of the card beyond which nearly all pixels of another range lie."""


@dataclass(frozen=True)
class Finding:
    """Something about an image and a model that a user should know."""

    severity: Literal["note", "warning"]
    """How much it matters; what ends a run is no finding but an error."""
    text: str
    """One sentence, with the numbers and what to type."""

    def __str__(self) -> str:
        return f"{self.severity}: {self.text}"


def check_fit(source: Source, card: ModelCard, request: Request, size: Resolution | None) -> tuple[Finding, ...]:
    """Return what does not fit between an image at full resolution, a model and settings; a few patches are read.

    `size` is that of the image's pixels; None if nobody says and the model takes any. Raises `InputError` for pixels
    that are hopelessly large.
    """
    found = () if size is None else tuple(_of_size(source, card, size, request))
    pixels = sample_of(source)
    return (*found, *_of_brightness(source, card, pixels), *_of_fill(source, request, pixels), *_of_output(card))


def _of_size(source: Source, card: ModelCard, size: Resolution, request: Request) -> Iterator[Finding]:
    """Find pixels much larger than those of the model, or of a size that nobody means."""
    own = source.resolution
    if request.pixel_size and own is not None and own.unit == size.unit:
        apart = max(size.x / own.x, own.x / size.x, size.y / own.y, own.y / size.y)
        if apart > WARNED:
            yield Finding(
                "note", f"{source.name} says {own}, `pixel_size` says {size}, {apart:.3g} times as much or less"
            )
    if card.resolution is None:
        low, high = USUAL.get(size.unit, (0.0, np.inf))
        if not (low <= min(size.x, size.y) and max(size.x, size.y) <= high):
            yield Finding("note", f"pixels of {size} are unusual; give the right size with `pixel_size`")
        return
    coarser = max(size.x, size.y) / card.resolution
    finer = card.resolution / min(size.x, size.y)
    pixels = f"{source.name} has {size}, model {card.name} works at {card.resolution:g} {card.unit}/px"
    if coarser > REFUSED and not request.force_resolution:
        raise InputError(
            f"{pixels}: pixels {coarser:.3g} times as large do not show what it was trained on. Take a finer image or "
            f"another model; if the file says a wrong size, give the right one with `pixel_size` (in {card.unit}); "
            f"{setting(force_resolution=True)} runs it all the same",
        )
    elif coarser > WARNED:
        yield Finding("warning", f"{pixels}: pixels {coarser:.3g} times as large are enlarged, and labels may be poor")
    elif finer > LARGE:
        yield Finding("note", f"{pixels}: {finer:.3g} of its pixels per axis are averaged to one")


def _of_brightness(source: Source, card: ModelCard, sample: NDArray[np.float64] | None) -> Iterator[Finding]:
    """Find images that are dark where the model expects bright ones, or whose values have another range."""
    if sample is None or not card.mean or not card.std or source.shape[0] != card.bands:
        return
    pixels = _without_borders(sample, source.dtype)
    if pixels is None:
        return
    mean, std = np.array(card.mean), np.array(card.std)
    low, middle, high = np.percentile(pixels, (1, 50, 99), axis=1)
    expected = f"model {card.name} expects about {_numbers(mean)} (deviation {_numbers(std)})"
    seen = f"{source.name} holds {_numbers(middle)} (median of the bands, in a sample)"
    if (high < mean - OUTSIDE * std).all() or (low > mean + OUTSIDE * std).all():
        yield Finding(
            "note", f"{seen} and {expected}: the values have another range; scale the image or correct the card"
        )
    elif (middle < DARK * mean).all() and (middle < mean - UNLIKE * std).all():
        yield Finding(
            "note",
            f"{seen} and {expected}: a dark background where it was trained on a bright one, as for fluorescence",
        )


def _of_fill(source: Source, request: Request, sample: NDArray[np.float64] | None) -> Iterator[Finding]:
    """Find a value that looks like one for no data and is read as image, where nobody said what is image data."""
    if request.mask == "none" or request.mask.startswith("value:"):
        return
    if found := fill_value(source, sample):
        value = f"{found.value:.9g}"
        by_mask = setting(mask=f"value:{value}")
        remedy = f"{by_mask}, or in the file: gdal_edit.py -a_nodata {value} {source.name}"
        yield Finding("note", found.said(source.name, remedy))


def _of_output(card: ModelCard) -> Iterator[Finding]:
    if card.output == "probabilities":
        yield Finding("note", f"model {card.name} gives probabilities, which are blended as they are")
    elif card.output == "labels":
        yield Finding("note", f"model {card.name} gives labels and no scores: nothing is promised about seams")


def _without_borders(pixels: NDArray[np.float64], dtype: DType) -> NDArray[np.float64] | None:
    """Return the pixels that are neither black nor, in whole numbers, white; None for too few."""
    keep = (pixels != 0).any(0)
    if dtype.kind in "iu":
        keep &= (pixels != np.iinfo(dtype).max).any(0)
    return pixels[:, keep] if keep.sum() >= SIDE else None


def _numbers(values: NDArray[np.float64]) -> str:
    shown = ", ".join(f"{value:.3g}" for value in values[:4])
    return f"{shown}{', ...' if len(values) > 4 else ''}"
