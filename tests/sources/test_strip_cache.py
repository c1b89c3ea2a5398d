from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilepipe.box import Box
from tilepipe.errors import ChangedError, InputError
from tilepipe.sources.handles import Handles, content_sha256, stamp, unchanged
from tilepipe.sources.strip_cache import RowCache, Striped, band_rows


@given(st.integers(1, 60), st.integers(1, 20), st.data())
def test_boxes_come_back_whole_and_memory_is_bounded(height: int, rows: int, data: st.DataObject) -> None:
    image = np.arange(2 * height * 30, dtype=np.uint16).reshape(2, height, 30)
    cache = RowCache(limit=3 * rows * 30 * 4)
    for _ in range(5):
        y0, x0 = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, 29))
        box = Box(y0, x0, data.draw(st.integers(y0 + 1, height)), data.draw(st.integers(x0 + 1, 30)))
        found = cache.read(Striped("a", height, 30, rows), box, lambda band: image[:, band.y0 : band.y1])
        np.testing.assert_array_equal(found, image[:, box.y0 : box.y1, box.x0 : box.x1])
        assert sum(band.nbytes for band in cache._bands.values()) == cache._bytes <= 3 * rows * 30 * 4


def test_a_row_of_tiles_decodes_each_band_once() -> None:
    image = np.zeros((3, 512, 2048), np.uint8)
    loads: list[Box] = []

    def load(band: Box) -> Any:
        loads.append(band)
        return image[:, band.y0 : band.y1]

    cache = RowCache()
    for x in range(0, 2048, 256):
        cache.read(Striped("a", 512, 2048, 64), Box(0, x, 512, x + 256), load)
    assert loads == [Box(y, 0, y + 64, 2048) for y in range(0, 512, 64)]
    cache.read(Striped("b", 512, 2048, 64), Box(0, 0, 1, 1), load)
    assert len(loads) == 9, "another image is another key"


def test_bands_are_whole_blocks_of_about_8_mib() -> None:
    assert band_rows(10_000, 8 << 10, 1) == 1024
    assert band_rows(10_000, 8 << 10, 100) == 1000
    assert band_rows(10_000, 8 << 10, 3000) == 3000, "a block is decoded whole anyway"
    assert band_rows(10_000, 1 << 30, 1) == 1
    assert band_rows(50, 10, 1) == 50


def test_handles_per_thread_and_capped() -> None:
    closed: list[str] = []
    opened: list[str] = []
    handles: Handles[str] = Handles(closed.append, limit=2)

    def get(key: str) -> str:
        def made() -> str:
            opened.append(key)
            return key

        return handles.get(key, made)

    for key in "aabacab":
        get(key)
    assert opened == list("abcb")  # a is used again and again, so b and c make room for each other
    assert closed == list("bc")
    thread = threading.Thread(target=get, args=("a",))
    thread.start()
    thread.join()
    assert opened == list("abcba")
    handles.drop("a")
    handles.drop("never opened")
    assert closed == list("bca")


def test_stamps_notice_changes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    known = stamp(path)
    assert unchanged(known) == known
    first = content_sha256(known)
    path.write_bytes(b"two")
    os.utime(path, ns=(1, known.changed + 1))
    assert content_sha256(stamp(path)) != first
    with pytest.raises(ChangedError, match="changed while it was open"):
        unchanged(known)
    with pytest.raises(InputError, match="does not exist"):
        stamp(tmp_path / "b")
