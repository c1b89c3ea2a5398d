"""This module defines where the pixels, tiles and blocks of a run lie; this is known before the rest of a plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tilepipe.box import Box
from tilepipe.planning.resolution import nearest_pixel
from tilepipe.tiling.grid import Grid, Index
from tilepipe.tiling.tiling import Tiling


@dataclass(frozen=True)
class Left:
    """The work that is left when polygons or a tissue mask are given."""

    tiles: int
    """Number of tiles that decide a pixel asked for."""
    blocks: int
    """Number of blocks that predict these tiles."""


@dataclass(frozen=True)
class Layout:
    """The grids of an image, the part of it that is asked for, and its tiles; shapes are (height, width) in pixels."""

    shape: tuple[int, int]
    """Shape of the full-resolution grid of the image."""
    predicted: tuple[int, int]
    """Shape of the prediction grid: the image at the model's resolution."""
    output: tuple[int, int]
    """Shape of the output grid of the whole image. It is the full resolution unless labels are kept at another one."""
    region: Box
    """Part of the full-resolution grid that is asked for."""
    mask: str
    """Pixels that count as image data ('auto', 'none', 'value:255'), or image data that gets a label: 'tissue/2+64' (64
    is the margin in pixels, 2 the number of the rule), or 'area:' followed by a sha256."""
    tiling: Tiling
    """How the prediction grid is cut and put together."""

    @property
    def grid(self) -> Grid:
        """Tiles and blocks on the prediction grid, as a `Grid`."""
        return self.tiling.grid(self.predicted)

    @property
    def predicted_region(self) -> Box:
        """Box of pixels of the prediction grid that decide the labels of the region."""
        out = self.output_region
        rows, columns = (
            # The last pixel inside decides the end: `stop` itself is no pixel of the region and may lie beyond the
            # grid.
            (nearest_pixel(start, size, of), nearest_pixel(stop - 1, size, of) + 1)
            for (start, stop), size, of in zip(
                ((out.y0, out.y1), (out.x0, out.x1)), self.predicted, self.output, strict=True
            )
        )
        return Box(rows[0], columns[0], rows[1], columns[1])

    @property
    def output_region(self) -> Box:
        """Box of the region on the output grid: all output pixels that touch the region."""
        return self.region.on_grid(self.shape, self.output)

    @property
    def tile_ranges(self) -> tuple[range, range]:
        """Rows and columns of the tiles that decide the region."""
        grid, region = self.grid, self.predicted_region
        return grid.y.tiles_over(region.y0, region.y1), grid.x.tiles_over(region.x0, region.x1)

    @property
    def tile_work(self) -> float:
        """Number of pixels of the tiles that decide the region, per pixel of the region."""
        grid, (rows, columns) = self.grid, self.tile_ranges
        tall = self._rows_in_bands() if self.tiling.columns else len(rows) * grid.y.tile
        return tall * len(columns) * grid.x.tile / self.predicted_region.area

    def _rows_in_bands(self) -> int:
        """Return the rows that a pass in bands sees to decide the region; it goes on from tile to tile."""
        bands, region, padded = self.tiling.columns, self.predicted_region, self.grid.y.padded
        assert bands is not None
        first = max(0, region.y0 // bands.height * bands.height - bands.lead)
        last = -(-(region.y1 + (self.tiling.halo or 0)) // bands.height) * bands.height
        return min(last, padded) - first

    def tiles(self) -> Iterator[Index]:
        """Yield the tiles that decide the region."""
        return self.grid.tiles_over(self.predicted_region)

    def blocks(self) -> Iterator[Index]:
        """Yield the blocks that the region needs, row by row, or column by column where a pass goes on from block to
        block. The earlier neighbours of a block come before it."""
        if self.tiling.columns is None:
            yield from self.grid.blocks_over(self.predicted_region)
            return
        rows, columns = self.grid.block_ranges(self.predicted_region)
        yield from (Index(row, column) for column in columns for row in rows)

    def tiles_of(self, block: Index) -> list[Index]:
        """Return the tiles of a block that decide pixels of the region."""
        region, grid = self.predicted_region, self.grid
        # A block at the border of the region may own tiles that decide nothing of it; these are not predicted.
        return [tile for tile in grid.tiles_of(block) if grid.kept_box(tile) & region]
