"""What tells arrays apart is their content: not dask's name for it, not the object that holds it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from tilepipe.box import Box
from tilepipe.errors import UsageError
from tilepipe.sources.array import ArraySource
from tilepipe.sources.base import Georeference, Source
from tilepipe.sources.content import ROWS, identity_of

OLD = np.random.default_rng(0).integers(0, 256, (2, 40, 50), dtype=np.uint8)
NEW = OLD.copy()
NEW[1, 39, 49] ^= 1


def test_a_name_that_the_user_gave_says_nothing() -> None:
    one, two, again = (da.from_array(data, chunks=(1, 16, 16), name="mine") for data in (OLD, NEW, OLD))
    assert one.name == two.name
    assert ArraySource(one).identity() != ArraySource(two).identity()
    assert ArraySource(one).identity() == ArraySource(again).identity()


def test_data_that_changes_under_the_same_array(tmp_path: Path) -> None:
    file: Any = zarr.open_array(str(tmp_path / "a.zarr"), mode="w", shape=OLD.shape, chunks=(1, 16, 16), dtype="uint8")
    file[:] = OLD
    source = ArraySource(da.from_zarr(str(tmp_path / "a.zarr")))
    before = source.identity()
    assert source.identity() == before
    file[:] = NEW
    assert source.identity() != before


def test_a_function_that_reads_something_else_now() -> None:
    data = [OLD]
    array = da.from_delayed(dask.delayed(lambda: data[0], pure=True)(), OLD.shape, OLD.dtype)
    before = ArraySource(array).identity()
    data[0] = NEW
    assert ArraySource(array).identity() != before
    data[0] = OLD
    assert ArraySource(array).identity() == before


def test_a_numpy_array_that_is_written_to() -> None:
    array = OLD.copy()
    source = ArraySource(array)
    before = source.identity()
    array[0, 0, 0] ^= 1
    assert source.identity() != before


def test_every_chunk_is_computed_once_for_it() -> None:
    calls: list[int] = []

    def chunk(block: np.ndarray) -> np.ndarray:
        calls.append(block.size)
        return block + 1

    array = da.from_array(OLD, chunks=(2, 16, 16)).map_blocks(chunk, dtype=np.uint8, meta=np.zeros((0, 0, 0), np.uint8))
    ArraySource(array).identity()
    assert len(calls) == array.npartitions
    assert sum(calls) == OLD.size


@given(st.data())
def test_one_changed_value_anywhere_is_another_array(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.integers(1, 9)) for _ in range(3))
    chunks = tuple(data.draw(st.integers(1, 9)) for _ in range(3))
    place = tuple(data.draw(st.integers(0, size - 1)) for size in shape)
    array = np.zeros(shape, data.draw(st.sampled_from([np.uint8, np.float32])))
    before = ArraySource(da.from_array(array.copy(), chunks=chunks, name="x")).identity()
    array[place] = 1
    assert ArraySource(da.from_array(array, chunks=chunks, name="x")).identity() != before


def test_position_is_part_of_it_as_products_carry_it() -> None:
    lies = [Georeference("EPSG:3857", (1.0, 0.0, x, 0.0, -1.0, 0.0)) for x in (0.0, 9.0)]
    found = [ArraySource(OLD, georeference=where, resolution=1.0).identity() for where in lies]
    assert found[0] != found[1]
    assert ArraySource(OLD, resolution=1.0).identity() != ArraySource(OLD, resolution=2.0).identity()


class Own(ArraySource):
    """A user's source, which says what it likes about itself."""

    def __init__(self, array: np.ndarray, said: Any, valid: np.ndarray | None = None) -> None:
        super().__init__(array, valid=valid)
        self.said = said

    def identity(self) -> dict[str, Any]:
        return self.said  # type: ignore[no-any-return]


def test_a_source_that_says_nothing_is_known_by_its_pixels() -> None:
    tall = np.zeros((1, ROWS + 3, 4), np.uint8)
    other = tall.copy()
    other[0, -1, -1] = 1
    holes = np.ones(tall.shape[1:], bool)
    holes[-1, -1] = False
    assert isinstance(Own(tall, {}), Source)
    assert identity_of(Own(tall, {})) == identity_of(Own(tall.copy(), {}))
    assert identity_of(Own(tall, {})) != identity_of(Own(other, {}))
    assert identity_of(Own(tall, {})) != identity_of(Own(tall, {}, holes))
    assert identity_of(Own(tall, {"of": "mine"})) == {"of": "mine"}


def test_what_cannot_be_kept_is_said() -> None:
    with pytest.raises(UsageError, match=r"identity\(\) of array \(a Own\) cannot be kept: .*JSON types"):
        identity_of(Own(OLD, {"box": Box(0, 0, 1, 1)}))
