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
    """What a user may choose beside the region; the command line's names with underscores."""

    scene: int
    """Which image of a file that holds several, from 0; the largest by default."""
    z: int
    """Which plane along z, from 0."""
    t: int
    """Which plane along t, from 0."""

    of: str | Sequence[str]
    """Products: cog, ome-zarr, geojson; a list, or with commas between."""
    bounds: tuple[float, float, float, float]
    """(left, bottom, right, top) in `bounds_crs`."""
    bounds_crs: str
    """Of `bounds`; the image's own when left out."""
    bands: str | Sequence[int | str]
    """Bands to read, by number from 1 or by name: "1,2,3", "R,G,B"; those that fit the model when left out."""
    window: tuple[int, int, int, int]
    """(column, row, width, height) in pixels, as GDAL's -srcwin."""
    tile: int | Literal["auto"]
    """Tile size in pixels of the prediction grid."""
    overlap: int | Literal["auto"]
    """Pixels that neighbouring tiles share."""
    window_shape: str
    """auto, crop, constant, gaussian, hann or linear."""
    statistics: str
    """Where those of operations over the whole image come from: auto, field (a fixed grid), whole (image) or tile."""
    tolerance: float
    """Difference in probability accepted where exact labels cost more than max_cost; 0: exact at any cost."""
    max_cost: float
    """Work over that of one pass that exact labels may cost; 4 by default."""
    resolution: str | float
    """Grid of the labels: full, model, or a pixel size."""
    pixel_size: float
    """Pixel size of the image in the model's unit, where the file does not say or says it wrong."""
    force_resolution: bool
    """Run also where the image's pixels are more than 8 times as large as those of the model."""
    mask: str | Path
    """What is image data: auto (what the file declares), none (every pixel) or value:255 (all but that value). Or which
    of it gets a label: tissue, or a GeoJSON file of polygons."""
    device: str
    """auto, cpu, cuda or cuda:0."""
    precision: str
    """auto (fp32), fp64, fp32, tf32, bf16 or fp16."""
    batch: int
    """Tiles that the model sees at once."""
    block: int
    """Wanted size of a block in pixels."""
    memory: str | int
    """Most bytes that the run may take, like 4GiB."""
    workers: int
    """Worker processes; 0 computes in this process."""
    scheduler: str
    """Address of a running Dask scheduler."""
    trust_model: str
    """'sha256:' and the hash of a model file that can run code, which is loaded then."""
    on_tile_error: str
    """What a tile that cannot be read or predicted does: nodata (its pixels get no label, and it is listed) or fail."""
    overwrite: bool
    """Replace an output that exists."""
    layers: str | Sequence[str]
    """Uncertainty layers to write beside the labels: margin, entropy, disagreement."""


class Settings(Choices, total=False):
    """All that a user may choose. Everything has a default."""

    region: Box | tuple[int, int, int, int] | str | Path
    """Pixels of the full-resolution grid, as a `Box` or its (y0, x0, y1, x1), or a GeoJSON file of polygons."""


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
