"""Memory: the promise, computed before a run.

It does not depend on the image's height or width, but for what is kept of blocks where there are many.
Constants were measured as peak RSS of the process tree on Linux, x86-64, torch CPU; see docs/memory.md.
"""

from __future__ import annotations

import ctypes
import math
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tilepipe.box import Box
from tilepipe.inference.device import Compute
from tilepipe.models.card import ModelCard
from tilepipe.sources.base import Source
from tilepipe.tiling.grid import Grid
from tilepipe.tiling.statistics_grid import Statistics
from tilepipe.tiling.tiling import Tiling

if TYPE_CHECKING:
    from tilepipe.models.model import Model

CACHE = 64 << 20
"""Bytes of decoded image that a source is taken to keep where it does not say."""

MiB = 1 << 20

GROUP = Path("/sys/fs/cgroup")
"""Where Linux says the memory limit of a container or a job."""

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
    """Taking statistics of patches, before prediction."""
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
    patch: int = 0
    """The same per pixel of a patch that statistics are taken of."""
    patches: int = 0
    """Pixels of such a patch; 0 for none."""
    heaps: int = 0
    """What heaps keep beside it."""


@dataclass(frozen=True)
class Load:
    """What decides the memory of a run beside its tiling."""

    source: Source
    """The image at full resolution."""
    card: ModelCard
    """The model's card."""
    predicted: tuple[int, int]
    """Prediction grid, (height, width)."""
    compute: Compute
    """Where and how the model runs, in how many processes."""
    needs: Needs
    """Of the model."""
    layers: tuple[str, ...] = ()
    """Uncertainty layers."""
    region: Box | None = None
    """Part of the full-resolution grid whose blocks are counted; None: they are taken to be few."""

    def promise(self, tiling: Tiling) -> Memory:
        """Return the memory that a run with this tiling takes at most."""
        grid, needs, compute = tiling.grid(self.predicted), self.needs, self.compute
        batch, number, classes = compute.batch, compute.itemsize, len(self.card.classes)
        pixels, zone = grid.y.tile * grid.x.tile, grid.y.zone * grid.x.zone
        block = (8 + 3 * len(self.layers)) * zone
        results = 2 * batch * pixels * (2 + number * classes)
        if grid.blended:
            planes = classes + ("disagreement" in self.layers)
            block += 12 * planes * (grid.y.zone + grid.y.tile) * (grid.x.zone + grid.x.tile)
        if grid.blended or self.layers:
            results += batch * pixels * (12 + 2 * number) * classes
        if self.layers:  # of one tile: int64 planes that its labels, squares and codes are made of
            results += 32 * pixels
        each = max(compute.workers, 1)
        return Memory(
            processes=PROCESS * (compute.workers + 1),
            model=each * (needs.heaps + 2 * needs.weights + needs.tile * batch * pixels + results),
            tiles=each * self._reading(pixels, 4),
            blocks=block * compute.in_flight,
            export=EXPORT,
            image=getattr(self.source, "held_bytes", 0) * (compute.workers + 1),
            statistics=each * self._patches() if needs.patches else 0,
            ledger=max(0, self._blocks(grid) - FEW) * (LINE + STRIPS * grid.blended + LAYER * len(self.layers)),
        )

    def _reading(self, pixels: int, at_once: int) -> int:
        """Return the bytes of pieces of the image of so many pixels, so many of which are read at once."""
        (_, height, width), (rows, columns) = self.source.shape, self.predicted
        shrink = max(1.0, height / rows) * max(1.0, width / columns)  # pixels read per pixel of the prediction grid
        bands, itemsize = self.card.bands, self.source.dtype.itemsize
        read = bands * pixels * (shrink * (itemsize + 16) + itemsize)
        batch = 3 * self.compute.batch * bands * pixels * (itemsize + self.compute.itemsize)
        return int(batch + at_once * read) + DECODERS + int(getattr(self.source, "cache_bytes", CACHE))

    def _patches(self) -> int:
        """Return the bytes of taking statistics in one process: two units are read for, one is computed."""
        needs, batch = self.needs, self.compute.batch
        passes = needs.heaps + 2 * needs.weights + needs.patch * batch * needs.patches
        return passes + self._reading(needs.patches, 2)

    def _blocks(self, grid: Grid) -> int:
        """Return how many blocks the region takes; 0 without one."""
        if self.region is None:
            return 0
        _, height, width = self.source.shape
        rows, columns = grid.block_ranges(self.region.on_grid((height, width), grid.shape))
        return len(rows) * len(columns)


def needs_of(model: Model, dtype: str, statistics: Statistics | None, shape: tuple[int, int], stride: int) -> Needs:
    """Return what a model takes in memory that has these `statistics` put in.

    Where they are a field, they are taken of patches of a grid of `shape` (height, width).
    """
    # The facts beside a bundled model hold the peak of a plain pass in fp32 alone.
    if model.facts is not None and not statistics and dtype == "float32":
        return Needs(model.facts.weights, model.facts.peak)
    from tilepipe.inference.profile.footprint import footprint

    live = Needs(*footprint(model, dtype=dtype))
    if statistics is None:
        return live
    pixels = math.prod(statistics.patches(shape, stride).tile_shape) if statistics.kind == "field" else 0
    held = footprint(model, values=sum(statistics.values), dtype=dtype)
    return Needs(*held, patch=live.tile, patches=pixels, heaps=HEAPS)


def machine_memory() -> tuple[int, int] | None:
    """Return the free bytes and all bytes of this machine's memory, or of the control group that this process is in.

    None if the system does not say (Linux does).
    """
    with suppress(OSError, ValueError, KeyError, IndexError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        said = {name: int(size.split()[0]) << 10 for name, _, size in (line.partition(":") for line in lines)}
        free, size = said["MemAvailable"], said["MemTotal"]
        with suppress(OSError, ValueError):  # "max" where there is no limit
            limit = int((GROUP / "memory.max").read_text(encoding="ascii"))
            used = int((GROUP / "memory.current").read_text(encoding="ascii"))
            free, size = min(free, max(0, limit - used)), min(size, limit)
        return free, size
    return None


def give_back() -> None:
    """Return what is free on the heaps to the system, where the C library can: glibc keeps what threads have freed."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def format_bytes(size: int) -> str:
    """Return '1.50 GiB' or '512 MiB', never less than `size`: what a message says must be enough where it is given."""
    return f"{-(-100 * size // (1 << 30)) / 100:.2f} GiB" if size >= 1 << 30 else f"{-(-size // MiB)} MiB"
