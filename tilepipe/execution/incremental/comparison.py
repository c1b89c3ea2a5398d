"""This module compares what the tiles of a block see with the hashes of an earlier run, and takes over its labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from tilepipe.box import Box
from tilepipe.errors import InputError, StorageError
from tilepipe.execution.filled_image import FilledImage
from tilepipe.execution.incremental.block_hashes import (
    OWN,
    PARTS,
    bands_of,
    part_hash,
    pixels_hash,
    rows_hash,
    weighed,
)
from tilepipe.execution.incremental.earlier import EarlierRun
from tilepipe.execution.incremental.earlier_maps import EarlierMaps, names_of
from tilepipe.execution.job import Job
from tilepipe.execution.ledger import Record
from tilepipe.execution.store import Store
from tilepipe.execution.wanted_tiles import WantedTiles, reached
from tilepipe.inference.banded.steady import MOST as STEADY
from tilepipe.inference.runtimes.base import TORCH
from tilepipe.tiling.grid import Index

CHANGED = ""
"""Hash in a line that says that a block must be computed."""


class Comparison:
    """Takes over blocks of an earlier run, in one process; see `block_queue.Work`. Threads can share it."""

    def __init__(self, job: Job, *, earlier: EarlierRun) -> None:
        """Open the image and the labels of the earlier run. Labels are written if the job has a work directory."""
        assert earlier.plan is not None
        self._plan, self._earlier = job.plan, earlier
        self._image = FilledImage(job.source, job.model.card.mean or (0.0,) * job.plan.bands)
        self._tiles = WantedTiles(job, self._image)
        self._maps = EarlierMaps(earlier, earlier.plan)
        self._store = Store(job.directory) if job.directory else None

    def run(self, block: Index, strips_from: Iterable[Record] = ()) -> Record:
        """Take over a block if its tiles see what they have seen in the earlier run; return its line for the ledger.

        `strips_from` are lines of that run: the one of the block, and those of its earlier neighbours if tiles blend.
        A line with the hash `CHANGED` says that the block must be computed.
        """
        lines, changed = {record.block: record for record in strips_from}, Record(block, CHANGED, 0)
        try:
            if not self._is_same(block, lines):
                return changed
            found = self._maps.checked(before := lines[self._earlier.block(block)])
        # What cannot be read is computed, or said to be unreadable where it is computed.
        except (InputError, StorageError):
            return changed
        if self._store:
            zone = self._plan.grid.zone(block)
            for name, values in zip(names_of(self._plan), found, strict=True):
                self._store.array(name).write(values, zone)
        return Record(block, before.sha256, 0, layers=before.layers, seen=before.seen, taken=self._earlier.key)

    def close(self) -> None:
        """Nothing is open between blocks."""

    def _is_same(self, block: Index, lines: Mapping[Index, Record]) -> bool:
        grid = self._plan.grid
        parts = list(PARTS) if grid.blended else [OWN]
        for place, part in enumerate(parts):
            rows, columns = PARTS[part]
            near = Index(block.row - rows, block.column - columns)
            if part != OWN and (min(near) < 0 or not self._plan.tiles_of(near)):
                continue  # no tile of this neighbour decides a pixel
            before = lines.get(self._earlier.block(near))
            if before is None or len(before.seen) != len(parts) or not self._has(near, part, before.seen[place]):
                return False
        return True

    def _has(self, block: Index, part: str, before: str) -> bool:
        """Return whether a part of the tiles of a block has this hash now."""
        grid = self._plan.grid
        zone, area = grid.zone(block), reached(grid, block)
        wanted = self._tiles.wanted(area)
        own = wanted[zone.slices_in(area)]
        tiles = [
            (tile, over)
            for tile, over in self._tiles.useful(self._plan.tiles_of(block), area, wanted)
            if weighed(self._plan, block, part, tile)
        ]
        if self._plan.tiling.columns and tiles:
            ((tile, over),) = tiles  # a block in bands is one tile
            return any(self._hash(block, part, own, {tile: seen}) == before for seen in self._passes(tile, over))
        seen = {tile: pixels_hash(self._image.read(grid.tile_box(tile))[0]) for tile, _ in tiles}
        return self._hash(block, part, own, seen) == before

    def _hash(self, block: Index, part: str, own: NDArray[np.bool_], seen: Mapping[Index, bytes]) -> str:
        return part_hash(self._plan, block, part, own, seen)

    def _passes(self, tile: Index, over: Box) -> Iterator[bytes]:
        """Yield the hashes of what passes may see that compute the rows of `over`.

        The network decides how many bands below these rows a pass needs, and where it begins near the top.
        """
        bands, box, padded = self._plan.tiling.columns, self._plan.grid.tile_box(tile), self._plan.grid.y.padded
        assert bands is not None
        height = bands.height
        usual = max(0, over.y0 // height * height - bands.lead)
        tops = [usual]
        if 0 < usual < STEADY * height and self._plan.compute.runtime != TORCH:
            tops.append(0)
        known: dict[Box, bytes] = {}
        for top in tops:
            seen: list[bytes] = []
            for band in bands_of(Box(top, box.x0, max(box.y1, over.y1), box.x1), height):
                if band not in known:
                    known[band] = pixels_hash(self._image.read(band)[0])
                seen.append(known[band])
                if band.y1 >= over.y1:
                    yield rows_hash(over, top, seen, last=band.y1 == padded)
