"""Layout: where the pixels, tiles and blocks of a run lie. It is known before the rest of a plan is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tilepipe.box import Box
from tilepipe.planning.resolution import nearest_pixel
from tilepipe.tiling.grid import Grid, Index
from tilepipe.tiling.tiling import Tiling


@dataclass(frozen=True)
class Left:
    """What polygons or a tissue mask leave to compute."""

    tiles: int
    """Tiles that decide a pixel that is asked for."""
    blocks: int
    """Blocks that predict them."""


@dataclass(frozen=True)
class Layout:
    """The grids of an image, the part of it that is asked for, and its tiles; shapes are (height, width) in pixels."""

    shape: tuple[int, int]
    """Full-resolution grid of the image."""
    predicted: tuple[int, int]
    """Prediction grid: the image at the model's resolution."""
    output: tuple[int, int]
    """Output grid of the whole image: full resolution unless labels are kept at another one."""
    region: Box
    """Part of the full-resolution grid that is asked for."""
    mask: str
    """What counts as image data ('auto', 'none', 'value:255'), or which of it gets a label: 'tissue+64' (its margin),
    'area:' and a sha256."""
    tiling: Tiling
    """How the prediction grid is cut and put together."""

    @property
    def grid(self) -> Grid:
        """Tiles and blocks on the prediction grid."""
        return self.tiling.grid(self.predicted)

    @property
    def predicted_region(self) -> Box:
        """Pixels of the prediction grid that decide the labels of the region."""
        out = self.output_region
        rows, columns = (
            (nearest_pixel(start, size, of), nearest_pixel(stop - 1, size, of) + 1)
            for (start, stop), size, of in zip(
                ((out.y0, out.y1), (out.x0, out.x1)), self.predicted, self.output, strict=True
            )
        )
        return Box(rows[0], columns[0], rows[1], columns[1])

    @property
    def output_region(self) -> Box:
        """The region on the output grid: the pixels that touch it."""
        return self.region.on_grid(self.shape, self.output)

    @property
    def tile_ranges(self) -> tuple[range, range]:
        """Rows and columns of the tiles that decide the region."""
        grid, region = self.grid, self.predicted_region
        return grid.y.tiles_over(region.y0, region.y1), grid.x.tiles_over(region.x0, region.x1)

    @property
    def tile_work(self) -> float:
        """Pixels of the tiles that decide the region, per pixel of it."""
        grid, (rows, columns) = self.grid, self.tile_ranges
        return len(rows) * len(columns) * grid.y.tile * grid.x.tile / self.predicted_region.area

    def tiles(self) -> Iterator[Index]:
        """Yield the tiles that decide the region."""
        return self.grid.tiles_over(self.predicted_region)

    def blocks(self) -> Iterator[Index]:
        """Yield the blocks that the region needs, row by row: a block's earlier neighbours come before it."""
        return self.grid.blocks_over(self.predicted_region)

    def tiles_of(self, block: Index) -> list[Index]:
        """Return the tiles of a block that decide pixels of the region."""
        region, grid = self.predicted_region, self.grid
        return [tile for tile in grid.tiles_of(block) if grid.kept_box(tile) & region]
