"""Fit: whether an image suits a model, found before any work: pixel size, brightness, sizes that nobody means.

A hopeless case is a refusal, what is likely wrong a warning, what is worth knowing a note. Every run says them once at
its head; `plan` prints them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.models.card import ModelCard
from tilepipe.shapes import resolution_of
from tilepipe.sources.base import Resolution, Source

WARNED, REFUSED = 2.0, 8.0
"""Times that the image's pixels may be larger than those of the model, until it is said, and until it is refused."""
USUAL = {"um": (0.05, 100.0), "m": (1e-3, 1000.0)}
"""Pixel sizes of slides and of rasters, by unit; others are noted."""
LARGE = 64.0
"""Times that the image's pixels may be smaller than those of the model until that is noted."""
PLACES, SIDE = ((1, 3), (3, 7), (5, 1), (7, 5)), 64
"""Windows whose brightness is looked at: (y, x) of their middle in eighths of the image; their side in pixels."""
WHOLE = 512
"""Side in pixels up to which an image, or its smallest level, is looked at whole."""
DARK = 0.2
"""Share of the model's mean below which half of the pixels are dark."""
UNLIKE = 1.5
"""Deviations of the card that dark pixels lie below its mean, at least."""
OUTSIDE = 2.0
"""Deviations of the card beyond which nearly all pixels of another range lie."""


@dataclass(frozen=True)
class Finding:
    """Something about an image and a model that a user should know."""

    severity: Literal["note", "warning", "refusal"]
    """How much it matters: a refusal ends the run."""
    text: str
    """One sentence, with the numbers and what to type."""

    def __str__(self) -> str:
        return f"{self.severity}: {self.text}"


def fitting(source: Source, card: ModelCard, settings: Mapping[str, Any]) -> tuple[Finding, ...]:
    """Return what `check_fit` finds but refusals. Raises `InputError` for the first of those."""
    found = check_fit(source, card, settings)
    for finding in found:
        if finding.severity == "refusal":
            raise InputError(finding.text)
    return tuple(found)


def check_fit(source: Source, card: ModelCard, settings: Mapping[str, Any]) -> list[Finding]:
    """Return what does not fit between an image at full resolution, a model and settings; a few windows are read.

    Raises `InputError` where the pixel size that the model needs is not known or of another unit.
    """
    resolution = resolution_of(source, card, settings.get("pixel_size"))
    found = [] if resolution is None else list(_of_size(source, card, resolution, settings))
    if not any(finding.severity == "refusal" for finding in found):
        found += _of_brightness(source, card)
        found += _of_output(card)
    return found


def _of_size(source: Source, card: ModelCard, size: Resolution, settings: Mapping[str, Any]) -> Iterator[Finding]:
    """Find pixels much larger than those of the model, or of a size that nobody means."""
    own = source.resolution
    if settings.get("pixel_size") and own is not None and own.unit == size.unit:
        apart = max(size.x / own.x, own.x / size.x, size.y / own.y, own.y / size.y)
        if apart > WARNED:
            yield Finding(
                "note", f"{source.name} says {own}, --pixel-size says {size}, {apart:.3g} times as much or less"
            )
    if card.resolution is None:
        low, high = USUAL.get(size.unit, (0.0, np.inf))
        if not (low <= min(size.x, size.y) and max(size.x, size.y) <= high):
            yield Finding("note", f"pixels of {size} are unusual; give the right size with --pixel-size")
        return
    coarser = max(size.x, size.y) / card.resolution
    finer = card.resolution / min(size.x, size.y)
    pixels = f"{source.name} has {size}, model {card.name} works at {card.resolution:g} {card.unit}/px"
    if coarser > REFUSED and not settings.get("force_resolution"):
        yield Finding(
            "refusal",
            f"{pixels}: pixels {coarser:.3g} times as large do not show what it was trained on. Take a finer image or "
            f"another model; if the file says a wrong size, give the right one with --pixel-size (in {card.unit}); "
            "--force-resolution runs it all the same",
        )
    elif coarser > WARNED:
        yield Finding("warning", f"{pixels}: pixels {coarser:.3g} times as large are enlarged, and labels may be poor")
    elif finer > LARGE:
        yield Finding("note", f"{pixels}: {finer:.3g} of its pixels per axis are averaged to one")


def _of_brightness(source: Source, card: ModelCard) -> Iterator[Finding]:
    """Find images that are dark where the model expects bright ones, or whose values have another range."""
    if not card.mean or not card.std or source.shape[0] != card.bands:
        return
    pixels = _sampled(source)
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


def _of_output(card: ModelCard) -> Iterator[Finding]:
    if card.output == "probabilities":
        yield Finding("note", f"model {card.name} gives probabilities, which are blended as they are")
    elif card.output == "labels":
        yield Finding("note", f"model {card.name} gives labels and no scores: nothing is promised about seams")


def _sampled(source: Source) -> NDArray[np.float64] | None:
    """Return (bands, pixels) of some windows, without what is no image data, black or white; None for too few.

    Lazy arrays are not computed for it, and what cannot be read is left out: the run says that.
    """
    if getattr(source, "lazy", False):
        return None
    small = source.coarser(WHOLE // 2, WHOLE // 2)
    _, height, width = small.shape
    boxes = [Box.of_shape(height, width)]
    if max(height, width) > WHOLE:
        whole = boxes[0]
        corners = [(max(0, y * height // 8 - SIDE // 2), max(0, x * width // 8 - SIDE // 2)) for y, x in PLACES]
        boxes = [box for y, x in corners if (box := Box(y, x, y + SIDE, x + SIDE) & whole) is not None]
    parts = []
    for box in boxes:
        try:
            pixels, valid = small.read(box), small.valid(box)
        except InputError:
            continue
        flat = pixels.reshape(len(pixels), -1)
        keep = np.isfinite(flat).all(0) & (flat != 0).any(0) if pixels.dtype.kind == "f" else (flat != 0).any(0)
        if valid is not None:
            keep &= valid.reshape(-1)
        if pixels.dtype.kind in "iu":
            keep &= (flat != np.iinfo(pixels.dtype).max).any(0)
        parts.append(flat[:, keep].astype(np.float64))
    found = np.concatenate(parts, axis=1) if parts else np.empty((0, 0))
    return found if found.shape[1] >= SIDE else None


def _numbers(values: NDArray[np.float64]) -> str:
    shown = ", ".join(f"{value:.3g}" for value in values[:4])
    return f"{shown}{', ...' if len(values) > 4 else ''}"
