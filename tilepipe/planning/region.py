"""This module makes a box and a mask from what a user asks for: pixels, bounds, polygons or a mask."""

from __future__ import annotations

import hashlib
import json
import math
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from tilepipe.box import Box
from tilepipe.errors import InputError, UsageError
from tilepipe.models.card import ModelCard
from tilepipe.planning.fit_row import FitRow
from tilepipe.planning.resolution import Grids
from tilepipe.planning.settings import Request
from tilepipe.sources.base import Resolution, Source
from tilepipe.sources.georeference import box_of_bounds
from tilepipe.sources.mask import Mask, Masked
from tilepipe.sources.resample import Resampled
from tilepipe.sources.world_grid import inner_of
from tilepipe.text import did_you_mean, setting

# Polygons and tissue are asked for rarely, and what reads them takes a moment to import.
if TYPE_CHECKING:
    from tilepipe.sources.geo_mask import Area
    from tilepipe.sources.geojson import Features
    from tilepipe.sources.tissue import Tissue

VALUE, TISSUE, AREA = "value:", "tissue/2+", "area:"
"""Beginnings of masks: the value of pixels without image data (value:255), or in a plan the margin of tissue (pixels)
or the sha256 of polygons. The number is raised if another rule finds tissue, so that labels of kept runs never mix."""
ROUNDED = 1
"""Number of pixels beyond the image that rounded coordinates of polygons around the whole image may lie."""
MASKS = ("auto", "none", "tissue", f"{VALUE}255")
CONTEXT = 64
"""Width by which tissue is grown if the model's reach is unknown (pixels of the model's grid)."""


@dataclass(frozen=True)
class RegionRequest:
    """The part of an image that is asked for."""

    region: Box
    """Box of pixels of the full-resolution grid."""
    mask: str
    """Pixels that are image data, or image data that gets a label, as in `Plan.mask`."""
    notes: tuple[FitRow, ...] = ()
    """Rows about the region that the user should see, for example that a part of it lies beyond the image."""


def resolve_region(
    source: Source, card: ModelCard, request: Request, grids: Grids
) -> tuple[RegionRequest, Mask | None]:
    """Return the region asked for, and the area of full-resolution pixels that get a label if these are not all pixels.

    Raises `UsageError`, `InputError`.
    """
    whole, region = inner_of(source), request.region
    notes: tuple[FitRow, ...] = ()
    if isinstance(region, str):
        if request.mask != "auto":
            raise UsageError(f"the polygons of {region} say where to compute; leave out {setting(mask=request.mask)}")
        return _inside(source, region, whole, request.classes, cropped=True)
    if request.classes and (request.mask in MASKS or request.mask.startswith(VALUE)):
        raise UsageError("`classes` picks polygons of a file; name the file as `region` or `mask`, or leave it out")
    box = region.shift(whole.y0, whole.x0) if region else whole
    if request.bounds is not None:
        wanted = box_of_bounds(source, request.bounds, request.bounds_crs)
        box, notes = _cut(source, wanted, "the bounds reach", "warning")
    if request.window is not None:
        column, row, width, height = request.window
        box = Box(row, column, row + height, column + width).shift(whole.y0, whole.x0)
    if not whole.contains(box):
        raise UsageError(
            f"region {_rows(box.shift(-whole.y0, -whole.x0))} is not inside {source.name}, which has "
            f"{whole.height} rows and {whole.width} columns"
        )
    asked, area = _masked(source, card, box, request, grids)
    return replace(asked, notes=notes + asked.notes), area


def _cut(source: Source, box: Box, reach: str, severity: Literal["note", "warning"]) -> tuple[Box, tuple[FitRow, ...]]:
    """Return the part of a box that lies in the image, and a row about it if a part of the box lies outside."""
    inside = box & inner_of(source)
    if inside is None:  # it meets the canvas of a world grid alone
        raise UsageError(f"the region lies off {source.name}, beside the image; check its coordinates")
    if inside == box:
        return box, ()
    said = (
        f"{reach} beyond {source.name}: {_rows(box)} are asked for, and of these {_rows(inside)} are in the image "
        f"({100 * inside.area / box.area:.3g} %); only these can get labels"
    )
    return inside, (FitRow("region", severity, said),)


def _rows(box: Box) -> str:
    return f"rows {box.y0} to {box.y1}, columns {box.x0} to {box.x1}"


def _masked(
    source: Source, card: ModelCard, box: Box, request: Request, grids: Grids
) -> tuple[RegionRequest, Mask | None]:
    mask = request.mask
    if mask in ("auto", "none"):
        return RegionRequest(box, mask), None
    if mask.startswith(VALUE):
        value = _value(mask)
        _check_held(source, value)
        # 17 digits give back every double exactly.
        return RegionRequest(box, f"{VALUE}{value:.17g}"), None
    if mask == "tissue":
        from tilepipe.sources.tissue import tissue

        own = grids.resolution
        # The context is in pixels of the model's grid, and tissue is grown in pixels of the image.
        scale = card.resolution / own.y if card.resolution and own else 1.0
        named = f"{TISSUE}{scale * (card.halo or CONTEXT):g}"
        found = tissue(source, float(named.removeprefix(TISSUE)))
        if not found.found.tissue.any():
            raise InputError(
                f"{source.name} is blank: 0 % of it stands out from the background as tissue, so nothing would get a "
                "label. Leave `mask` out to label all of it, or draw polygons and name their file as `mask`"
            )
        return RegionRequest(box, named, _of_tissue(source, found, box, own)), found
    if not Path(mask).suffix and not Path(mask).exists():
        raise UsageError(f"mask {did_you_mean(mask, MASKS)}, and there is no vector file of that name")
    return _inside(source, mask, box, request.classes, cropped=False)


def _of_tissue(source: Source, found: Tissue, box: Box, resolution: Resolution | None) -> tuple[FitRow, ...]:
    """Return what the mask keeps; a note if the image is hardly a slide, if all of it is kept, or if there is ink."""
    known, kept = source.georeference, 100 * found.share(box)
    aerial = bool(known and known.on_earth) or (resolution and resolution.unit == "m")
    if found.found.background == "none" or aerial:
        why = (
            f"mask tissue looks for tissue on the glass of a slide, and {source.name} lies on the ground: the mask"
            if aerial
            else f"mask tissue finds no background in {source.name}: it"
        )
        return (FitRow("tissue", "note", f"{why} keeps {kept:.3g} % of the region; see the labels, or leave it out"),)
    share, ink = 100 * found.pixels(box) / box.area, 100 * found.ink(box) / box.area
    said = (
        f"{share:.3g} % of the region is tissue on a {found.found.background} background; with a margin of context "
        f"{kept:.3g} % get labels"
    )
    if not ink:
        return (FitRow("tissue", "ok", said),)
    said += f"; {ink:.2g} % of the region is taken for marker ink, which is no tissue; see the labels"
    return (FitRow("tissue", "note", said),)


def area_of(source: Source, mask: str, polygons: str | None = None, classes: Sequence[str] = ()) -> Mask | None:
    """Return the area that the mask of a plan names; None: all of it.

    `polygons` is the path of the polygons' file, and `classes` are the classes of those that count.

    Raises `UsageError` if the file is not given or cannot be read, `InputError` if the file holds other polygons.
    """
    if mask.startswith("tissue+"):
        raise InputError("the run found its tissue by an earlier rule, which this version lacks; run it again")
    if mask.startswith(TISSUE):
        from tilepipe.sources.tissue import tissue

        return tissue(source, float(mask.removeprefix(TISSUE)))
    if not mask.startswith(AREA):
        return None
    if polygons is None:
        raise UsageError("the run computed inside polygons; name their file with `mask`")
    area = _area(source, polygons, classes)
    # The plan holds only a hash of the polygons, and the file may have been edited since the run.
    if _digest(area) != mask:
        raise InputError(f"the polygons of {polygons} are not those of the run; name the same file")
    return area


def _inside(
    source: Source, path: str, box: Box, classes: Sequence[str], *, cropped: bool
) -> tuple[RegionRequest, Area]:
    """Return the region of a vector file's polygons in `box`: `box` itself, or if `cropped` the box around the
    polygons."""
    area = _area(source, path, classes)
    around, notes = _cut(source, area.box, f"the polygons of {path} reach", "note")
    if inner_of(source).pad(ROUNDED).contains(area.box):
        notes = ()
    inside = around & box
    if inside is None:
        raise UsageError(f"the polygons of {path} lie outside the region {box.to_list()} that is asked for")
    if area.skipped:
        notes += (FitRow("region", "note", area.skipped),)
    return RegionRequest(inside if cropped else box, _digest(area), notes), area


def _area(source: Source, path: str, classes: Sequence[str]) -> Area:
    """Return the polygons of a vector file that are of one of the `classes`, or all if no class is named.

    They are in the file's CRS for rasters, in level-0 pixels for slides.
    """
    from tilepipe.sources.geo_mask import Area
    from tilepipe.sources.geo_vectors import SeveralLayersError, read_vectors
    from tilepipe.sources.geojson import LON_LAT
    from tilepipe.sources.geojson_place import frame, on_canvas

    try:
        found = _of_classes(read_vectors(path), classes)
        stated = frame(found, source.georeference, source.name)
    except SeveralLayersError as error:
        made = shlex.join(["ogr2ogr", "area.gpkg", path, error.first])
        raise UsageError(f"{error.layers}; write the one that is meant to a file of its own: {made}") from None
    except InputError as error:
        raise UsageError(str(error)) from None
    if not found.polygons:
        raise UsageError(f"{path} holds no polygon; draw at least one around what is asked for")
    geometries = on_canvas(found, source) if stated is None else [feature.geometry for feature in found.polygons]
    return Area(source, geometries, stated or LON_LAT, found.skipped)


def _of_classes(found: Features, classes: Sequence[str]) -> Features:
    """Return the polygons of these classes, or all if no class is named. Raises `UsageError` for an unknown class."""
    if not classes:
        return found
    from tilepipe.sources.geo_labels import MISSING, names_of

    names = [None if name is None else str(name) for name in names_of(found, None)]
    columns = {column for feature in found.polygons for column in feature.properties}
    if set(names) == {None} and (column := next((name for name in sorted(columns) if name.lower() == "class"), None)):
        names = [None if name == MISSING else str(name) for name in names_of(found, column)]
    there = Counter(name for name in names if name is not None)
    listed = ", ".join(f"{name} ({count})" for name, count in sorted(there.items())) or "none"
    where = "" if there else " (a class is QuPath's classification, or stands in an attribute called class)"
    if absent := [name for name in classes if name not in there]:
        raise UsageError(f"{found.path} has no polygon of class {absent[0]!r}; its classes are {listed}{where}")
    kept = tuple(one for one, name in zip(found.polygons, names, strict=True) if name in classes)
    said = f"{found.path}: {len(kept)} of {len(found.polygons)} polygons are of class {' or '.join(classes)}"
    return replace(found, polygons=kept, skipped="; ".join(filter(None, (said, found.skipped))))


def _digest(area: Area) -> str:
    # The hash is made from the geometries alone: a file with other properties or another layout asks for the same
    # labels.
    return AREA + hashlib.sha256(json.dumps(area.geometries, sort_keys=True).encode()).hexdigest()


def _value(mask: str) -> float:
    try:
        return float(mask.removeprefix(VALUE))
    except ValueError:
        raise UsageError(f"mask {mask!r} names no value; write it like {VALUE}255") from None


def _check_held(source: Source, value: float) -> None:
    """Raise `UsageError` if no pixel of the image can have this value: the value would mask nothing."""
    if source.dtype.kind in "iu":
        known = np.iinfo(source.dtype)
        held = value.is_integer() and known.min <= value <= known.max
        can = f"holds whole numbers from {known.min} to {known.max} ({source.dtype})"
    else:
        # numpy warns if a number is too large for the type, and this is just what is asked here.
        with np.errstate(over="ignore"):
            # NaN and infinity exist in every type of float; any other value must not become infinite in this type.
            held = np.isfinite(source.dtype.type(value)) or not math.isfinite(value)
        can = f"holds {source.dtype}, up to {np.finfo(source.dtype).max:g} either way"
    if not held:
        raise UsageError(
            f"{setting(mask=f'{VALUE}{value:.9g}')} would mask nothing: {source.name} {can}; "
            f"give a value that its pixels can have, or leave `mask` out"
        )


def image_data(source: Source, mask: str) -> Source:
    """Return the image with its mask of image data, as the file and `Plan.mask` say."""
    if mask.startswith(VALUE):
        return Masked(source, _value(mask))
    # The mask of the file must be taken off here: sources apply it by themselves.
    return Masked(source, None) if mask == "none" else source


def on_prediction_grid(image: Source, predicted: tuple[int, int]) -> Source:
    """Return `image_data` at the model's resolution, on a grid of shape `predicted` (height, width)."""
    return image if predicted == image.shape[1:] else Resampled(image, *predicted)
