"""Region: from what a user asks for (pixels, bounds, polygons, a mask) to a box and a mask."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from tilepipe.box import Box
from tilepipe.errors import InputError, UsageError
from tilepipe.models.card import ModelCard
from tilepipe.planning.image_fit import Finding
from tilepipe.planning.plan import Plan
from tilepipe.planning.resolution import resolution_of
from tilepipe.planning.settings import RegionRequest, Settings
from tilepipe.sources.base import Source
from tilepipe.sources.geojson import read_geojson
from tilepipe.sources.geojson_place import LON_LAT, frame
from tilepipe.sources.georeference import Area, window_of_bounds
from tilepipe.sources.mask import Mask, Masked, tissue
from tilepipe.sources.resample import Resampled
from tilepipe.text import did_you_mean

VALUE = "value:"
"""Beginning of a mask that names the value of pixels without image data, as in value:255."""
MASKS = ("auto", "none", "tissue", f"{VALUE}255")
CONTEXT = 64
"""Pixels of the model's grid by which tissue is grown where the model's reach is unknown."""


def resolve_region(source: Source, card: ModelCard, settings: Settings) -> tuple[RegionRequest, Mask | None]:
    """Return what is asked for, and the area of full-resolution pixels that get a label, where that is not all.

    Raises `UsageError`, `InputError`.
    """
    whole = Box.of_shape(*source.shape[1:])
    ways = [name for name in ("region", "bounds", "window") if settings.get(name) is not None]
    if len(ways) > 1:
        raise UsageError(f"{' and '.join(ways)} are both given; name the part of the image in one way")
    region = settings.get("region")
    if isinstance(region, str | Path):
        if settings.get("mask", "auto") != "auto":
            raise UsageError(f"the polygons of {region} say where to compute; leave out mask {settings['mask']}")
        return _inside(source, region, whole)
    notes: tuple[Finding, ...] = ()
    box = whole if region is None else region if isinstance(region, Box) else Box(*region)
    if settings.get("bounds") is not None:
        wanted = window_of_bounds(source, settings["bounds"], settings.get("bounds_crs"))
        box, notes = _cut(source, wanted, "the bounds reach", "warning")
    if settings.get("window") is not None:
        column, row, width, height = settings["window"]
        box = Box(row, column, row + height, column + width)
    if not whole.contains(box):
        raise UsageError(
            f"region {_rows(box)} is not inside {source.name}, which has {whole.height} rows and {whole.width} columns"
        )
    asked, area = _masked(source, card, box, settings)
    return replace(asked, notes=notes + asked.notes), area


def _cut(source: Source, box: Box, reach: str, severity: Literal["note", "warning"]) -> tuple[Box, tuple[Finding, ...]]:
    """Return the part of a box that lies in the image, and what to say when that is not all of it."""
    inside = box & Box.of_shape(*source.shape[1:])
    assert inside is not None, "what does not meet the image is refused before"
    if inside == box:
        return box, ()
    said = (
        f"{reach} beyond {source.name}: {_rows(box)} are asked for, and of these {_rows(inside)} are in the image "
        f"({100 * inside.area / box.area:.3g} %); only these can get labels"
    )
    return inside, (Finding(severity, said),)


def _rows(box: Box) -> str:
    return f"rows {box.y0} to {box.y1}, columns {box.x0} to {box.x1}"


def _masked(source: Source, card: ModelCard, box: Box, settings: Settings) -> tuple[RegionRequest, Mask | None]:
    mask = settings.get("mask", "auto")
    if mask in ("auto", "none"):
        return RegionRequest(box, str(mask)), None
    if str(mask).startswith(VALUE):
        value = _value(str(mask))
        _check_held(source, value)
        return RegionRequest(box, f"{VALUE}{value:.17g}"), None
    if mask == "tissue":
        own = resolution_of(source, card, settings.get("pixel_size"))
        scale = card.resolution / own.y if card.resolution and own else 1.0
        margin = scale * (card.halo or CONTEXT)
        return RegionRequest(box, f"tissue+{margin:g}"), tissue(source, margin)
    if not Path(mask).suffix and not Path(mask).exists():
        raise UsageError(f"mask {did_you_mean(str(mask), MASKS)}, and there is no GeoJSON file of that name")
    return _inside(source, mask, box)


def _inside(source: Source, path: str | Path, box: Box) -> tuple[RegionRequest, Area]:
    """Return what is asked for with polygons: those of a GeoJSON file, and of them what lies in `box`."""
    area = _area(source, path)
    around, notes = _cut(source, area.box, f"the polygons of {path} reach", "note")
    inside = around & box
    if inside is None:
        raise UsageError(f"the polygons of {path} lie outside the region {box.to_list()} that is asked for")
    if area.skipped:
        notes += (Finding("note", area.skipped),)
    return RegionRequest(inside, _digest(area), notes), area


def _area(source: Source, path: str | Path) -> Area:
    """Return the polygons of a GeoJSON file: in its CRS for rasters, in level-0 pixels (QuPath) for slides."""
    try:
        found = read_geojson(path)
        stated = frame(found, source.georeference, source.name)
    except InputError as error:
        raise UsageError(str(error)) from None
    if not found.polygons:
        raise UsageError(f"{path} holds no polygon; draw at least one around what is asked for")
    return Area(source, [feature.geometry for feature in found.polygons], stated or LON_LAT, found.skipped)


def _digest(area: Area) -> str:
    return "area:" + hashlib.sha256(json.dumps(area.geometries, sort_keys=True).encode()).hexdigest()


def _value(mask: str) -> float:
    try:
        return float(mask.removeprefix(VALUE))
    except ValueError:
        raise UsageError(f"mask {mask!r} names no value; write it like {VALUE}255") from None


def _check_held(source: Source, value: float) -> None:
    """Raise `UsageError` for a value that no pixel of the image can have: it would mask nothing."""
    if source.dtype.kind in "iu":
        known = np.iinfo(source.dtype)
        held = value.is_integer() and known.min <= value <= known.max
        can = f"holds whole numbers from {known.min} to {known.max} ({source.dtype})"
    else:
        with np.errstate(over="ignore"):
            held = np.isfinite(source.dtype.type(value)) or not math.isfinite(value)
        can = f"holds {source.dtype}, up to {np.finfo(source.dtype).max:g} either way"
    if not held:
        raise UsageError(
            f"mask {VALUE}{value:.9g} would mask nothing: {source.name} {can}; "
            f"give a value that its pixels can have, or leave --mask out"
        )


def image_data(source: Source, mask: str) -> Source:
    """Return the image, valid where it holds image data, as its file and `Plan.mask` say."""
    if mask.startswith(VALUE):
        return Masked(source, _value(mask))
    return Masked(source, None) if mask == "none" else source


def on_prediction_grid(image: Source, plan: Plan) -> Source:
    """Return `image_data` at the model's resolution."""
    return image if plan.predicted == plan.shape else Resampled(image, *plan.predicted)
