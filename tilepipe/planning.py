"""From a source, a model card and settings to a `Plan`: every choice that the user left open is made here."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypedDict

from tilepipe.box import Box
from tilepipe.errors import UsageError
from tilepipe.memory import Load, Memory, Needs, format_bytes, parse_bytes
from tilepipe.models.card import ModelCard
from tilepipe.plan import Compute, Plan, Tiling
from tilepipe.reach import stated
from tilepipe.shapes import check_fits, output_shape, predicted_shape, resolution_of
from tilepipe.sources.bands import Picked
from tilepipe.sources.base import Source
from tilepipe.uncertainty import check_blended, layer_names
from tilepipe.window import PROFILES

DEFAULT_TILE = 512
LARGEST_TILE = 2048
"""Pixels above which a tile is not chosen for the sake of an exact overlap, unless the tolerance is 0."""
TOLERANCE = 0.01
"""Difference in probability that is accepted where exact labels cost more than `MAX_COST`."""
MAX_COST = 4.0
"""Work over that of one pass: what an overlap of half a tile costs."""
BLOCK = 1024
"""Wanted size of a block in pixels."""
CACHE = 64 << 20
"""Bytes of decoded image that a source is taken to keep where it does not say."""


Promise = Callable[[Tiling], Memory]
"""Memory that a run with a tiling takes at most."""


class Choices(TypedDict, total=False):
    """What a user may choose beside the region; the command line's names with underscores."""

    scene: int
    """Which image of a file that holds several, from 0; the largest by default."""
    z: int
    """Which plane along z, from 0."""
    t: int
    """Which plane along t, from 0."""

    of: Sequence[str]
    """Products: cog, ome-zarr, geojson."""
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

    region: Box | str | Path
    """Pixels of the full-resolution grid, or a GeoJSON file of polygons."""


@dataclass(frozen=True)
class Asked:
    """Which part of an image is asked for."""

    region: Box
    """Pixels of the full-resolution grid."""
    mask: str
    """What is image data, or which of it gets a label, as in `Plan.mask`."""


def make_plan(source: Source, card: ModelCard, asked: Asked, settings: Settings, *, device: str, needs: Needs) -> Plan:
    """Return the plan for what is `asked` of `source`.

    `device` is resolved ('cpu', 'cuda:0'); `needs` is what the model takes in memory. Raises `InputError` when the
    image does not fit the model, `UsageError` when settings contradict each other.
    """
    check_numbers(settings)
    check_fits(source, card)
    shape, pixel_size = (source.shape[1], source.shape[2]), settings.get("pixel_size")
    resolution, predicted = resolution_of(source, card, pixel_size), predicted_shape(source, card, pixel_size)
    if card.output == "labels" and settings.get("layers"):
        raise UsageError(
            f"model {card.name} gives labels and no probabilities, of which layers are made; leave --layers out"
        )
    compute = compute_of(settings, device)
    tiling, memory = _fit_memory(card, settings, promises(source, card, settings, compute, needs))
    picked: Picked = getattr(source, "picked", Picked())
    return Plan(
        source=source.name, picked=picked.bands, valid_band=picked.valid,
        model=card.name, bands=source.shape[0], dtype=str(source.dtype), shape=shape,
        predicted=predicted, output=output_shape(shape, predicted, resolution, settings.get("resolution", "full")),
        region=asked.region, mask=asked.mask, tiling=tiling, compute=compute, classes=len(card.classes),
        label_dtype=card.label_dtype, nodata=card.nodata, memory=memory,
        reach=stated(card), layers=_layers(settings, tiling),
    )  # fmt: skip


def compute_of(settings: Settings, device: str) -> Compute:
    """Return where and how the model runs; `device` and the precision of the settings are resolved."""
    return Compute(
        device=device,
        precision=settings.get("precision", "fp32"),
        batch=settings.get("batch") or usual_batch(device),
        workers=settings.get("workers") or 0,
    )


def usual_batch(device: str) -> int:
    """Return the tiles that a model sees at once where nobody says."""
    return 1 if device == "cpu" else 8


def _layers(settings: Settings, cut: Tiling) -> tuple[str, ...]:
    return check_blended(layer_names(settings.get("layers", ())), cut.window, cut.overlap)


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


def tile_size(card: ModelCard, settings: Settings) -> int:
    """Return the tile size asked for, or one that keeps the cost of an exact overlap to that of half a tile."""
    stride, asked = card.stride, _number(settings.get("tile", "auto"))
    usual = -(-(card.tile or DEFAULT_TILE) // stride) * stride
    exact, largest = 4 * (card.halo or 0), max(usual, LARGEST_TILE // stride * stride)
    return asked or max(usual, exact if settings.get("tolerance") == 0 else min(exact, largest))


def choose_tiles(card: ModelCard, settings: Settings) -> Tiling:
    """Return tile, overlap and window shape, each as asked for or chosen from the model card. Raises `UsageError`."""
    stride, halo = card.stride, card.halo
    tile = tile_size(card, settings)
    overlap = _number(settings.get("overlap", "auto"))
    if overlap is None:
        overlap = 2 * halo if halo is not None else tile // 2 // stride * stride
    window = settings.get("window_shape", "auto")
    if window == "auto":
        window = "crop" if halo is not None and overlap >= 2 * halo else "gaussian"
    if window == "crop" and settings.get("overlap", "auto") == "auto":
        overlap = overlap // (2 * stride) * 2 * stride  # half of it on each side
    tiling = Tiling(tile, overlap, window, stride, halo, settings.get("block") or BLOCK)
    _check(tiling)
    return tiling


def _number(setting: int | str) -> int | None:
    return int(setting) if setting != "auto" else None


def _check(cut: Tiling) -> None:
    if cut.window not in ("crop", *PROFILES):
        raise UsageError(f"window shape {cut.window!r} is not known; use auto, crop, {', '.join(sorted(PROFILES))}")
    _check_multiple("tile", cut.tile, cut.stride, "the model's total stride")
    twice = 2 if cut.window == "crop" else 1
    _check_multiple("overlap", cut.overlap, twice * cut.stride, f"{twice} x the model's total stride", least=0)
    least = -(-cut.overlap * 32 // (31 * cut.stride)) * cut.stride
    most = cut.tile * 31 // 32 // (twice * cut.stride) * twice * cut.stride
    if cut.overlap > most:
        raise UsageError(
            f"overlap {cut.overlap} leaves too little of tile {cut.tile}; "
            f"use an overlap of at most {most} or a tile of at least {least}"
        )


def _check_multiple(name: str, size: int, unit: int, what: str, least: int = 1) -> None:
    if size < least or size % unit:
        below, above = size // unit * unit, (size // unit + 1) * unit
        use = f"{below} or {above}" if below >= least else str(max(above, least * unit))
        raise UsageError(f"{name} {size} is not a multiple of {unit} ({what}); use {use}")


def promises(source: Source, card: ModelCard, settings: Settings, compute: Compute, needs: Needs) -> Promise:
    """Return what tells the memory of a tiling of this image."""
    predicted = predicted_shape(source, card, settings.get("pixel_size"))
    shrink = max(1.0, source.shape[1] / predicted[0]) * max(1.0, source.shape[2] / predicted[1])

    def promise(tiling: Tiling) -> Memory:
        grid = tiling.grid(predicted)
        load = Load(
            classes=len(card.classes), bands=card.bands, itemsize=source.dtype.itemsize, grid=grid, shrink=shrink,
            batch=compute.batch, cache=getattr(source, "cache_bytes", CACHE), needs=needs,
            held=getattr(source, "held_bytes", 0),
            layers=_layers(settings, tiling), number=compute.itemsize,
        )  # fmt: skip
        return load.promise(compute.workers, compute.in_flight)

    return promise


def with_workers(plan: Plan, compute: Compute, promise: Promise, limit: str | int | None) -> Plan:
    """Return a plan for another number of worker processes. Raises `UsageError` where `limit` cannot be kept so."""
    memory = promise(plan.tiling)
    if limit is not None and memory.total > parse_bytes(limit):
        raise UsageError(
            f"memory {format_bytes(parse_bytes(limit))} cannot be kept by the run that was interrupted with "
            f"{compute.workers} worker processes, which take {format_bytes(memory.total)}; give fewer --workers"
        )
    return replace(plan, compute=compute, memory=memory)


def _fit_memory(card: ModelCard, settings: Settings, promise: Promise) -> tuple[Tiling, Memory]:
    """Return the tiling and its memory promise, with smaller blocks where the `memory` setting asks for it."""
    tiling = choose_tiles(card, settings)
    limit = parse_bytes(settings["memory"]) if settings.get("memory") else None
    while (memory := promise(tiling)).total > (limit or math.inf):
        if tiling.block <= tiling.tile:
            raise UsageError(
                f"memory {format_bytes(limit or 0)} cannot be kept: the least for tiles of {tiling.tile} px and "
                f"{settings.get('workers') or 0} worker processes is {format_bytes(memory.total)}; "
                "give that much, a smaller --tile or fewer --workers"
            )
        tiling = replace(tiling, block=max(tiling.tile, tiling.block // 2))
    return tiling, memory
