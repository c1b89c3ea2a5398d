"""This module defines the workload of a run: what is decided before it, and the tiles, work and disk that follow."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from tilepipe.box import Box
from tilepipe.inference.device import Compute
from tilepipe.planning.fit_row import FitRow
from tilepipe.planning.layout import Layout, Left
from tilepipe.planning.memory import Memory
from tilepipe.planning.receptive_field import Reach
from tilepipe.tiling.grid import Grid, Index
from tilepipe.tiling.statistics_grid import Statistics, nodes_of
from tilepipe.tiling.tiling import SMALL
from tilepipe.tiling.uncertainty import further_planes, probability_names


@dataclass(frozen=True, repr=False)
class Workload(Layout):
    """Everything that is decided before a run, and what it costs. Sizes are in pixels."""

    source: str
    """Name of the image."""
    model: str
    """Name of the model."""
    bands: int
    """Number of bands that are read."""
    dtype: str
    """Type of the image's pixels, such as 'uint8'."""
    compute: Compute
    """Device, precision, batch size and worker processes of the model."""
    classes: int
    """Number of classes."""
    label_dtype: str
    """Type of the labels: 'uint8' or 'uint16'."""
    nodata: int
    """Label of pixels that are not computed or hold no image data."""
    memory: Memory
    """Memory that the run does not exceed (bytes)."""
    reach: Reach
    """Reach of the model on each side (pixels), and how it became known."""
    layers: tuple[str, ...] = ()
    """Uncertainty layers that are kept beside the labels: margin, entropy, disagreement, mutual-information."""
    probabilities: bool = False
    """Whether the probability of each class is kept beside the labels."""
    statistics: Statistics | None = None
    """Source of the statistics of the model's global operations. None if it has no such operation,
    or if each tile uses its own statistics."""
    tta: str = "none"
    """Positions of each tile whose probabilities are averaged: 'none' for one, 'd4' for eight."""
    picked: tuple[int, ...] = ()
    """Numbers of the bands that are read, from 1. Empty if all bands of the file are read in their order."""
    valid_band: int = 0
    """Number of the band that says which pixels hold image data; 0 if the file itself says it."""
    why: str = ""
    """Reason for the size of the tiles, if the user gave none."""
    left: Left | None = None
    """Tiles and blocks that polygons or a tissue mask leave to compute; None if neither is given."""
    agreement: str = ""
    """Sentence about the runtime beside torch; '' if torch computes."""
    holes: bool = False
    """Whether pixels without image data may make the work less. Only reading the image shows how much less."""
    with_image: bool = field(default=False, compare=False)
    """Whether an OME-Zarr holds the image beside its labels, which takes room on the disk."""
    # The rows hold what the machine has free at the moment, so they do not make two plans differ.
    fit_table: tuple[FitRow, ...] = field(default=(), compare=False)
    """The fit table: how image, model and machine fit, one row per question."""

    @property
    def kept(self) -> tuple[str, ...]:
        """Names of all that is kept beside the labels: layers, and the probability of each class."""
        return (*self.layers, *(probability_names(self.classes) if self.probabilities else ()))

    @property
    def exact(self) -> bool:
        """Whether labels equal those of one pass over the whole image."""
        return self.full_context and (self.statistics is None or self.statistics.kind == "whole")

    @property
    def full_context(self) -> bool:
        """Whether every kept pixel has the model's measured reach around it: labels do not depend on the tiles."""
        # One tile is the whole image, so it lacks no context, whatever the reach is.
        one_tile = self.grid.y.count == self.grid.x.count == 1
        return one_tile or (self.reach.measured and self.holds_halo)

    @property
    def holds_halo(self) -> bool:
        """Whether each tile keeps only pixels that see all that the model needs to see."""
        cut = self.tiling
        # A window that fades also gives weight to pixels near the edge of a tile, which lack context; only crop windows
        # drop them.
        return cut.window == "crop" and cut.halo is not None and cut.overlap >= 2 * cut.halo

    @property
    def tile_count(self) -> int:
        """Number of tiles that are predicted. It is the largest possible number if there may be `holes`."""
        if self.left is not None:
            return self.left.tiles
        rows, columns = self.tile_ranges
        return len(rows) * len(columns)

    @property
    def patches(self) -> Grid:
        """Grid of the patches that statistics are taken of."""
        assert self.statistics is not None
        return self.statistics.patches(self.predicted, self.tiling.stride)

    @property
    def nodes(self) -> Box:
        """Rows and columns of the patches whose statistics the region's tiles need."""
        grid, (rows, columns) = self.grid, self.tile_ranges
        # The tiles of the region are a rectangle of rows and columns, so the two corner tiles span the pixels of all of
        # them.
        first, last = grid.tile_box(Index(rows[0], columns[0])), grid.tile_box(Index(rows[-1], columns[-1]))
        return nodes_of(self.patches, Box(first.y0, first.x0, last.y1, last.x1))

    @property
    def work(self) -> float:
        """Largest computing cost, as a multiple of one pass over the region."""
        if self.tiling.columns and not self.left:
            return self.tile_work
        return self.tile_count * self.tile_pixels / self.predicted_region.area + self.statistics_work

    @property
    def tile_pixels(self) -> int:
        """Number of pixels that the model sees for one tile; in bands a pass goes on from tile to tile."""
        bands, (height, width) = self.tiling.columns, self.grid.tile_shape
        return width * (min(bands.rows, height) if bands else height)

    @property
    def statistics_work(self) -> float:
        """Part of `work` that takes statistics. If they are of the whole image, this is the largest possible part."""
        if self.statistics is None:
            return 0.0
        if self.statistics.kind == "whole":
            grid = self.grid
            # Statistics of the whole image need all of its tiles, also for a small region, and a pass for each
            # operation, which sees what the operations before it made.
            tiles = grid.y.count * grid.x.count * grid.y.tile * grid.x.tile
            return len(self.statistics.values) * tiles / self.predicted_region.area
        return self.nodes.area * self.patches.y.tile * self.patches.x.tile / self.predicted_region.area

    @property
    def baseline_work(self) -> float:
        """Value of `work` for tiles of this size that overlap by half, as blended tiles usually do."""
        cut = self.tiling
        # Half of a tile is rounded down, since an overlap must be a multiple of the stride.
        half = replace(cut, overlap=cut.tile // 2 // cut.stride * cut.stride, window="gaussian", bands=None)
        return replace(self, tiling=half).tile_work

    @property
    def whole(self) -> Self:
        """Plan of the whole image with the same choices."""
        return replace(self, region=Box.of_shape(*self.shape), left=None)

    @property
    def is_small(self) -> bool:
        """Whether tiles reach so far beyond the region that `work` says more about its size than about the tiles."""
        return self.work > SMALL * self.whole.work

    def disk(self) -> int:
        """Return the largest number of bytes that the work directory and one product take, without compression."""
        labels, sums = self._disk()
        return labels + sums

    def least_disk(self, compression: int) -> int:
        """Return the bytes that are taken if labels are compressed to one part in `compression`."""
        labels, sums = self._disk()
        return labels // compression + sums

    def _disk(self) -> tuple[int, int]:
        """Return the bytes of labels, layers and image, and those of sums and statistics, which hardly compress."""
        size = 1 if self.label_dtype == "uint8" else 2
        y, x, strips = self.grid.y, self.grid.x, 0
        if self.grid.blended:  # Strips are kept for one row of blocks and for the blocks in work.
            one = y.zone * x.tile + y.tile * x.zone + y.tile * x.tile
            alive = self.predicted_region.width // x.zone + 3 + self.compute.in_flight
            # A strip holds int64 sums of each class: the blend adds integers of 48 bits (see
            # docs/decisions/exact-integers.md).
            strips = 8 * (self.classes + further_planes(self.layers)) * one * alive
        size += len(self.kept)
        statistics = self.compute.itemsize * self.nodes.area * sum(self.statistics.values) if self.statistics else 0
        # An image lies there with all its levels, each a quarter of the one before.
        image = self.bands * np.dtype(self.dtype).itemsize * 4 / 3 * self.output_region.area if self.with_image else 0
        pixels = self.predicted_region.area * size + 3 * self.output_region.area * size
        return pixels + math.ceil(image), strips + statistics
