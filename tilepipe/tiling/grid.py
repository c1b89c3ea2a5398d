"""Grid: places tiles and blocks by pure integers, from pixel (0, 0) of the prediction grid on.

Full runs, regions, blocks, workers and resumes all use this one grid. Let S be the model's total stride, T the tile
size, and P the image size padded up to a multiple of S. Then each axis has:

    origin k = clamp(k * step - lead, 0, P - T)        an image with P <= T is one tile of size P
    blended windows   lead = 0       step = T - overlap       tile k weighs in on [origin, origin + T)
    crop windows      lead = halo    T = step + 2 * halo      tile k keeps [k * step, (k + 1) * step)

A tile with the same clamped origin as its neighbour is left out, and the neighbour keeps its pixels too. So no two
tiles see exactly the same pixels.

A block owns a zone of Z x Z pixels, Z = K * step >= T, and the tiles whose anchor (crop: the first kept pixel; blended:
the origin) lies in its zone. So a tile reaches at most into the zones to the right, below and at the corner. Tiles that
are computed in bands of rows are blocks by themselves: K = 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tilepipe.box import Box


class Index(NamedTuple):
    """(row, column) of a tile or a block in the grid."""

    row: int
    """Row, from 0 at the top."""
    column: int
    """Column, from 0 at the left."""


@dataclass(frozen=True)
class Axis:
    """Tiles and zones along one axis."""

    size: int
    """Pixels of the image."""
    tile: int
    """Pixels of a tile (T), a multiple of `stride`; smaller for an image that one tile covers."""
    step: int
    """Pixels between anchors, a multiple of `stride`."""
    lead: int
    """Pixels of context before the kept part (halo) for crop windows; 0 for blended windows."""
    stride: int
    """Total stride of the model (S)."""
    steps_per_zone: int
    """Number of steps in a zone (K)."""
    crop: bool
    """Whether a tile decides its kept pixels alone; else tiles are blended where they overlap."""

    def __post_init__(self) -> None:
        assert min(self.size, self.tile, self.step) > 0, self
        # A tile that began between two multiples of the stride would be pooled in another phase: a network gives other
        # answers for the same pixels then.
        assert all(n % self.stride == 0 for n in (self.tile, self.step, self.lead)), self
        assert self.tile <= self.padded, self
        # Two tiles have one edge of the image each, so each needs context on one side only.
        assert self.count == 1 or self.tile >= self.step + min(self.count - 1, 2) * self.lead, self
        # A blended tile must not reach beyond the next zone, and a zone without a tile of its own must not exist.
        assert self.zone >= (self.step if self.crop and self.lead < self.step else self.tile), self

    @property
    def padded(self) -> int:
        """Image size padded up to the stride (P)."""
        return -(-self.size // self.stride) * self.stride

    @property
    def zone(self) -> int:
        """Pixels of a block's zone (Z)."""
        return self.steps_per_zone * self.step

    @property
    def count(self) -> int:
        """Number of tiles."""
        if self.padded <= self.tile:
            return 1
        # The last tile is the first one whose place by the rule, k * step - lead, is at P - T or beyond it.
        return -(-(self.padded - self.tile + self.lead) // self.step) + 1 - self._left_out

    @property
    def _left_out(self) -> int:
        """Number of tiles left out at the start, because they would begin at pixel 0 like the first tile."""
        return self.lead // self.step

    @property
    def blocks(self) -> int:
        """Number of blocks; with crop windows the last one also takes what its last tile keeps beyond its zone."""
        # With blended windows, the last zone may hold the origin of no tile: its sums come from earlier blocks, as
        # strips.
        return self.kept(self.count - 1)[0] // self.zone + 1 if self.crop else -(-self.size // self.zone)

    def span(self, block: int) -> tuple[int, int]:
        """Return [start, stop) of the pixels that block `block` writes."""
        return block * self.zone, self.size if block == self.blocks - 1 else (block + 1) * self.zone

    def origin(self, k: int) -> int:
        """Return the first pixel that tile k sees."""
        # The last tile is pulled back, and the first ones pushed forward, so that each sees real pixels and no filling.
        return max(0, min((k + self._left_out) * self.step - self.lead, self.padded - self.tile))

    def kept(self, k: int) -> tuple[int, int]:
        """Return [start, stop) of the pixels that tile k decides (crop) or weighs in on (blended)."""
        if not self.crop:
            return self.origin(k), self.origin(k) + self.tile
        start = (k + self._left_out) * self.step if k else 0
        return start, self.padded if k == self.count - 1 else (k + 1 + self._left_out) * self.step

    def tiles_over(self, start: int, stop: int) -> range:
        """Return the tiles whose kept pixels meet [start, stop)."""
        # The range is computed and not searched for, since an axis may have thousands of tiles. It is a little
        # too wide; the next line leaves out the rest.
        first = max(0, (start - self.tile) // self.step - self._left_out)
        last = min(self.count, stop // self.step + 2)
        hits = [k for k in range(first, last) if self.kept(k)[0] < stop and start < self.kept(k)[1]]
        if self.kept(self.count - 1)[0] < stop and start < self.kept(self.count - 1)[1]:
            hits.append(self.count - 1)
        return range(hits[0], hits[-1] + 1) if hits else range(0)

    def tiles_of(self, block: int) -> range:
        """Return the tiles that block `block` predicts: the tiles whose anchor lies in its zone."""
        first = max(0, block * self.steps_per_zone - self._left_out)
        # One more than the steps of a zone: the last tile is pulled back, perhaps from the next zone into this one.
        candidates = range(first, min(first + self.steps_per_zone + 1, self.count))
        hits = [k for k in candidates if self.kept(k)[0] // self.zone == block]
        return range(hits[0], hits[-1] + 1) if hits else range(0)

    def block_of(self, k: int) -> int:
        """Return the block that predicts tile k."""
        return self.kept(k)[0] // self.zone


@dataclass(frozen=True)
class Grid:
    """Tiles and blocks of an image."""

    y: Axis
    """Axis of the rows."""
    x: Axis
    """Axis of the columns."""

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the image in pixels."""
        return self.y.size, self.x.size

    @property
    def tile_shape(self) -> tuple[int, int]:
        """(height, width) of every tile in pixels."""
        return self.y.tile, self.x.tile

    @property
    def blended(self) -> bool:
        """Whether tiles weigh in on each other's pixels, so that blocks wait for their neighbours' strips."""
        return not self.y.crop and (self.y.count > 1 or self.x.count > 1)

    def tile_box(self, tile: Index) -> Box:
        """Return the pixels that a tile sees; the box may reach beyond the image by less than the stride."""
        y, x = self.y.origin(tile.row), self.x.origin(tile.column)
        return Box(y, x, y + self.y.tile, x + self.x.tile)

    def kept_box(self, tile: Index) -> Box:
        """Return the pixels that a tile decides (crop) or weighs in on (blended)."""
        (y0, y1), (x0, x1) = self.y.kept(tile.row), self.x.kept(tile.column)
        return Box(y0, x0, y1, x1)

    def tiles_over(self, box: Box) -> Iterator[Index]:
        """Yield the tiles that decide the pixels of `box`, row by row."""
        for row in self.y.tiles_over(box.y0, box.y1):
            for column in self.x.tiles_over(box.x0, box.x1):
                yield Index(row, column)

    def tiles_of(self, block: Index) -> Iterator[Index]:
        """Yield the tiles that a block predicts, row by row; each tile of the grid belongs to exactly one block."""
        for row in self.y.tiles_of(block.row):
            for column in self.x.tiles_of(block.column):
                yield Index(row, column)

    def block_of(self, tile: Index) -> Index:
        """Return the block that predicts a tile."""
        return Index(self.y.block_of(tile.row), self.x.block_of(tile.column))

    def zone(self, block: Index) -> Box:
        """Return the pixels that a block writes: its chunk of the label array, the last block's a little more."""
        (y0, y1), (x0, x1) = self.y.span(block.row), self.x.span(block.column)
        return Box(y0, x0, y1, x1)

    def blocks_over(self, box: Box) -> Iterator[Index]:
        """Yield the blocks that are needed for `box`, row by row."""
        rows, columns = self.block_ranges(box)
        for row in rows:
            for column in columns:
                yield Index(row, column)

    def block_ranges(self, box: Box) -> tuple[range, range]:
        """Return rows and columns of the blocks that write the pixels of `box` or predict tiles for them."""
        return self._needed(self.y, box.y0, box.y1), self._needed(self.x, box.x0, box.x1)

    @staticmethod
    def _needed(axis: Axis, start: int, stop: int) -> range:
        first = axis.block_of(axis.tiles_over(start, stop)[0])
        # No block behind the last pixel is needed: the anchor of a tile never lies behind a pixel that the tile
        # decides.
        last = min((stop - 1) // axis.zone, axis.blocks - 1)
        return range(min(first, start // axis.zone, last), last + 1)

    def earlier(self, block: Index) -> list[Index]:
        """Return the neighbours whose strips a block needs: left, above, above-left."""
        i, j = block
        return [Index(a, b) for a, b in ((i, j - 1), (i - 1, j), (i - 1, j - 1)) if a >= 0 and b >= 0]

    def later(self, block: Index) -> list[Index]:
        """Return the neighbours that need a block's strips: right, below, below-right."""
        i, j = block
        near = ((i, j + 1), (i + 1, j), (i + 1, j + 1))
        return [Index(a, b) for a, b in near if a < self.y.blocks and b < self.x.blocks]


def make_axis(size: int, tile: int, overlap: int, *, stride: int, crop: bool, zone: int) -> Axis:
    """Return the axis for an image of `size` pixels; `tile` and `overlap` must fit `stride` (see `Axis`).

    `zone` is the wanted size of a block in pixels; the zone is at least that and at least a tile.
    """
    padded = -(-size // stride) * stride
    step, lead = tile - overlap, overlap // 2 if crop else 0
    if padded <= tile:
        # A larger tile would see nothing more of the image, only filling.
        tile, step, lead = padded, padded, 0
    return Axis(size, tile, step, lead, stride, max(1, -(-max(zone, tile) // step)), crop)
