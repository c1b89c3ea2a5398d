"""Resolution: whether an image fits a model, at which pixel size it is predicted, and on which grid labels are kept."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tilepipe.errors import InputError, UsageError
from tilepipe.models.card import ModelCard
from tilepipe.sources.band_choice import Reader, choose_bands
from tilepipe.sources.bands import with_picked
from tilepipe.sources.base import Resolution, Source
from tilepipe.sources.resample import fitting_shape


def with_model_bands(source: Source, card: ModelCard, settings: Mapping[str, Any]) -> Source:
    """Return an image with the bands that a model reads: those of the setting `bands`, or those that fit it.

    What was chosen without being asked for is said in the `notes` of the source.

    Raises `UsageError` for bands that are not there, `InputError` where it cannot be told which ones to read.
    """
    reader = Reader(card.bands, card.band_names, card.name)
    picked = choose_bands(source, reader, settings.get("bands"), masked=settings.get("mask") != "none")
    if settings.get("bands") is not None and len(picked.bands) != card.bands:
        raise UsageError(
            f"--bands names {len(picked.bands)} bands, model {card.name} reads {card.bands}; "
            "name as many, in the order that the model was trained on"
        )
    return with_picked(source, picked)


def check_fits(source: Source, card: ModelCard) -> None:
    """Raise `InputError` when the image has other bands or another pixel type than the model was trained on."""
    if source.shape[0] != card.bands:
        raise InputError(
            f"{source.name} has {source.shape[0]} bands and model {card.name} reads {card.bands}; "
            "choose the bands or another model"
        )
    if card.dtype is not None and np.dtype(card.dtype) != source.dtype:
        raise InputError(
            f"{source.name} holds {source.dtype} and model {card.name} was trained on {card.dtype}; "
            "convert the image or choose another model"
        )


def resolution_of(source: Source, card: ModelCard, pixel_size: float | None) -> Resolution | None:
    """Return the image's resolution, as stated by the user or the file; None when the model takes any.

    An array without a resolution is taken as it is. Raises `InputError` when it is unknown or in another unit.
    """
    if card.resolution is None:
        return Resolution(pixel_size, pixel_size, card.unit) if pixel_size else source.resolution
    if pixel_size is not None:
        return Resolution(pixel_size, pixel_size, card.unit)
    if source.resolution is None:
        if source.name == "array":
            return Resolution(card.resolution, card.resolution, card.unit)
        raise InputError(
            f"{source.name} does not say its pixel size and model {card.name} works at {card.resolution:g} "
            f"{card.unit}/px; give the image's with --pixel-size, in {card.unit}"
        )
    if source.resolution.unit != card.unit:
        raise InputError(
            f"{source.name} has {source.resolution} and model {card.name} works at {card.resolution:g} {card.unit}/px; "
            "it was trained on another kind of image"
        )
    return source.resolution


def predicted_shape(source: Source, card: ModelCard, pixel_size: float | None) -> tuple[int, int]:
    """Return (height, width) of the prediction grid: the image at the model's resolution. Raises `InputError`."""
    resolution = resolution_of(source, card, pixel_size)
    if resolution is None or card.resolution is None:
        return source.shape[1], source.shape[2]
    return fitting_shape(source, resolution, card.resolution)


def output_shape(
    shape: tuple[int, int], predicted: tuple[int, int], resolution: Resolution | None, wanted: str | float
) -> tuple[int, int]:
    """Return (height, width) of the output grid of the whole image for 'full', 'model' or a pixel size."""
    if wanted == "full":
        return shape
    if wanted == "model":
        return predicted
    try:
        size = float(wanted)
    except ValueError:
        size = 0.0
    if not 0 < size < math.inf:
        raise UsageError(f"resolution {wanted!r} is not known; use full, model or a pixel size above 0")
    if resolution is None:
        raise UsageError(f"resolution {size:g} asks for a pixel size but the image has none; use full or model")
    return max(1, round(shape[0] * resolution.y / size)), max(1, round(shape[1] * resolution.x / size))


def nearest_pixel(index: int, size: int, of: int) -> int:
    """Return the pixel of a grid of `size` pixels under the centre of pixel `index` of a grid of `of` pixels."""
    return (2 * index + 1) * size // (2 * of)
