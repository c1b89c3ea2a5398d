"""This module makes hashes of all that decides the labels of a block, besides the model and how it is computed.

A run keeps them in its ledger, and a later run takes over the labels of each block whose hashes it finds again. Hashed
are the pixels of each tile as the model sees them (after the choice of bands, resampling, filling without image data
and mirroring at the edge), where the tile lies in its block and how its pixels weigh in, and which pixels of the block
are labelled. So the name of a file, its format and its place do not count, and a change counts as far as tiles see it.

    own       all tiles of the block, and its wanted pixels
    right, below, corner   of blended tiles, those that weigh in on that neighbour

The labels of a block follow from its own hash, `right` of its left neighbour, `below` of the upper one, and `corner` of
the one between. A hash has 16 bytes, so a block has at most 64.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tilepipe.arrays import Pixels
from tilepipe.box import Box
from tilepipe.planning.plan import Plan
from tilepipe.tiling.blend import SIDES
from tilepipe.tiling.grid import Index
from tilepipe.tiling.weights import weights

HASH = 16
"""Length of a hash (bytes)."""
OWN = "own"
PARTS = {OWN: (0, 0), **SIDES}
"""Parts of a block's tiles, with the (rows, columns) of blocks to the neighbour that they weigh in on."""


def pixels_hash(pixels: Pixels) -> bytes:
    """Return the hash of pixels (bands, height, width) as the model sees them."""
    return _hash(np.ascontiguousarray(pixels).data)


def rows_hash(over: Box, top: int, bands: Sequence[bytes], *, last: bool) -> bytes:
    """Return the hash of what a pass in bands has seen when it has computed the rows of `over`.

    `bands` are the hashes of its bands from row `top` on; `last` says that they end at the bottom of the image.
    """
    # Bands begin at fixed rows of the image, so the rows count as they are and not from the block on.
    return _hash(repr((over.y0, over.y1, top, len(bands), last)).encode() + b"".join(bands))


def bands_of(rows: Box, height: int) -> list[Box]:
    """Return the bands of `height` rows that a pass reads one after the other, as boxes; the last may be smaller."""
    return [replace(rows, y0=y, y1=min(y + height, rows.y1)) for y in range(rows.y0, rows.y1, height)]


def block_hashes(plan: Plan, block: Index, wanted: NDArray[np.bool_], tiles: Mapping[Index, bytes]) -> tuple[str, ...]:
    """Return the hashes of a block, one for each part; the own one alone if tiles do not blend.

    `wanted` (height, width) says which pixels of the zone are labelled, and `tiles` has the hash of each tile that is
    predicted: `pixels_hash`, or `rows_hash` in bands.
    """
    parts = PARTS if plan.grid.blended else (OWN,)
    return tuple(part_hash(plan, block, part, wanted, tiles) for part in parts)


def part_hash(plan: Plan, block: Index, part: str, wanted: NDArray[np.bool_], tiles: Mapping[Index, bytes]) -> str:
    """Return the hash of one part of a block's tiles; see `block_hashes`."""
    zone, hashed = plan.grid.zone(block), []
    if part == OWN:
        hashed.append(repr(zone.shape).encode() + np.packbits(wanted).tobytes())
    for tile in sorted(tiles):
        if (area := weighed(plan, block, part, tile)) is not None:
            hashed += [_place(plan, tile, zone, area), tiles[tile]]
    return _hash(b"".join(hashed)).hex()


def weighed(plan: Plan, block: Index, part: str, tile: Index) -> Box | None:
    """Return the pixels of the zone, or of the neighbour of this part, that a block's tile decides; None if none."""
    grid, (rows, columns) = plan.grid, PARTS[part]
    zone, (height, width) = grid.zone(block), grid.shape
    y0, y1 = (zone.y1, height) if rows else (zone.y0, zone.y1)
    x0, x1 = (zone.x1, width) if columns else (zone.x0, zone.x1)
    # Beyond the last block there is none to weigh in on.
    return grid.kept_box(tile) & Box(y0, x0, y1, x1) if y0 < y1 and x0 < x1 else None


def _place(plan: Plan, tile: Index, zone: Box, area: Box) -> bytes:
    """Return where a tile and its pixels `area` lie in a zone, and how much these weigh if tiles blend."""
    grid = plan.grid
    seen = grid.tile_box(tile)
    place = repr([box.shift(-zone.y0, -zone.x0).to_list() for box in (seen, area)]).encode()
    if not grid.blended:
        return place
    rows, columns = area.slices_in(seen)
    down, across = (weights(axis, k, plan.tiling.window) for axis, k in ((grid.y, tile.row), (grid.x, tile.column)))
    return place + down[rows].tobytes() + across[columns].tobytes()


def _hash(content: bytes | memoryview) -> bytes:
    # Of the hashes in Python's library this one is fastest: processors have instructions for it.
    return hashlib.sha256(content).digest()[:HASH]
