"""Plans: the JSON round trip, what the run key depends on, and where regions lie on the three grids."""

from __future__ import annotations

from dataclasses import fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.fakes import job_for, open_queue, plan_of
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tilepipe.box import Box
from tilepipe.errors import TilepipeError
from tilepipe.execution.executors import serial
from tilepipe.inference.device import Compute
from tilepipe.planning.certify import certificate_of
from tilepipe.planning.plan import Plan
from tilepipe.planning.resolution import nearest_pixel
from tilepipe.testing import constant_model, noise
from tilepipe.tiling.statistics_grid import Statistics
from tilepipe.tiling.tiling import Tiling

IMAGE = noise(200, 300)
MODEL = constant_model(0.5, 0.5, bands=3, stride=2, halo=4)
PLAN = plan_of(IMAGE, MODEL, tile=32, overlap=8, block=40)
KEY = PLAN.key({"sha256": "a"}, "w")

FREE = {
    *("tta", "source", "model", "memory", "reach", "why", "left", "holes", "with_image", "fit_table", "agreement"),
}
"""Fields that change no label. A new field must be sorted in here or change the key."""
CHANGED: dict[str, Any] = {
    "bands": 4, "dtype": "uint16", "shape": (201, 300), "predicted": (100, 150), "output": (100, 150),
    "region": Box(0, 0, 200, 299), "mask": "none", "classes": 3, "label_dtype": "uint16", "nodata": 65535,
    "tiling": replace(PLAN.tiling, tile=48), "compute": replace(PLAN.compute, precision="bf16"),
    "layers": ("margin",), "probabilities": True, "picked": (1, 2), "valid_band": 4,
    "statistics": Statistics("field", 32, (4,)),
}  # fmt: skip


@given(
    size=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    tile=st.sampled_from([64, 128]),
    window=st.sampled_from(["auto", "crop", "hann"]),
    workers=st.integers(0, 4),
    mask=st.sampled_from(["auto", "none"]),
    data=st.data(),
)
def test_json_round_trip(
    size: tuple[int, int], tile: int, window: str, workers: int, mask: str, data: st.DataObject
) -> None:
    region, layers = data.draw(boxes(size)), data.draw(st.sampled_from(["margin", "entropy,margin", ()]))
    image = np.broadcast_to(np.zeros(1, np.uint8), (1, *size))
    plan = plan_of_array(
        image, tile=tile, window_shape=window, workers=workers, mask=mask, region=region, layers=layers
    )
    again = Plan.from_json(plan.to_json())
    assert again == plan
    assert again.key({}, "w") == plan.key({}, "w")
    assert str(again) == str(plan)


def plan_of_array(image: np.ndarray, **chosen: Any) -> Plan:
    from tilepipe.sources.array import ArraySource

    return plan_of(ArraySource(image), constant_model(0.5, 0.5, halo=8), **chosen)


@st.composite
def boxes(draw: st.DrawFn, size: tuple[int, int]) -> Box:
    """Draw a box inside (height, width)."""
    y0, x0 = draw(st.integers(0, size[0] - 1)), draw(st.integers(0, size[1] - 1))
    return Box(y0, x0, draw(st.integers(y0 + 1, size[0])), draw(st.integers(x0 + 1, size[1])))


@pytest.mark.parametrize("text", ["", "[]", "{}", "3", "null", '{"region": [0, 0, 0, 0]}', "not json"])
def test_what_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(TilepipeError):
        Plan.from_json(text)


def test_every_field_is_sorted() -> None:
    assert {field.name for field in fields(Plan)} - FREE == set(CHANGED)


@pytest.mark.parametrize("name", sorted(CHANGED))
def test_the_key_changes_with_what_decides_a_label(name: str) -> None:
    assert getattr(PLAN, name) != CHANGED[name]
    assert replace(PLAN, **{name: CHANGED[name]}).key({"sha256": "a"}, "w") != KEY


@pytest.mark.parametrize("name", [field.name for field in fields(Tiling)])
def test_the_key_changes_with_the_tiling(name: str) -> None:
    value = {"window": "hann", "halo": None}.get(name, 16)
    other = replace(PLAN, tiling=replace(PLAN.tiling, **{name: value}))
    assert other != PLAN
    assert other.key({"sha256": "a"}, "w") != KEY


@pytest.mark.parametrize("name", [field.name for field in fields(Compute)])
def test_the_key_changes_with_the_arithmetic_but_not_with_the_workers(name: str) -> None:
    value = {"device": "cuda:0", "precision": "bf16", "batch": 7, "workers": 3, "runtime": "x 1.0"}[name]
    other = replace(PLAN, compute=replace(PLAN.compute, **{name: value}))
    assert other != PLAN
    assert (other.key({"sha256": "a"}, "w") == KEY) == (name == "workers")


def test_numbers_are_twice_as_long_in_fp64() -> None:
    wide = plan_of(IMAGE, MODEL, tile=32, overlap=8, block=40, precision="fp64")
    assert (wide.compute.dtype, wide.compute.itemsize) == ("float64", 8)
    assert (PLAN.compute.dtype, PLAN.compute.itemsize) == ("float32", 4)
    assert wide.memory.model > PLAN.memory.model
    assert wide.memory.tiles > PLAN.memory.tiles
    assert wide.key({"sha256": "a"}, "w") != KEY
    assert Plan.from_json(wide.to_json()) == wide


def test_the_key_changes_with_image_and_weights_but_not_with_names_or_memory() -> None:
    assert PLAN.key({"sha256": "b"}, "w") != KEY
    assert PLAN.key({"sha256": "a"}, "v") != KEY
    free = replace(PLAN, source="elsewhere.tif", model="m", memory=replace(PLAN.memory, tiles=1))
    assert free.key({"sha256": "a"}, "w") == KEY
    assert (
        plan_of(IMAGE, MODEL, tile=32, overlap=8, block=40, memory="64GiB", workers=2).key({"sha256": "a"}, "w") == KEY
    )


@given(size=st.integers(1, 200), of=st.integers(1, 200), data=st.data())
def test_nearest_is_the_pixel_under_the_centre(size: int, of: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, of - 1))
    centre = (index + Fraction(1, 2)) * Fraction(size, of)
    assert nearest_pixel(index, size, of) == int(centre)
    assert 0 <= nearest_pixel(index, size, of) < size


@given(
    shape=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    predicted=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    output=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    data=st.data(),
)
def test_regions_on_the_three_grids(
    shape: tuple[int, int], predicted: tuple[int, int], output: tuple[int, int], data: st.DataObject
) -> None:
    """Brute force by fractions: the output pixels that touch the region, and the pixels under their centres."""
    region = data.draw(boxes(shape))
    plan = replace(PLAN, shape=shape, predicted=predicted, output=output, region=region)
    spans = []
    for axis, (start, stop) in enumerate(((region.y0, region.y1), (region.x0, region.x1))):
        scale = Fraction(shape[axis], output[axis])
        touched = [k for k in range(output[axis]) if k * scale < stop and start < (k + 1) * scale]
        under = [int((k + Fraction(1, 2)) * Fraction(predicted[axis], output[axis])) for k in touched]
        spans.append((touched[0], touched[-1] + 1, min(under), max(under) + 1))
    (y0, y1, v0, v1), (x0, x1, u0, u1) = spans
    assert plan.output_region == Box(y0, x0, y1, x1)
    assert plan.predicted_region == Box(v0, u0, v1, u1)


@given(
    predicted=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    window=st.sampled_from(["crop", "hann"]),
    block=st.integers(1, 90),
    data=st.data(),
)
def test_blocks_predict_each_tile_of_the_region_once(
    predicted: tuple[int, int], window: str, block: int, data: st.DataObject
) -> None:
    tiling = replace(PLAN.tiling, window=window, block=block)
    region = data.draw(boxes(predicted))
    plan = replace(PLAN, shape=predicted, predicted=predicted, output=predicted, region=region, tiling=tiling)
    predicted_tiles = [tile for one in plan.blocks() for tile in plan.tiles_of(one)]
    assert sorted(predicted_tiles) == sorted(plan.tiles())
    assert plan.tile_count == len(predicted_tiles)
    assert plan.work == plan.tile_count * plan.grid.y.tile * plan.grid.x.tile / region.area


def test_the_disk_promise_holds_for_strips_that_do_not_compress(tmp_path: Path) -> None:
    image = noise(64 * 6, 64 * 5)
    cut = {"tile": 64, "overlap": 32, "window_shape": "hann", "block": 64}
    job = job_for(image, constant_model(0.3, 0.3, 0.4, bands=3), tmp_path, **cut)
    most = 0

    def look(event: Any) -> None:
        nonlocal most
        alive = [path.name.split(".") for path in (tmp_path / "run.zarr" / "strips").iterdir()]
        y, x = job.plan.grid.y, job.plan.grid.x
        most = max(most, len(alive) * 8 * 3 * (y.zone * (x.tile - 1) + (y.tile - 1) * (x.zone + x.tile - 1)))

    serial.run(job, open_queue(job, look))
    assert most > 0
    assert job.plan.disk() >= most + 4 * image.shape[1] * image.shape[2]


def test_printing_a_plan_says_what_will_happen() -> None:
    lines = dict(line.split(maxsplit=1) for line in str(PLAN).splitlines())
    assert lines["image"] == "array: 200 x 300 px, 3 bands uint8"
    assert lines["region"] == "all"
    assert lines["tiles"].startswith(f"{PLAN.tile_count} of 32 x 32 px, overlap 8, crop windows")
    assert lines["seams"].startswith("none")
    assert lines["memory"].startswith("at most ")
    part = replace(PLAN, region=Box(1, 2, 3, 4), tiling=replace(PLAN.tiling, window="hann"))
    assert "rows 1 to 3, columns 2 to 4" in str(part)
    assert "an overlap of 8 with crop windows would be exact" in str(part)


@settings(max_examples=20, deadline=None)
@given(height=st.integers(1, 80), width=st.integers(1, 80))
def test_one_tile_is_exact_whatever_the_window(height: int, width: int) -> None:
    tiling = replace(PLAN.tiling, window="hann")
    plan = replace(PLAN, shape=(height, width), predicted=(height, width), tiling=tiling)
    assume(plan.tile_count <= 2)
    assert plan.exact == (height <= 32 and width <= 32)


def test_work_beyond_that_of_tiles_overlapping_by_half_is_said() -> None:
    """128 px with a halo of 32: steps of 64 in both, but crop tiles begin a halo earlier."""
    image = np.zeros((1, 192, 192), np.uint8)
    costly = plan_of_array(image, tile=128, overlap=64, window_shape="crop")
    assert costly.work == 9 * 128**2 / 192**2
    assert costly.baseline_work == 4 * 128**2 / 192**2
    assert "4.00 x one pass over the region is more than the 1.78" in costly.costly
    assert costly.costly in str(costly)
    assert plan_of_array(image, tile=128, overlap=16, window_shape="crop").costly == ""
    assert plan_of_array(image, tile=192, overlap=64, window_shape="crop").costly == "", "one tile"
    said = certificate_of(costly, constant_model(0.5, 0.5)).sentences[1]
    assert "4.00 times the work of one pass, more than the 1.78 of tiles that overlap by half" in said


def test_work_over_a_small_region_is_no_alarm() -> None:
    image = np.zeros((1, 512, 512), np.uint8)
    whole = plan_of_array(image, tile=128, overlap=64, window_shape="crop")
    small = plan_of_array(image, tile=128, overlap=64, window_shape="crop", window=(100, 100, 20, 20))
    assert small.whole == whole
    assert (whole.is_small, small.is_small) == (False, True)
    said = f"{whole.work:.2f} x one pass over the whole image; {small.work:.3g} x over this small region"
    assert said in str(small)
    assert small.costly == ""
    half = plan_of_array(image, tile=128, overlap=64, window_shape="crop", window=(0, 0, 512, 256))
    assert f"{half.work:.2f} x one pass over the region" in str(half)
