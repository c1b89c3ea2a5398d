"""This module decides at which pixel size an image is predicted, and on which grid labels are kept."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import InputError, UsageError
from tilepipe.models.card import ModelCard
from tilepipe.planning.fit_row import FitRow
from tilepipe.planning.settings import Request
from tilepipe.sources.band_choice import Reader, choose_bands
from tilepipe.sources.bands import with_picked
from tilepipe.sources.base import Resolution, Source
from tilepipe.sources.georeference import grid_of
from tilepipe.sources.resample import fitting_shape
from tilepipe.sources.world_grid import Anchored, anchored, fits_said
from tilepipe.sources.wrapped import unwrapped
from tilepipe.text import setting
from tilepipe.tiling.tiling import Tiling

USUAL_SIZES = {"40": 0.25, "20": 0.5, "10": 1.0}
"""Usual size of a slide's pixels [micrometres], by the power of the objective."""
Indices = TypeVar("Indices", int, NDArray[np.int64])
"""The index of one pixel along an axis, or of many."""


@dataclass(frozen=True)
class Grids:
    """The pixel grids of an image under a model; shapes are (height, width)."""

    image: tuple[int, int]
    """Shape of the full-resolution grid."""
    predicted: tuple[int, int]
    """Shape of the prediction grid: the image at the model's resolution."""
    output: tuple[int, int]
    """Shape of the grid of the labels of the whole image."""
    resolution: Resolution | None = None
    """Size of the image's pixels, as the user or the file says; None if nobody says and the model takes any."""


def grids_of(source: Source, card: ModelCard, request: Request) -> Grids:
    """Return the grids of an image.

    Raises `InputError` if the bands or the pixel type differ from the model's, or if the model needs a pixel size and
    that of the image is unknown or in another unit. Raises `UsageError` if a size of labels is given and the image has
    no pixel size.
    """
    _check_pixels(source, card)
    shape, own = (source.shape[1], source.shape[2]), _resolution_of(source, card, request.pixel_size)
    predicted = shape if own is None or card.resolution is None else fitting_shape(source, own, card.resolution)
    wanted = request.resolution
    if isinstance(wanted, str):
        return Grids(shape, predicted, shape if wanted == "full" else predicted, own)
    if own is None:
        raise UsageError(f"resolution {wanted:g} asks for a pixel size but the image has none; use full or model")
    # Far edges are rounded once for the whole image; if each tile rounded its own, tiles would not meet.
    output = max(1, round(shape[0] * own.y / wanted)), max(1, round(shape[1] * own.x / wanted))
    return Grids(shape, predicted, output, own)


def with_model_bands(source: Source, card: ModelCard, request: Request) -> Source:
    """Return an image with the bands that a model reads: those asked for, or those that fit it.

    If bands were chosen without being asked for, the `notes` of the source say which.

    Raises `UsageError` if a band is missing, `InputError` if it is unclear which bands to read.
    """
    reader = Reader(card.bands, card.band_names, card.name)
    picked = choose_bands(source, reader, request.bands, masked=request.mask != "none")
    if request.bands is not None and len(picked.bands) != card.bands:
        raise UsageError(
            f"`bands` names {len(picked.bands)} bands, model {card.name} reads {card.bands}; "
            "name as many, in the order that the model was trained on"
        )
    return with_picked(source, picked)


def on_world_grid(source: Source, request: Request) -> Source:
    """Return an image on a canvas whose tiles begin at fixed places on the earth.

    Raises `UsageError` if tile or overlap is not given, since what is chosen for an image may differ for another one.
    """
    if request.tile is None or request.overlap is None or request.tile <= request.overlap:
        raise UsageError(
            f"{setting(grid='world')} needs the same tiles for all images: give `tile` and `overlap`, for "
            "instance those that tilepipe plan shows for the largest image"
        )
    return anchored(source, request.tile, request.tile - request.overlap, request.block)


def refuse_off_world(source: Source, card: ModelCard, grids: Grids) -> None:
    """Raise `UsageError` if an image on a world grid is resampled: its grid would depend on its size."""
    if isinstance(source, Anchored) and not grids.image == grids.predicted == grids.output:
        said = f"{setting(grid='world')} works on the image's own pixels"
        if grids.image == grids.predicted:
            raise UsageError(f"{said}; leave `resolution` out")
        # In units of the image's CRS, which need not be metres on the ground.
        place, _ = grid_of(source)
        grown = math.sqrt(math.prod(grids.image) / math.prod(grids.predicted))
        size = f"{abs(place[0]) * grown:.3g} {abs(place[4]) * grown:.3g}"
        raise UsageError(
            f"{said}, and model {card.name} works at {card.resolution or 0:g} {card.unit}/px; leave `resolution` out, "
            f"and resample all images alike first: gdalwarp -r average -tap -tr {size} in.tif out.tif"
        )


def world_row(source: Source, tiling: Tiling) -> tuple[FitRow, ...]:
    """Return a row that says which other runs fit a run on a world grid; () for another run."""
    if not isinstance(source, Anchored):
        return ()
    return (FitRow("grid", "note", fits_said(source, tiling.tile - tiling.overlap)),)


def _check_pixels(source: Source, card: ModelCard) -> None:
    """Raise `InputError` when the image has other bands or another pixel type than the model was trained on."""
    if source.shape[0] != card.bands:
        raise InputError(
            f"{source.name} has {source.shape[0]} bands and model {card.name} reads {card.bands}; "
            "choose the bands or another model"
        )
    if card.dtype is not None and np.dtype(card.dtype) != source.dtype:
        raise InputError(
            f"{source.name} holds {source.dtype} and model {card.name} was trained on {card.dtype}; "
            f"choose another model, or convert the image to the values that the model knows: {_converted(card.dtype)}"
        )


def _converted(dtype: str) -> str:
    """Return the commands that convert an image to the pixel type of a model."""
    kind = {"uint8": "Byte", "uint16": "UInt16", "int16": "Int16", "float32": "Float32"}[dtype]
    if dtype == "uint8":
        return (
            "gdal_translate -ot Byte -scale LOW HIGH 0 255 in.tif out.tif, with the values that shall become 0 and 255 "
            "in place of LOW and HIGH. In Python: array.astype('uint8') for values from 0 to 255, or "
            "(255 * array).clip(0, 255).astype('uint8') for values from 0 to 1"
        )
    return f"gdal_translate -ot {kind} in.tif out.tif, or in Python array.astype('{dtype}')"


def _resolution_of(source: Source, card: ModelCard, pixel_size: float | None) -> Resolution | None:
    """Return the image's resolution, as stated by the user or the file; None when the model takes any.

    An array without a resolution is taken as it is. Raises `InputError` if the resolution is unknown or in another
    unit.
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
            f"{card.unit}/px; give the image's with `pixel_size`, in {card.unit}{_usual(source, card)}"
        )
    if source.resolution.unit != card.unit:
        raise InputError(
            f"{source.name} has {source.resolution} and model {card.name} works at {card.resolution:g} {card.unit}/px; "
            "it was trained on another kind of image"
        )
    return source.resolution


def _usual(source: Source, card: ModelCard) -> str:
    """Return which pixel sizes a slide is likely to have, with what to type; '' for rasters."""
    if card.unit != "um":
        return ""
    power = str(getattr(unwrapped(source), "objective", ""))
    if power in USUAL_SIZES:
        said = f"it was scanned at {power}x, where pixels usually have {USUAL_SIZES[power]:g} um"
        return f". The slide says that {said}: {setting(pixel_size=USUAL_SIZES[power])}, if your scanner has them"
    sizes = " and ".join(f"{setting(pixel_size=size)} at {power}x" for power, size in USUAL_SIZES.items())
    return f". At which magnification was it scanned? Usual are {sizes}"


def nearest_pixel(index: Indices, size: int, of: int) -> Indices:
    """Return the pixel of a grid of `size` pixels under the centre of pixel `index` of a grid of `of` pixels."""
    # The centre of pixel i lies at (i + 1/2) * size / of. Both sides are doubled, so that no float decides a pixel.
    return (2 * index + 1) * size // (2 * of)
