"""The tile size that is chosen: right for the model, within memory, never dearer than usual, the same everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tilepipe as tp
from tilepipe.errors import UsageError
from tilepipe.inference.device import Compute
from tilepipe.models.model import Model
from tilepipe.planning import planner, tile_size
from tilepipe.planning.check_settings import parse_bytes
from tilepipe.planning.memory import Load, Needs
from tilepipe.planning.plan import Plan
from tilepipe.planning.settings import Request
from tilepipe.planning.tile_size import CLEARLY, ROOM, Cut, choose_tiling, times, usual_tiling
from tilepipe.sources.array import ArraySource
from tilepipe.testing import constant_model, noise, random_unet

CPU = Compute("cpu", "fp32", 1, 0)
LARGE = ArraySource(np.zeros((3, 3000, 4000), np.uint8))
DEEP = random_unet(depth=3)
"""Halo 48, stride 8: 512 px tiles cost 1.5 passes."""


@pytest.fixture(autouse=True)
def tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models here are those that cannot be computed in bands of rows (test_band_tiling.py)."""
    monkeypatch.setattr(planner, "in_bands", lambda *_: "")


def measure(monkeypatch: pytest.MonkeyPatch, slower: float = 1.0) -> list[tuple[int, ...]]:
    """Let speed be what is said: so many times slower for twice the size; return the sizes that were asked for."""
    asked: list[tuple[int, ...]] = []

    def fake(model: Model, sizes: Sequence[int], compute: Compute) -> dict[int, float]:
        asked.append(tuple(sizes))
        return {size: 1e-6 * slower ** float(np.log2(size / sizes[0])) for size in sizes}

    monkeypatch.setattr(tile_size, "speeds", fake)
    return asked


def plan(image: Any = LARGE, model: Model = DEEP, **chosen: Any) -> Plan:
    return tp.plan(image, model, **{"runtime": "torch", **chosen})


def test_a_larger_tile_is_taken_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    measure(monkeypatch)
    found, fixed = plan(), plan(tile=512)
    assert found.tiling.tile > 512
    assert found.work < CLEARLY * fixed.work
    assert found.exact
    share = found.work / fixed.work
    assert found.why == f"tile {found.tiling.tile}: {found.work:.2f} x one pass, {share:.2f} of the time of tile 512"
    assert found.why in str(found)
    assert fixed.why == "", "the user's own"


def test_a_larger_tile_that_is_slower_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    measure(monkeypatch, slower=3.0)
    assert plan().tiling.tile == 512
    assert "larger ones are not clearly faster" in plan().why


@pytest.mark.parametrize(
    ("image", "model", "chosen"),
    [
        (noise(900, 900), DEEP, {}),
        (ArraySource(np.zeros((3, 500, 40_000), np.uint8)), constant_model(0.5, 0.5, bands=3, halo=0), {}),
        (LARGE, constant_model(0.5, 0.5, bands=3, halo=2), {}),
        (LARGE, DEEP, {"overlap": 64}),
        (LARGE, DEEP, {"tile": 512}),
        (LARGE, DEEP, {"window_shape": "hann"}),
    ],
    ids=["small", "nothing to save", "little to save", "blended", "own tile", "own window"],
)
def test_nothing_is_measured_where_nothing_is_to_be_chosen(
    image: Any, model: Model, chosen: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = measure(monkeypatch)
    assert plan(image, model, **chosen).tiling.tile == 512
    assert not asked


def test_the_region_and_the_processes_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    measure(monkeypatch)
    whole = plan()
    for other in (plan(region=tp.Box(0, 0, 600, 700)), plan(region=tp.Box(2000, 9, 2100, 3000)), plan(workers=3)):
        assert (other.tiling, other.why) == (whole.tiling, whole.why)


@given(
    height=st.integers(600, 9000), width=st.integers(600, 9000), stride=st.sampled_from([1, 8, 16, 24]),
    halos=st.integers(0, 12), speed=st.lists(st.floats(0.3, 3), min_size=8, max_size=8),
    room=st.integers(800, 6000), memory=st.booleans(),
)  # fmt: skip
def test_any_choice_fits_and_is_never_dearer_than_the_usual(
    height: int, width: int, stride: int, halos: int, speed: list[float], room: int, memory: bool
) -> None:
    model = constant_model(0.5, 0.5, bands=3, stride=stride, halo=halos * stride)
    source = Sized(height, width)
    request = Request(memory=room << 20 if memory else None)
    load = Load(source, model.card, (height, width), CPU, Needs(1000, 900))
    found: dict[int, float] = {}

    def fake(model: Model, sizes: Sequence[int], compute: Compute) -> dict[int, float]:
        found.update(dict(zip(sizes, speed, strict=False)))
        return dict(found)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tile_size, "speeds", fake)
        tile = choose_tiling(model, model.card, request, load)[0].tile
    usual = usual_tiling(model.card, Request())
    cut = Cut(usual, load)
    assert tile % stride == 0
    if tile > usual.tile:
        assert load.promise(cut.of(tile)).total <= (room << 20 if memory else ROOM)
        took = times(cut, [usual.tile, tile], found)
        assert took[tile] < CLEARLY * took[usual.tile]
    if tile < usual.tile:
        assert memory
        assert usual.halo is not None
        assert tile >= 4 * usual.halo, "never dearer than half a tile of overlap for the sake of memory"


class Sized(ArraySource):
    """An image of any size that holds no pixels."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__(np.broadcast_to(np.zeros((), np.uint8), (3, height, width)))


def test_memory_makes_tiles_smaller_before_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    measure(monkeypatch)
    monkeypatch.setattr(tile_size, "takes", lambda *_: True)
    least = plan(tile=256).memory.total
    found = plan(memory=least)
    assert 256 <= found.tiling.tile < 512
    assert found.memory.total <= least
    assert found.exact
    assert "memory" in found.why
    with pytest.raises(UsageError, match=r"the least for tiles of 192 px .* is (\S+ MiB)") as refusal:
        plan(memory="550MiB")
    named = parse_bytes(str(refusal.value).split(" is ")[1].split(";")[0])
    assert plan(memory=named).memory.total <= named
    with pytest.raises(UsageError, match="tiles of 512 px"):
        plan(memory=least, tile=512)


@pytest.mark.long
def test_memory_allows_larger_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = measure(monkeypatch)
    wide = random_unet(depth=3, width=24)
    assert max(plan(model=wide, memory="12GiB").tiling.tile, 0) > plan(model=wide).tiling.tile
    assert max(asked[0]) > max(asked[-1])


def test_a_model_of_one_tile_size_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tile_size, "speeds", lambda *_: {512: 1e-6})
    monkeypatch.setattr(tile_size, "takes", lambda *_: False)
    assert plan().tiling.tile == 512
    with pytest.raises(UsageError, match="tiles of 192 px"):
        plan(memory="600MiB")


def test_labels_are_the_same_whatever_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that is lost may change the tile size, never a label."""
    monkeypatch.setattr(tile_size, "WORTH", 0)
    image, box = noise(300, 350), tp.Box(50, 70, 200, 310)
    fast = random_unet()
    small = Model(fast.card.model_copy(update={"tile": 128}), fast.module)
    measure(monkeypatch, slower=4.0)
    usual, part = tp.segment(image, small, tmp_path / "a.tif"), tp.predict(image, small, box)
    measure(monkeypatch)
    other = tp.segment(image, small, tmp_path / "b.tif")
    assert other.plan.tiling.tile > usual.plan.tiling.tile == 128
    labels = np.asarray(usual.labels)
    assert (labels == np.asarray(other.labels)).all()
    assert (labels[box.slices_in(tp.Box(0, 0, 300, 350))] == part).all()
    assert (part == tp.predict(image, small, box)).all()
