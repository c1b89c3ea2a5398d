"""Memory: the promise, computed before a run from the plan's numbers alone.

It does not depend on the image's height or width, but for what is kept of blocks where there are many.
Constants were measured as peak RSS of the process tree on Linux, x86-64, torch CPU; see docs/memory.md.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import NamedTuple

from tilepipe.box import Box
from tilepipe.errors import UsageError
from tilepipe.inference.device import Compute
from tilepipe.models.card import ModelCard
from tilepipe.planning.resolution import predicted_shape
from tilepipe.planning.settings import Settings
from tilepipe.sources.base import Source
from tilepipe.tiling.grid import Grid
from tilepipe.tiling.tiling import Tiling
from tilepipe.tiling.uncertainty import check_blended, layer_names

CACHE = 64 << 20
"""Bytes of decoded image that a source is taken to keep where it does not say."""

MiB = 1 << 20

PROCESS = 520 * MiB
"""A process that has imported tilepipe, torch, dask, zarr and rasterio, with its heap's slack."""
DECODERS = 32 * MiB
"""Decode buffers, beside what the source says it keeps."""
EXPORT = 224 * MiB
"""Writing products: GDAL cache, bands of rows, compression."""

HEAPS = 64 * MiB
"""What threads' heaps keep of maps of statistics, which are made and thrown away piece by piece."""
FEW = 10_000
"""Blocks of which what is kept lies within the slack of a process."""
LINE = 512
"""What the process that hands out the blocks keeps of each: its line of the ledger, and what it was compared with."""
STRIPS = 320
"""What it keeps beside that where blocks are blended."""
LAYER = 192
"""The same for each uncertainty layer."""


@dataclass(frozen=True)
class Memory:
    """Bytes that a run is promised to stay within, by what they are for."""

    processes: int
    """Interpreters and libraries."""
    model: int
    """Weights, activations and their copies."""
    tiles: int
    """Tiles being read, decoded and normalised."""
    blocks: int
    """Sums and labels of the blocks in flight."""
    export: int
    """Writing products, after prediction."""
    image: int = 0
    """The image, where it lies in memory whole."""
    statistics: int = 0
    """Taking statistics of windows, before prediction."""
    ledger: int = 0
    """What is kept of each block, where there are more than `FEW`."""

    @property
    def total(self) -> int:
        """The promise for the whole process tree; statistics, prediction and export come one after another."""
        kept = self.processes + self.image + self.ledger
        return kept + max(self.model + self.tiles + self.blocks, self.statistics, self.export)

    def to_dict(self) -> dict[str, int]:
        """Return the parts and the total."""
        return {**asdict(self), "total": self.total}


class Needs(NamedTuple):
    """Bytes that a model needs, and on how much."""

    weights: int
    """Of the weights."""
    tile: int
    """Peak of a forward pass, per pixel of a tile."""
    window: int = 0
    """The same per pixel of a window that statistics are taken of."""
    windows: int = 0
    """Pixels of such a window; 0 for none."""
    heaps: int = 0
    """What heaps keep beside it."""


@dataclass(frozen=True)
class Load:
    """What decides the memory of one predicting process."""

    classes: int
    """Number of classes."""
    bands: int
    """Bands that are read."""
    itemsize: int
    """Bytes of a pixel value."""
    grid: Grid
    """Tiles and blocks."""
    batch: int
    """Tiles that the model sees at once."""
    shrink: float
    """Source pixels read per pixel of the prediction grid; 1 without resampling."""
    cache: int
    """Bytes of decoded image that the source keeps."""
    needs: Needs
    """Of the model."""
    held: int = 0
    """Bytes of the image that lie in each process."""
    layers: tuple[str, ...] = ()
    """Uncertainty layers."""
    number: int = 4
    """Bytes of a number that the model takes and gives: 8 in fp64."""
    count: int = 0
    """Blocks of the run."""

    def promise(self, workers: int, in_flight: int) -> Memory:
        """Return the promise for `workers` processes beside this one, 0 for this one alone."""
        grid, needs = self.grid, self.needs
        pixels, zone = grid.y.tile * grid.x.tile, grid.y.zone * grid.x.zone
        block = (8 + 3 * len(self.layers)) * zone
        results = 2 * self.batch * pixels * (2 + self.number * self.classes)
        if grid.blended:
            planes = self.classes + ("disagreement" in self.layers)
            block += 12 * planes * (grid.y.zone + grid.y.tile) * (grid.x.zone + grid.x.tile)
        if grid.blended or self.layers:
            results += self.batch * pixels * (12 + 2 * self.number) * self.classes
        if self.layers:  # of one tile: int64 planes that its labels, squares and codes are made of
            results += 32 * pixels
        each = max(workers, 1)
        return Memory(
            processes=PROCESS * (workers + 1),
            model=each * (needs.heaps + 2 * needs.weights + needs.tile * self.batch * pixels + results),
            tiles=each * self._reading(pixels, 4),
            blocks=block * in_flight,
            export=EXPORT,
            image=self.held * (workers + 1),
            statistics=each * self._windows() if needs.windows else 0,
            ledger=max(0, self.count - FEW) * (LINE + STRIPS * grid.blended + LAYER * len(self.layers)),
        )

    def _reading(self, pixels: int, at_once: int) -> int:
        """Return the bytes of pieces of the image of so many pixels, so many of which are read at once."""
        read = self.bands * pixels * (self.shrink * (self.itemsize + 16) + self.itemsize)
        batch = 3 * self.batch * self.bands * pixels * (self.itemsize + self.number)
        return int(batch + at_once * read) + DECODERS + self.cache

    def _windows(self) -> int:
        """Return the bytes of taking statistics in one process: two units are read for, one is computed."""
        needs = self.needs
        return (
            needs.heaps
            + 2 * needs.weights
            + needs.window * self.batch * needs.windows
            + self._reading(needs.windows, 2)
        )


def give_back() -> None:
    """Return what is free on the heaps to the system, where the C library can: glibc keeps what threads have freed."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def parse_bytes(text: str | int) -> int:
    """Return the bytes of '4GiB', '500MB' or a number. Raises `UsageError`."""
    if isinstance(text, int):
        return text
    units = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmg]i?)?b?\s*", text.lower())
    if not match:
        raise UsageError(f"memory {text!r} is not a size; write it like 4GiB or 500MB")
    return int(float(match[1]) * units[match[2] or ""])


def limit_of(settings: Settings) -> int | None:
    """Return the bytes that a run may take; None where nobody says.

    Raises `UsageError` for a size that is none, and for a number without a unit that is less than 1 MiB: its unit is
    missing.
    """
    asked = settings.get("memory")
    if not asked:
        return None
    size, plain = parse_bytes(asked), str(asked).strip()
    if 0 < size < MiB and plain.isdecimal():
        raise UsageError(f"memory {plain} is {plain} bytes; write {plain}MiB for that many MiB")
    return size


def format_bytes(size: int) -> str:
    """Return '1.50 GiB' or '512 MiB', never less than `size`: what a message says must be enough where it is given."""
    return f"{-(-100 * size // (1 << 30)) / 100:.2f} GiB" if size >= 1 << 30 else f"{-(-size // MiB)} MiB"


Promise = Callable[[Tiling], Memory]
"""Memory that a run with a tiling takes at most."""


def layers_of(settings: Settings, cut: Tiling) -> tuple[str, ...]:
    """Return the layers asked for. Raises `UsageError` where tiles that are cut like this cannot give them."""
    return check_blended(layer_names(settings.get("layers", ())), cut.window, cut.overlap)


def promises(
    source: Source, card: ModelCard, settings: Settings, compute: Compute, needs: Needs, region: Box | None = None
) -> Promise:
    """Return what tells the memory of a tiling of this image, or of a region of it; without one, of a few blocks."""
    predicted = predicted_shape(source, card, settings.get("pixel_size"))
    shrink = max(1.0, source.shape[1] / predicted[0]) * max(1.0, source.shape[2] / predicted[1])

    def promise(tiling: Tiling) -> Memory:
        grid = tiling.grid(predicted)
        load = Load(
            classes=len(card.classes), bands=card.bands, itemsize=source.dtype.itemsize, grid=grid, shrink=shrink,
            batch=compute.batch, cache=getattr(source, "cache_bytes", CACHE), needs=needs,
            held=getattr(source, "held_bytes", 0),
            layers=layers_of(settings, tiling), number=compute.itemsize,
            count=_blocks_over(grid, region, source.shape[1:]) if region else 0,
        )  # fmt: skip
        return load.promise(compute.workers, compute.in_flight)

    return promise


def _blocks_over(grid: Grid, region: Box, shape: tuple[int, int]) -> int:
    """Return how many blocks a region of the full-resolution grid takes."""
    (height, width), (full_height, full_width) = grid.shape, shape
    rows, columns = grid.block_ranges(
        Box(
            region.y0 * height // full_height,
            region.x0 * width // full_width,
            -(-region.y1 * height // full_height),
            -(-region.x1 * width // full_width),
        )
    )
    return len(rows) * len(columns)
