"""What keeps a hole open is found wherever the hole lies, and takes two bytes a region."""

from __future__ import annotations

import tracemalloc

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tilepipe.box import Box
from tilepipe.products.holes import CELL, Contents

SIDES = st.integers(0, 3 * CELL)


@given(st.lists(st.tuples(SIDES, SIDES), max_size=8), SIDES, SIDES, st.integers(1, 2 * CELL), st.integers(1, 2 * CELL))
def test_pixels_in_a_hole_are_found_over_any_number_of_squares(
    pixels: list[tuple[int, int]], y: int, x: int, height: int, width: int
) -> None:
    contents = Contents(255)
    for pixel in pixels:
        contents.add(*pixel)
    # The hole lacks its lower right quarter, so its box is not the hole.
    low, right = y + height, x + width
    middle = (y + max(1, height // 2), x + max(1, width // 2))
    corners = [(x, y), (right, y), (right, middle[0]), (middle[1], middle[0]), (middle[1], low), (x, low), (x, y)]
    inside = [y <= v < low and x <= u < right and not (v >= middle[0] and u >= middle[1]) for v, u in pixels]
    assert contents.inside(np.array(corners, float)) == any(inside)


def test_nodata_keeps_a_hole_open() -> None:
    contents, block = Contents(255), np.zeros((40, 40), np.uint8)
    block[20, 30] = 255
    contents.see(Box(1000, 2000, 1040, 2040), block)
    ring = np.array([(2029, 1019), (2032, 1019), (2032, 1022), (2029, 1022), (2029, 1019)], float)
    assert contents.inside(ring)
    assert not contents.inside(ring + 10)


def test_a_region_takes_two_bytes() -> None:
    """A million regions took 130 MB."""
    count = 200_000
    tracemalloc.start()
    try:
        contents = Contents(255)
        for k in range(count):
            contents.add(k // 1000 * 7, k % 1000 * 7)
        assert tracemalloc.get_traced_memory()[0] < 6 * count
    finally:
        tracemalloc.stop()
