from __future__ import annotations

import pickle

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.sources.array import ArraySource
from tilepipe.sources.base import Resolution, Source

SIDES = st.integers(2, 9)


@given(SIDES, SIDES, st.tuples(st.integers(-20, 20), st.integers(-20, 20)), st.integers(1, 25), st.integers(1, 25))
@settings(max_examples=60, deadline=None)
def test_any_box_is_numpys_reflection(
    height: int, width: int, corner: tuple[int, int], rows: int, columns: int
) -> None:
    image = np.arange(2 * height * width, dtype=np.int16).reshape(2, height, width)
    box = Box(*corner, corner[0] + rows, corner[1] + columns)
    padded = np.pad(image, ((0, 0), (50, 50), (50, 50)), mode="reflect")
    expected = padded[:, 50 + box.y0 : 50 + box.y1, 50 + box.x0 : 50 + box.x1]
    np.testing.assert_array_equal(ArraySource(image).read(box), expected)


def test_it_is_a_source_and_two_axes_are_one_band() -> None:
    source = ArraySource(np.zeros((5, 7), np.uint8), resolution=0.5)
    assert isinstance(source, Source)
    assert source.shape == (1, 5, 7)
    assert source.resolution == Resolution(0.5, 0.5, "m")
    assert source.coarser(1, 1) is source


def test_dask_computes_only_what_a_box_needs() -> None:
    seen = []

    def chunk(block: np.ndarray, block_info: dict[int, dict[str, tuple[int, int, int]]]) -> np.ndarray:
        seen.append(tuple(block_info[0]["chunk-location"]))
        return block + 1

    image = np.random.default_rng(0).integers(0, 100, (3, 40, 60)).astype(np.uint8)
    lazy = da.from_array(image, chunks=(3, 20, 20)).map_blocks(
        chunk, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8)
    )
    source = ArraySource(lazy)
    seen.clear()
    np.testing.assert_array_equal(source.read(Box(2, 25, 18, 38)), image[:, 2:18, 25:38] + 1)
    assert seen == [(0, 0, 1)]


def test_validity_outside_masked_and_not_finite() -> None:
    image = np.ones((2, 4, 4), np.float32)
    image[1, 0, 0] = np.nan
    image[0, 0, 1] = np.inf
    mask = np.ones((4, 4), bool)
    mask[3] = False
    found = ArraySource(image, valid=mask).valid(Box(-1, 0, 4, 4))
    expected = np.ones((5, 4), bool)
    expected[0] = expected[4] = False
    expected[1, :2] = False
    np.testing.assert_array_equal(found, expected)
    assert ArraySource(np.ones((4, 4), np.uint8)).valid(Box(0, 0, 4, 4)) is None
    hidden = np.ma.masked_array(np.ones((1, 4, 4), np.uint8), mask=~mask[None])
    np.testing.assert_array_equal(ArraySource(hidden).valid(Box(0, 0, 4, 4)), mask)


def test_reading_gives_a_copy() -> None:
    image = np.zeros((1, 4, 4), np.uint8)
    ArraySource(image).read(Box(0, 0, 4, 4))[:] = 9
    assert image.max() == 0


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((40, 50, 3), np.uint8), "transpose"),
        (np.zeros((3, 5, 5)), "float64"),
        (np.zeros((3, 5, 5), np.int64), "int64"),
        (np.zeros((2, 3, 5, 5), np.uint8), "4 axes"),
        (np.zeros((3, 0, 5), np.uint8), "no pixels"),
    ],
)
def test_other_arrays_are_refused(array: np.ndarray, words: str) -> None:
    with pytest.raises(InputError, match=words):
        ArraySource(array)
    with pytest.raises(InputError, match="valid mask"):
        ArraySource(np.zeros((3, 5, 5), np.uint8), valid=np.ones((5, 4), bool))


def test_identity_follows_pixels_and_mask() -> None:
    image = np.zeros((1, 4, 4), np.uint8)
    other = image.copy()
    other[0, 3, 3] = 1
    mask = np.eye(4, dtype=bool)
    known = [ArraySource(a, valid=v).identity() for a in (image, other) for v in (None, mask, ~mask)]
    assert len({str(k) for k in known}) == 6
    assert ArraySource(image.copy()).identity() == known[0]
    assert ArraySource(da.from_array(image)).identity() == ArraySource(da.from_array(image.copy())).identity()


def test_byte_order_and_pickling() -> None:
    image = np.arange(12, dtype=">u2").reshape(1, 3, 4)
    source = pickle.loads(pickle.dumps(ArraySource(image)))
    assert source.dtype == np.dtype("uint16")
    np.testing.assert_array_equal(source.read(Box(0, 0, 3, 4)), image)
