"""This module computes how many bytes a run takes at most, before the run begins.

The number does not depend on the image's height or width, except for a small record of each block if there are many.
Constants were measured as peak RSS of the process tree on Linux, x86-64, torch CPU; see docs/memory.md.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tilepipe.box import Box
from tilepipe.inference.device import Compute
from tilepipe.inference.runtimes.base import LIBRARY, name_of
from tilepipe.models.card import ModelCard
from tilepipe.sources.base import Source
from tilepipe.tiling.grid import Grid
from tilepipe.tiling.statistics_grid import Statistics
from tilepipe.tiling.tiling import Tiling
from tilepipe.tiling.uncertainty import INFORMATION, PROBABILITIES, further_planes

if TYPE_CHECKING:
    from tilepipe.models.model import Model

CACHE = 64 << 20
"""Bytes of decoded image that a source is taken to keep if the source does not say how many."""

MiB = 1 << 20

GROUP = Path("/sys/fs/cgroup")
"""Folder in which Linux says the memory limit of a container or a job."""

PROCESS = 520 * MiB
"""Bytes of a process that has imported tilepipe, torch, dask, zarr and rasterio, and of free memory kept by its
heap."""
EXPORTED = 144 * MiB
"""Further bytes of a process that has exported a network to compute it in bands: torch imports much for that."""
DECODERS = 32 * MiB
"""Bytes of decode buffers, besides the bytes that the source says it keeps."""
EXPORT = 224 * MiB
"""Bytes for writing products: GDAL's cache, bands of rows, and compression."""

PLANE = 2 * MiB
"""Further bytes for writing each band of probabilities: blocks of all bands are compressed together."""
HEAPS = 64 * MiB
"""Bytes that the heaps of threads keep after maps of statistics were made and freed piece by piece."""
FEW = 10_000
"""Number of blocks whose records fit into `PROCESS`."""
LINE = 576
"""Bytes kept of each block by the process that hands out blocks: the ledger line, and what the line was compared
with."""
STRIPS = 416
"""Further bytes that this process keeps of each block if blocks are blended."""
LAYER = 192
"""Further bytes that this process keeps of each block for each uncertainty layer."""


@dataclass(frozen=True)
class Memory:
    """The memory that a run does not exceed (bytes), divided by use."""

    processes: int
    """Memory of interpreters and libraries (bytes)."""
    model: int
    """Memory of weights, activations and their copies (bytes)."""
    tiles: int
    """Memory of tiles that are read, decoded and normalised (bytes)."""
    blocks: int
    """Memory of sums and labels of the blocks in work (bytes)."""
    export: int
    """Memory for writing products, after prediction (bytes)."""
    image: int = 0
    """Memory of the image (bytes), if all of the image lies in memory."""
    statistics: int = 0
    """Memory for statistics of patches, before prediction (bytes)."""
    ledger: int = 0
    """Memory of the records of blocks, if there are more than `FEW` blocks (bytes)."""

    @property
    def total(self) -> int:
        """Largest memory of the whole process tree (bytes): statistics, prediction and export follow each other."""
        # Statistics, prediction and export never run at the same time, so the largest of them counts and not their sum.
        kept = self.processes + self.image + self.ledger
        return kept + max(self.model + self.tiles + self.blocks, self.statistics, self.export)

    def to_dict(self) -> dict[str, int]:
        """Return the parts and the total, in bytes."""
        return {**asdict(self), "total": self.total}


class Needs(NamedTuple):
    """The bytes that a model needs, and the number of pixels that they are needed for."""

    weights: int
    """Bytes of the weights."""
    tile: int
    """Peak of a forward pass (bytes per pixel of a tile)."""
    patch: int = 0
    """Peak of a forward pass that takes statistics (bytes per pixel of a patch)."""
    patches: int = 0
    """Number of pixels of a patch that statistics are taken from; 0 if no statistics are taken."""
    heaps: int = 0
    """Further bytes that heaps keep."""
    band: int = 0
    """Memory of a band and of the rows kept for the next one (bytes per pixel of its width); 0 without bands."""


@dataclass(frozen=True)
class Load:
    """Everything that decides the memory of a run, except its tiling."""

    source: Source
    """The image at full resolution."""
    card: ModelCard
    """The model's card."""
    predicted: tuple[int, int]
    """Shape of the prediction grid, (height, width)."""
    compute: Compute
    """Device, precision, batch size and worker processes of the model."""
    needs: Needs
    """Bytes that the model needs."""
    layers: tuple[str, ...] = ()
    """Names of the uncertainty layers and of the probabilities that are kept."""
    region: Box | None = None
    """Part of the full-resolution grid whose blocks are counted. If None, the blocks are taken to be few."""

    def promise(self, tiling: Tiling) -> Memory:
        """Return the memory that a run with this tiling takes at most."""
        grid, needs, compute = tiling.grid(self.predicted), self.needs, self.compute
        batch, number, classes = compute.batch, compute.itemsize, len(self.card.classes)
        # What lies in memory at once is a tile, or a band of it.
        rows = tiling.columns.height if tiling.columns else grid.y.tile
        pixels, zone = rows * grid.x.tile, grid.y.zone * grid.x.zone
        block = (8 + 3 * len(self.layers)) * zone
        passed = needs.band * grid.x.tile + EXPORTED if tiling.bands else needs.tile * batch * pixels
        results = 2 * batch * pixels * (2 + number * classes)
        if grid.blended:
            planes = classes + further_planes(self.layers)
            block += 12 * planes * (grid.y.zone + grid.y.tile) * (grid.x.zone + grid.x.tile)
        if grid.blended or self.layers:
            results += batch * pixels * (12 + 2 * number) * classes
        if self.layers:  # The labels, squares and codes of one tile are made from int64 planes.
            results += 32 * pixels
        if INFORMATION in self.layers:  # The answers' entropies are taken in float64, class by class.
            results += batch * pixels * (24 * classes + 32)
        # Without worker processes this process computes. With them it only hands out blocks, but its libraries are
        # loaded too.
        each = max(compute.workers, 1)
        return Memory(
            processes=PROCESS * (compute.workers + 1),
            model=each * (needs.heaps + 2 * needs.weights + passed + results + self._runtime()),
            tiles=each * self._reading(pixels, 4),
            blocks=block * compute.in_flight,
            export=EXPORT + PLANE * sum(name.startswith(PROBABILITIES) for name in self.layers),
            image=getattr(self.source, "held_bytes", 0) * (compute.workers + 1),
            statistics=each * self._patches() if needs.patches else 0,
            ledger=max(0, self._blocks(grid) - FEW) * (LINE + STRIPS * grid.blended + LAYER * len(self.layers)),
        )

    def _runtime(self) -> int:
        """Return the bytes of the runtime's libraries and its copies of the weights; 0 for torch."""
        library = LIBRARY.get(name_of(self.compute.runtime), 0)
        return library + (3 * self.needs.weights if library else 0)

    def _reading(self, pixels: int, at_once: int) -> int:
        """Return the bytes needed to read `at_once` pieces of the image at the same time, each of `pixels` pixels."""
        # A source may be read at full resolution and averaged, so all the pixels under a tile count and not those of
        # the tile alone.
        (_, height, width), (rows, columns) = self.source.shape, self.predicted
        shrink = max(1.0, height / rows) * max(1.0, width / columns)  # pixels read per pixel of the prediction grid
        bands, itemsize = self.card.bands, self.source.dtype.itemsize
        read = bands * pixels * (shrink * (itemsize + 16) + itemsize)
        batch = 3 * self.compute.batch * bands * pixels * (itemsize + self.compute.itemsize)
        return int(batch + at_once * read) + DECODERS + int(getattr(self.source, "cache_bytes", CACHE))

    def _patches(self) -> int:
        """Return the bytes that statistics take in one process; it reads for two units while it computes one unit."""
        needs, batch = self.needs, self.compute.batch
        passes = needs.heaps + 2 * needs.weights + needs.patch * batch * needs.patches
        return passes + self._reading(needs.patches, 2)

    def _blocks(self, grid: Grid) -> int:
        """Return the number of blocks of the region; 0 if there is no region."""
        if self.region is None:
            return 0
        _, height, width = self.source.shape
        rows, columns = grid.block_ranges(self.region.on_grid((height, width), grid.shape))
        return len(rows) * len(columns)


def needs_of(model: Model, dtype: str, statistics: Statistics | None, shape: tuple[int, int], stride: int) -> Needs:
    """Return the memory that a model needs if its global operations use these `statistics`.

    Statistics of a field are taken from patches of a grid of `shape` (height, width).
    """
    # The facts beside a bundled model hold only the peak of a plain pass in fp32.
    if model.facts is not None and not statistics and dtype == "float32":
        return Needs(model.facts.weights, model.facts.peak)
    # This import opens torch, which a plan with a bundled model does without (tests/promises/test_light_imports.py).
    from tilepipe.inference.profile.footprint import footprint

    live = Needs(*footprint(model, dtype=dtype))
    if statistics is None:
        return live
    # Statistics of the whole image are taken from the tiles themselves, which are counted already.
    pixels = math.prod(statistics.patches(shape, stride).tile_shape) if statistics.kind == "field" else 0
    held = footprint(model, values=sum(statistics.values), dtype=dtype)
    return Needs(*held, patch=live.tile, patches=pixels, heaps=HEAPS)


def machine_memory() -> tuple[int, int] | None:
    """Return the free bytes and all bytes of this machine's memory, or of the control group that this process is in.

    Returns None if the system does not say the numbers (Linux does).
    """
    with suppress(OSError, ValueError, KeyError, IndexError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        said = {name: int(size.split()[0]) << 10 for name, _, size in (line.partition(":") for line in lines)}
        # MemFree would leave out the cache of files, which Linux gives back as soon as a program needs memory.
        free, size = said["MemAvailable"], said["MemTotal"]
        with suppress(OSError, ValueError):  # the file says "max" if there is no limit
            # In a container /proc/meminfo still speaks of the whole machine, but the system ends a process at the limit
            # of its group.
            limit = int((GROUP / "memory.max").read_text(encoding="ascii"))
            used = int((GROUP / "memory.current").read_text(encoding="ascii"))
            free, size = min(free, max(0, limit - used)), min(size, limit)
        return free, size
    return None


def format_bytes(size: int) -> str:
    """Return '1.50 GiB' or '512 MiB', never less than `size`: a limit that a message names must be large enough."""
    return f"{-(-100 * size // (1 << 30)) / 100:.2f} GiB" if size >= 1 << 30 else f"{-(-size // MiB)} MiB"


def format_free(size: int) -> str:
    """Return '1.50 GiB' or '512 MiB', never more than `size`: a message must not promise more than there is."""
    return f"{100 * size // (1 << 30) / 100:.2f} GiB" if size >= 1 << 30 else f"{size // MiB} MiB"
