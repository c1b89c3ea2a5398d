"""This module checks whether an image suits a model, before any work; it makes the fit table's rows about the image.

A few patches of the image are read. An image with hopelessly large pixels is refused.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tilepipe.arrays import DType
from tilepipe.errors import InputError
from tilepipe.models.card import ModelCard
from tilepipe.planning.fit_row import FitRow
from tilepipe.planning.settings import Request
from tilepipe.sources.bands import Picked, read_of
from tilepipe.sources.base import Resolution, Source
from tilepipe.sources.sample import ENOUGH, SIDE, Sample, fill_value, sample_of
from tilepipe.sources.wrapped import unwrapped
from tilepipe.text import crs_name, setting

WARNED, REFUSED = 2.0, 8.0
"""Factors by which the image's pixels may be larger than the model's before a warning is given, and before the image is
refused."""
USUAL = {"um": (0.05, 100.0), "m": (1e-3, 1000.0)}
"""Usual pixel sizes of slides and of rasters, by unit; other sizes are noted."""
LARGE = 64.0
"""Factor by which the image's pixels may be smaller than the model's before a note is given."""
DARK = 0.2
"""Share of the model's mean below which half of the pixels are dark."""
UNLIKE = 1.5
"""Smallest distance of dark pixels below the card's mean (standard deviations of the card)."""
OUTSIDE = 2.0
"""Distance from the card's mean beyond which nearly all pixels of another range lie (standard deviations of the
card)."""


def check_fit(source: Source, card: ModelCard, request: Request, size: Resolution | None) -> tuple[FitRow, ...]:
    """Return how well an image at full resolution, a model and settings fit: one row or more per question.

    `size` is the size of the image's pixels; it is None if nobody says it and the model takes any. Raises `InputError`
    if the pixels are hopelessly large.
    """
    sample = sample_of(source)
    return (
        *_bands(source, card),
        *_scales(source),
        *(tuple(_of_brightness(source, card, sample)) or (FitRow("values", "ok", _values(source, sample)),)),
        *_pixel_size(source, card, request, size),
        _place(source),
        *(tuple(_of_fill(source, request, sample)) or (FitRow("nodata", "ok", _nodata(source, sample)),)),
        *_of_output(card),
    )


def _bands(source: Source, card: ModelCard) -> tuple[FitRow, ...]:
    """Return which bands are read, and which bands of the model they become."""
    # A source says this only if its bands were chosen for the model (see `with_picked`).
    picked: Picked = getattr(source, "picked", Picked())
    warning = "warning: "
    rows = [
        FitRow("bands", "warning" if note.startswith(warning) else "note", note.removeprefix(warning))
        for note in picked.notes
    ]
    names = ", ".join(card.band_names)
    read = ", ".join(f"{number} {band}" for number, band in read_of(source).items())
    return tuple(rows) or (FitRow("bands", "ok", f"{read}{f'; model {card.name} reads {names}' if names else ''}"),)


def _values(source: Source, sample: Sample | None) -> str:
    if sample is None or not sample.pixels.size:
        return f"{source.dtype}"
    return f"{source.dtype}, {sample.pixels.min():.6g} to {sample.pixels.max():.6g} in a sample"


def _scales(source: Source) -> Iterator[FitRow]:
    """Yield a row for an image that states a scale or an offset of its values, which are not applied."""
    stated = dict.fromkeys(pair for pair in getattr(unwrapped(source), "scales", ()) if pair != (1.0, 0.0))
    if stated:
        shown = ", ".join(f"{scale:.6g} * value + {offset:.6g}" for scale, offset in list(stated)[:4])
        yield FitRow(
            "values",
            "note",
            f"{source.name} states a scale of its values ({shown}), which is not applied: the model reads the values "
            f"as they are stored. gdal_translate -unscale -ot Float32 writes the others",
        )


def _place(source: Source) -> FitRow:
    """Return where the image lies; the labels take over this position."""
    where = source.georeference
    if where is None or (where.transform is None and not where.gcps):
        return FitRow("place", "ok", "none on the earth; labels have the image's pixels")
    if where.crs is None:
        remedy = f"gdal_edit.py -a_srs EPSG:CODE {source.name} writes it, if you know it"
        return FitRow("place", "note", f"{source.name} does not say its CRS, so labels have none either; {remedy}")
    return FitRow("place", "ok", crs_name(where.crs))


def _nodata(source: Source, sample: Sample | None) -> str:
    return "not looked at" if sample is None else f"{100 * (1 - sample.share):.3g} % of a sample holds no image data"


def _pixel_size(source: Source, card: ModelCard, request: Request, size: Resolution | None) -> tuple[FitRow, ...]:
    rows = () if size is None else tuple(_of_size(source, card, size, request))
    if rows:
        return rows
    if size is None:
        return (FitRow("pixel size", "ok", f"not known, and model {card.name} takes any"),)
    works = f"{card.resolution:g} {card.unit}/px" if card.resolution else "any"
    if getattr(unwrapped(source), "printed", False) and not request.pixel_size:
        said = f"{size}, from the resolution tags of the TIFF; model {card.name} works at {works}"
        return (FitRow("pixel size", "note", f"{said}; `pixel_size` corrects it"),)
    return (FitRow("pixel size", "ok", f"{size}; model {card.name} works at {works}"),)


def _of_size(source: Source, card: ModelCard, size: Resolution, request: Request) -> Iterator[FitRow]:
    """Yield rows for pixels much larger than the model's, or of a size that nobody means."""
    own = source.resolution
    if request.pixel_size and own is not None and own.unit == size.unit:
        apart = max(size.x / own.x, own.x / size.x, size.y / own.y, own.y / size.y)
        if apart > WARNED:
            yield FitRow(
                "pixel size",
                "note",
                f"{source.name} says {own}, `pixel_size` says {size}, {apart:.3g} times as much or less",
            )
    if card.resolution is None:
        low, high = USUAL.get(size.unit, (0.0, np.inf))
        if not (low <= min(size.x, size.y) and max(size.x, size.y) <= high):
            yield FitRow("pixel size", "note", f"pixels of {size} are unusual; give the right size with `pixel_size`")
        return
    # Pixels need not be square, so each question looks at the side that is worse for it.
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
        yield FitRow(
            "pixel size",
            "warning",
            f"{pixels}: pixels {coarser:.3g} times as large are enlarged, and labels may be poor",
        )
    elif finer > LARGE:
        yield FitRow("pixel size", "note", f"{pixels}: {finer:.3g} of its pixels per axis are averaged to one")


def _of_brightness(source: Source, card: ModelCard, sample: Sample | None) -> Iterator[FitRow]:
    """Yield rows for an image that is dark though the model expects a bright one, or has values of another range."""
    if sample is None or not card.mean or not card.std or source.shape[0] != card.bands:
        return
    # More pixels say the same, and take longer than a small network for a small image.
    thinned = sample.pixels[:, :: max(1, sample.pixels.shape[1] // ENOUGH)]
    pixels = _without_borders(thinned, source.dtype)
    if pixels is None:
        return
    mean, std = np.array(card.mean), np.array(card.std)
    # The extremes are left out, since a few dead or glaring pixels say nothing about the range of an image.
    low, middle, high = np.sort(pixels)[:, [pixels.shape[1] * percent // 100 for percent in (1, 50, 99)]].T
    expected = f"model {card.name} expects about {_numbers(mean)} (deviation {_numbers(std)})"
    seen = f"{source.name} holds {_numbers(middle)} (median of the bands, in a sample)"
    if (high < mean - OUTSIDE * std).all() or (low > mean + OUTSIDE * std).all():
        yield FitRow(
            "values", "warning", f"{seen} and {expected}: the values have another range; {_scaled(source, pixels)}"
        )
    elif (middle < DARK * mean).all() and (middle < mean - UNLIKE * std).all():
        yield FitRow(
            "values",
            "note",
            f"{seen} and {expected}: a dark background where it was trained on a bright one, as for fluorescence",
        )


def _of_fill(source: Source, request: Request, sample: Sample | None) -> Iterator[FitRow]:
    """Yield a row for a value that looks like nodata but is read as image, if nobody said what is image data."""
    if request.mask == "none" or request.mask.startswith("value:"):
        return
    if found := fill_value(source, sample):
        value = f"{found.value:.9g}"
        by_mask = setting(mask=f"value:{value}")
        remedy = f"{by_mask}, or in the file: gdal_edit.py -a_nodata {value} {source.name}"
        yield FitRow("nodata", "note", found.said(source.name, remedy))


def _of_output(card: ModelCard) -> Iterator[FitRow]:
    if card.output == "probabilities":
        yield FitRow("model", "note", f"model {card.name} gives probabilities, which are blended as they are")
    elif card.output == "labels":
        yield FitRow("model", "note", f"model {card.name} gives labels and no scores: nothing is promised about seams")


def _scaled(source: Source, pixels: NDArray[np.float64]) -> str:
    """Return what the user should type if the values have another range."""
    if source.dtype.kind == "f" and pixels.min() >= 0 and pixels.max() <= 1:
        scale = "they lie from 0 to 1, as those of 8 bits divided by 255"
        return f"{scale}: gdal_translate -ot Byte -scale 0 1 0 255 {source.name} scaled.tif, or correct the card"
    return "scale the image or correct the card"


def _without_borders(pixels: NDArray[np.float64], dtype: DType) -> NDArray[np.float64] | None:
    """Return the pixels that are neither black nor, in integer images, white; None if too few are left."""
    # Black borders of rasters and white glass of slides are no image, but they would move the median.
    keep = (pixels != 0).any(0)
    if dtype.kind in "iu":
        # Floats have no largest value that would stand for white.
        keep &= (pixels != np.iinfo(dtype).max).any(0)
    return pixels[:, keep] if keep.sum() >= SIDE else None


def _numbers(values: NDArray[np.float64]) -> str:
    shown = ", ".join(f"{value:.3g}" for value in values[:4])
    return f"{shown}{', ...' if len(values) > 4 else ''}"
