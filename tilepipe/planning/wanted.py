"""Wanted: which pixels of an image get a label. What the network sees is another matter: all image data.

image data   said by nodata, alpha and masks of the file, a slide's bounds, `--mask value:255` and `--mask none`; only
             other pixels are filled, with the model's mean
area         said by a region, by polygons, by tissue; it decides which pixels get a label and which tiles are computed
             for them, and changes nothing of what a tile sees
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.planning.layout import Layout, Left
from tilepipe.planning.resolution import nearest_pixel
from tilepipe.sources.base import Source
from tilepipe.sources.borders import Cells
from tilepipe.sources.mask import Mask, OnGrid, readable, under_centres
from tilepipe.sources.resample import Resampled

PIECE = 4 << 20
"""Number of full-resolution pixels that are examined together."""


@dataclass(frozen=True)
class Wanted:
    """The pixels of a region that are to get a label; picklable."""

    image: Source
    """The image at full resolution, with its mask of image data."""
    layout: Layout
    """The grids of the image, the region and the tiles."""
    area: Mask | None = None
    """Area of full-resolution pixels asked for; None means all of the region."""

    def asked(self, box: Box) -> NDArray[np.bool_]:
        """Return a bool array (height, width): True if a prediction pixel of `box` decides a pixel that is asked
        for."""
        found = np.zeros(box.shape, bool)
        inside = box & self.layout.predicted_region
        for piece in self._pieces(inside, self.layout.predicted) if inside else ():
            found[piece.slices_in(box)] = True if self.area is None else self._decides(self.area, piece)
        return found

    def _decides(self, area: Mask, box: Box) -> NDArray[np.bool_]:
        layout, (over, rows, columns) = self.layout, decided_by(self.layout, box)
        return _any(_any(OnGrid(area, layout.shape, layout.output)(over), rows, 0), columns, 1)

    def labelled(self, box: Box) -> NDArray[np.bool_]:
        """Return a bool array: True if an output pixel of `box` is asked for and holds image data, so gets a label.

        The array is (height, width). An output pixel is asked for if the full-resolution pixel under its centre is
        asked for. It holds image data if any pixel that it covers does. A pixel that cannot be read counts as image
        data.
        """
        layout, found = self.layout, np.ones(box.shape, bool)
        for piece in self._pieces(box, layout.output):
            part = found[piece.slices_in(box)]
            if self.area is not None:
                part[:] = OnGrid(self.area, layout.shape, layout.output)(piece)
            # Validity is decoded from the file, so it is not read for pixels that nobody asks for.
            if part.any():
                part &= readable(self._valid, piece)
        return found

    def _valid(self, box: Box) -> NDArray[np.bool_] | None:
        # Level 0 of a slide may have a thousand times as many pixels to decode as the level that the model sees.
        level = self.image.coarser(*self.layout.predicted)
        on_canvas: Callable[[Box], NDArray[np.bool_] | None] = getattr(level, "on_canvas", self.image.valid)
        if self.layout.output == self.layout.shape:
            return on_canvas(box)
        return Resampled(self.image, *self.layout.output).valid(box)

    def _pieces(self, box: Box, grid: tuple[int, int]) -> Iterator[Box]:
        """Yield runs of rows of a box of a grid; each covers a bounded number of full-resolution pixels."""
        (height, width), (full_height, full_width) = grid, self.layout.shape
        rows = max(1, PIECE * height // full_height // max(1, box.width * full_width // width))
        for y in range(box.y0, box.y1, rows):
            yield Box(y, box.x0, min(y + rows, box.y1), box.x1)

    def left(self) -> Left | None:
        """Return how many tiles and blocks of the region the area leaves; None if there is no area.

        Raises `InputError` if nothing is left.
        """
        if self.area is None:
            return None
        grid = self.layout.grid
        blocks = np.zeros((grid.y.blocks, grid.x.blocks), bool)
        down, across = self._outputs(0), self._outputs(1)
        begins, ends = (np.array(sides) for sides in zip(*across.values(), strict=True))
        columns, block_of = self._under(1, int(begins[0]), int(ends[-1])), np.array([*map(grid.x.block_of, across)])
        tiles = 0
        for tile, (first, last) in down.items():
            cells = Cells(self._under(0, first, last), columns, begins - begins[0], ends - begins[0])
            # These pixels decide in a run which tiles are predicted, so the plan announces the number that a run
            # predicts.
            found = self.area.meet(cells)
            tiles += int(found.sum())
            blocks[grid.y.block_of(tile), block_of[found]] = True
        if not tiles:
            tissue, region = self.layout.mask.startswith("tissue"), self.layout.region
            what = "no tissue was found" if tissue else "no pixel's centre lies in the polygons"
            raise InputError(
                f"nothing of {self.image.name} is left to label: {what}, in rows {region.y0} to {region.y1}, "
                f"columns {region.x0} to {region.x1}; name a larger area, or leave the mask out"
            )
        return Left(tiles, int(blocks.sum()))

    def _outputs(self, axis: int) -> dict[int, tuple[int, int]]:
        """Return the output pixels [first, last) of an axis that each tile of the region decides."""
        layout, region = self.layout, self.layout.predicted_region
        start, stop = _spans(region)[axis]
        tiles = (layout.grid.y, layout.grid.x)[axis]
        kept = {tile: tiles.kept(tile) for tile in layout.tile_ranges[axis]}
        size, of = layout.predicted[axis], layout.output[axis]
        return {k: _decided(max(a, start), min(b, stop), size, of)[:2] for k, (a, b) in kept.items()}

    def _under(self, axis: int, first: int, last: int) -> NDArray[np.int64]:
        """Return the full-resolution pixels under the centres of output pixels [first, last) of an axis."""
        return under_centres(np.arange(first, last), self.layout.shape[axis], self.layout.output[axis])


def _spans(box: Box) -> tuple[tuple[int, int], tuple[int, int]]:
    return (box.y0, box.y1), (box.x0, box.x1)


def decided_by(layout: Layout, box: Box) -> tuple[Box, NDArray[np.int64], NDArray[np.int64]]:
    """Return the output pixels that a box of the prediction grid decides, and where those of each pixel begin in them.

    The arrays hold the first row of each row of `box`, and the first column of each column.
    """
    rows, columns = (
        _decided(start, stop, size, of)
        for (start, stop), size, of in zip(_spans(box), layout.predicted, layout.output, strict=True)
    )
    return Box(rows[0], columns[0], rows[1], columns[1]), rows[2], columns[2]


def _decided(start: int, stop: int, size: int, of: int) -> tuple[int, int, NDArray[np.int64]]:
    """Return the output pixels [first, last) of an axis that prediction pixels [start, stop) decide, and first ones.

    The array holds, for each prediction pixel, the first output pixel that it decides. If the prediction grid is finer,
    this is the one output pixel that the prediction pixel lies in.
    """
    if size >= of:
        index = np.array([nearest_pixel(k, of, size) for k in range(start, stop)])
        return int(index[0]), int(index[-1]) + 1, index - index[0]
    # Output pixel k belongs to prediction pixel p if p <= (2k + 1) * size / (2 * of). This is the smallest such k,
    # rounded up in integers: a float could miss it by one.
    begins = -((size - 2 * of * np.arange(start, stop + 1, dtype=np.int64)) // (2 * size))
    return int(begins[0]), int(begins[-1]), begins[:-1] - begins[0]


def _any(mask: NDArray[np.bool_], begins: NDArray[np.int64], axis: int) -> NDArray[np.bool_]:
    """Return whether any value is True from each of `begins` to the next, along an axis; a repeated begin gives its
    value."""
    return np.asarray(np.logical_or.reduceat(mask, begins, axis))
