"""Settings: all that a user may choose, and the checks of single numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

from tilepipe.box import Box
from tilepipe.errors import UsageError
from tilepipe.inference.device import Compute, usual_batch
from tilepipe.planning.image_fit import Finding

TOLERANCE = 0.01
"""Difference in probability that is accepted where exact labels cost more than `MAX_COST`."""
MAX_COST = 4.0
"""Work over that of one pass: what an overlap of half a tile costs."""


class Choices(TypedDict, total=False):
    """Settings beside the region. They have the names of the command line's options, and each has a default."""

    scene: int
    """Image of a file that holds several, counted from 0; the largest by default."""
    z: int
    """Plane along z, counted from 0."""
    t: int
    """Plane along t, counted from 0."""

    of: str | Sequence[str]
    """Products: 'cog', 'ome-zarr', 'geojson'; a list, or one text with commas between them."""
    bounds: tuple[float, float, float, float]
    """Region as (left, bottom, right, top) in map coordinates of `bounds_crs`."""
    bounds_crs: str
    """CRS of `bounds`, such as 'EPSG:4326'; the image's own by default."""
    bands: str | Sequence[int | str]
    """Bands to read, by number from 1 or by name: "1,2,3", "R,G,B"; those that fit the model by default."""
    window: tuple[int, int, int, int]
    """Region as (column, row, width, height) in full-resolution pixels, as GDAL's -srcwin."""
    tile: int | Literal["auto"]
    """Side of a tile in pixels of the prediction grid."""
    overlap: int | Literal["auto"]
    """Overlap of neighbouring tiles in pixels of the prediction grid."""
    window_shape: str
    """Weights of a tile's pixels: 'auto', 'crop', 'constant', 'gaussian', 'hann' or 'linear'."""
    statistics: str
    """Source of the statistics of norms and poolings over the whole image: 'auto', 'field' (a grid fixed to the
    image), 'whole' (the whole image) or 'tile' (each tile)."""
    tolerance: float
    """Change of a probability (0 to 1) that is accepted if exact labels cost more than `max_cost`; 0 asks for exact
    labels at any cost. 0.01 by default."""
    max_cost: float
    """Largest computing cost of exact labels, as a multiple of one pass over the image; 4 by default."""
    resolution: str | float
    """Grid of the labels: 'full' (the image's own), 'model', or a pixel size in the model's unit."""
    pixel_size: float
    """Pixel size of the image in the model's unit, if the file does not say it or says it wrong."""
    force_resolution: bool
    """Whether an image is run whose pixels are more than 8 times as large as those of the model."""
    mask: str | Path
    """Pixels that are image data: 'auto' (what the file declares), 'none' (every pixel), 'value:255' (all but those
    of this value). Or pixels that get a label: 'tissue', or the path of a GeoJSON file of polygons."""
    device: str
    """Device: 'auto', 'cpu', 'cuda' or 'cuda:0'."""
    precision: str
    """Precision: 'auto' (fp32), 'fp64', 'fp32', 'tf32', 'bf16' or 'fp16'."""
    batch: int
    """Number of tiles that the model is given at once."""
    block: int
    """Wanted side of a block in pixels of the prediction grid."""
    memory: str | int
    """Largest memory of the run in bytes, or with a unit: '4GiB'."""
    workers: int
    """Number of worker processes; 0 computes in this process."""
    scheduler: str
    """Address of a running Dask scheduler."""
    trust_model: str
    """'sha256:' and the hash of a model file that can run code; exactly this file is loaded."""
    on_tile_error: str
    """What happens if a tile cannot be read or predicted: 'nodata' leaves its pixels without a label and lists it,
    'fail' ends the run."""
    overwrite: bool
    """Whether an output that exists is replaced."""
    layers: str | Sequence[str]
    """Uncertainty layers to write beside the labels: 'margin', 'entropy', 'disagreement'."""


class Settings(Choices, total=False):
    """All settings of a run: those of `Choices`, and the region."""

    region: Box | tuple[int, int, int, int] | str | Path
    """Region in full-resolution pixels: a `Box`, its (y0, x0, y1, x1), or the path of a GeoJSON file of polygons."""


@dataclass(frozen=True)
class RegionRequest:
    """Which part of an image is asked for."""

    region: Box
    """Pixels of the full-resolution grid."""
    mask: str
    """What is image data, or which of it gets a label, as in `Plan.mask`."""
    notes: tuple[Finding, ...] = ()
    """What the user should know of it, as that a part of it lies beyond the image."""


def compute_of(settings: Settings, device: str) -> Compute:
    """Return where and how the model runs; `device` and the precision of the settings are resolved."""
    return Compute(
        device=device,
        precision=settings.get("precision", "fp32"),
        batch=settings.get("batch") or usual_batch(device),
        workers=settings.get("workers") or 0,
    )


def check_numbers(settings: Settings) -> None:
    """Raise `UsageError` for a number that cannot be meant."""
    given: dict[str, Any] = {**settings}
    for name, least in (("tile", 1), ("overlap", 0), ("batch", 1), ("block", 1), ("workers", 0), ("pixel_size", 0)):
        value = given.get(name)
        if value is None or (value == "auto" and name in ("tile", "overlap")):
            continue
        if name == "pixel_size" and isinstance(value, str):
            raise UsageError(
                f"pixel_size {value!r} is no number; give it alone, in micrometres for slides and metres for rasters: "
                f"{plain_size(value)}"
            )
        if not isinstance(value, int | float) or not least <= value < math.inf or (name == "pixel_size" and value == 0):
            raise UsageError(f"{name} {value!r} is no number that can be used; give {least} or more")


def plain_size(text: str) -> str:
    """Return a pixel size as it should have been given: '0.25 (um)' for '250nm'; '0.25' where nothing can be read."""
    found = re.fullmatch(r"\s*([0-9.]+(?:e-?[0-9]+)?)\s*(nm|um|µm|μm|mm|cm|m)(?:/px)?\s*", text.lower())
    if not found:
        return "0.25"
    times, unit = {"nm": (1e-3, "um"), "mm": (1e-3, "m"), "cm": (1e-2, "m"), "m": (1, "m")}.get(found[2], (1, "um"))
    return f"{float(found[1]) * times:g} (that is in {unit})"
