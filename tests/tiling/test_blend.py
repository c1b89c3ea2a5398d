"""Blended sums against plain arithmetic on the whole image, cut into blocks in any order."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilepipe.box import Box
from tilepipe.tiling.blend import SIDES, BlendCanvas, CropCanvas, strip_boxes
from tilepipe.tiling.grid import Grid, Index, make_axis
from tilepipe.tiling.weights import PROFILES, weights


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    tile=st.integers(2, 12),
    overlap=st.integers(1, 11),
    zone=st.integers(1, 40),
    shape=st.sampled_from(sorted(PROFILES)),
    seed=st.integers(0, 1000),
)
def test_blocks_with_strips_equal_the_whole(
    height: int, width: int, tile: int, overlap: int, zone: int, shape: str, seed: int
) -> None:
    overlap = min(overlap, tile - 1)
    grid = Grid(*(make_axis(n, tile, overlap, stride=1, crop=False, zone=zone) for n in (height, width)))
    rng = np.random.default_rng(seed)
    whole = BlendCanvas(grid, Box.of_shape(height, width), shape, classes=3)
    tiles = {t: rng.integers(0, 1 << 24, (3, *grid.tile_shape), dtype=np.int32) for t in grid.tiles_over(whole.area)}
    for index, values in tiles.items():
        whole.add(index, values, grid.tile_box(index))
    stitched = np.full((height, width), 255, np.uint8)
    strips: dict[tuple[Index, str], np.ndarray] = {}
    for block in grid.blocks_over(whole.area):
        region = grid.zone(block)
        area = Box(region.y0, region.x0, min(region.y1 + tile, height), min(region.x1 + tile, width))
        own = BlendCanvas(grid, area, shape, classes=3)
        for index in grid.tiles_of(block):
            own.add(index, tiles[index], grid.tile_box(index))
        for side, (di, dj) in SIDES.items():
            near = Index(block.row - di, block.column - dj)
            if near in grid.earlier(block):
                own.at(strip_boxes(grid.zone(near), tile - 1, grid.shape)[side])[:] += strips[near, side]
        for side, box in strip_boxes(region, tile - 1, grid.shape).items():
            strips[block, side] = own.at(box).copy()
        stitched[region.slices_in(whole.area)] = own.labels(region)
    assert (stitched == whole.labels(whole.area)).all()
    assert (stitched == _brute_force(grid, tiles, shape)).all()


def _brute_force(grid: Grid, tiles: dict[Index, np.ndarray], shape: str) -> np.ndarray:
    height, width = grid.y.padded, grid.x.padded
    total = [[[0, 0, 0] for _ in range(width)] for _ in range(height)]
    for index, values in tiles.items():
        box = grid.tile_box(index)
        wy, wx = weights(grid.y, index.row, shape).tolist(), weights(grid.x, index.column, shape).tolist()
        for k, plane in enumerate(values.tolist()):
            for dy, row in enumerate(plane):
                for dx, value in enumerate(row):
                    total[box.y0 + dy][box.x0 + dx][k] += value * wy[dy] * wx[dx]
    labels = [[sums.index(max(sums)) for sums in row] for row in total]
    return np.array(labels, np.uint8)[: grid.shape[0], : grid.shape[1]]


def test_ties_go_to_the_lowest_class() -> None:
    grid = _one_tile(2)
    sums = BlendCanvas(grid, Box(0, 0, 2, 2), "hann", classes=3)
    sums.add(Index(0, 0), np.full((3, 2, 2), 1 << 22, np.int32), sums.area)
    assert (sums.labels(sums.area) == 0).all()


def test_labels_do_not_copy_the_sums() -> None:
    """Part of the memory promise: beside the sums, a few planes, however many classes there are."""
    axis = make_axis(600, 64, 32, stride=1, crop=False, zone=256)
    sums = BlendCanvas(Grid(axis, axis), Box(0, 0, 300, 300), "hann", classes=40)
    sums.values[:] = np.random.default_rng(0).integers(0, 1000, sums.values.shape)
    box = Box(0, 0, 256, 256)
    tracemalloc.start()
    labels = sums.labels(box)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (labels == sums.at(box).argmax(axis=0)).all()
    assert peak < 16 * box.area


@pytest.mark.parametrize("failures", [1, 100])
def test_a_failed_tile_is_nodata_whatever_else_is_added(failures: int) -> None:
    grid = Grid(_one_tile(4).y, make_axis(6, 4, 2, stride=1, crop=False, zone=1))
    sums = BlendCanvas(grid, Box(0, 0, 4, 6), "linear", classes=2)
    for _ in range(failures):
        sums.fail(Index(0, 0))
    for tile in (Index(0, 0), Index(0, 1)):
        sums.add(tile, np.full((2, 4, 4), 1 << 24, np.int32), grid.tile_box(tile))
    assert (sums.labels(sums.area) == [[255] * 4 + [0] * 2] * 4).all()


def test_kept_pixels_come_from_their_tile_and_the_rest_is_nodata() -> None:
    axis = make_axis(20, 8, 4, stride=1, crop=True, zone=1)
    grid = Grid(axis, axis)
    kept = CropCanvas(grid, Box(2, 2, 11, 11), "uint16", 65535)
    for row, column in ((0, 0), (1, 1)):
        tile = Index(row, column)
        kept.add(tile, np.full((8, 8), row, np.uint16), grid.tile_box(tile))
    labels = kept.labels(Box(3, 3, 9, 9))
    assert (labels[0, 0], labels[1, 1], labels[0, 1], labels[-1, -1]) == (0, 1, 65535, 65535)
    assert labels.dtype == np.uint16


def _one_tile(size: int) -> Grid:
    axis = make_axis(size, size, 0, stride=1, crop=False, zone=1)
    return Grid(axis, axis)
