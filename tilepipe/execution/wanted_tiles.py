"""This module says which pixels of a job get a label, and which tiles decide one of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tilepipe.box import Box
from tilepipe.execution.filled_image import FilledImage
from tilepipe.execution.job import Job
from tilepipe.tiling.grid import Grid, Index


class WantedTiles:
    """The pixels and tiles of a job that are computed. Threads can share it."""

    def __init__(self, job: Job, image: FilledImage) -> None:
        """Take the job and its image, which says where image data is."""
        self._plan, self._asked, self._image = job.plan, job.wanted, image

    def wanted(self, area: Box) -> NDArray[np.bool_]:
        """Return a bool array: True if a pixel of `area` is asked for and holds image data.

        Image data is looked up only around the pixels that are asked for.
        """
        wanted = self._asked.asked(area)
        rows, columns = (np.flatnonzero(wanted.any(axis=axis)) for axis in (1, 0))
        if len(rows):
            part = Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
            wanted[part.slices_in(Box.of_shape(*area.shape))] &= self._image.valid(part.shift(area.y0, area.x0))
        return wanted

    def useful(self, tiles: Iterable[Index], area: Box, wanted: NDArray[np.bool_]) -> Iterator[tuple[Index, Box]]:
        """Yield the tiles that label a wanted pixel of `area`, with the rows from the first to the last such pixel."""
        for tile in tiles:
            # Only a part of the tile is marked: pixels for which the tile is context alone are labelled by its
            # neighbours.
            part = self._plan.grid.kept_box(tile) & area
            if part is not None and len(rows := np.flatnonzero(wanted[part.slices_in(area)].any(axis=1))):
                yield tile, replace(part, y0=part.y0 + int(rows[0]), y1=part.y0 + int(rows[-1]) + 1)


def reached(grid: Grid, block: Index) -> Box:
    """Return the pixels that the tiles of a block weigh in on: its zone and, if tiles blend, the area to the right and
    below that its tiles reach, inside the image."""
    # A tile belongs to the block that its origin lies in. It may reach into the blocks below and to the right; that
    # part of its sums becomes strips.
    zone, reach, (height, width) = grid.zone(block), max(grid.tile_shape) if grid.blended else 0, grid.shape
    return Box(zone.y0, zone.x0, min(zone.y1 + reach, height), min(zone.x1 + reach, width))
