"""Two keys: what was asked decides resume, what was chosen is kept; and an image that changes is noticed."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.small_runs import CODES, StopError, labels_of, segment, stop_at, work
from hypothesis import given
from hypothesis import strategies as st

import tilepipe as tp
from tilepipe.box import Box
from tilepipe.errors import DeviceError, StorageError, UsageError
from tilepipe.execution.keys import Keys, kept_plan, read_plan
from tilepipe.planning import planner
from tilepipe.planning.settings import Request
from tilepipe.planning.tile_size import usual_tiling
from tilepipe.storage import write_json
from tilepipe.testing import noise, random_unet, whole_image

KEYS = Keys({"sha256": "a"}, {}, "model")


def key(settings: Any) -> str:
    return KEYS.request(Request.of(settings))


@pytest.mark.parametrize(
    "given",
    [
        {"workers": 3}, {"scheduler": "tls://host:8786"}, {"overwrite": True}, {"of": ["cog"]},
        {"trust_model": "sha256:0"},
        {"tile": "auto"}, {"overlap": "auto"}, {"mask": "auto"}, {"device": "auto"}, {"resolution": "full"},
        {"layers": ()}, {"region": None}, {"workers": 0},
    ],
)  # fmt: skip
def test_what_decides_no_label_is_left_out_of_the_request(given: Any) -> None:
    assert key(given) == key({})


@pytest.mark.parametrize(
    "given",
    [
        {"tile": 512}, {"overlap": 0}, {"overlap": 64}, {"memory": "4GiB"}, {"tolerance": 0}, {"layers": "margin"},
        {"region": Box(0, 0, 1, 1)}, {"window": (0, 0, 1, 1)}, {"precision": "fp64"}, {"mask": "none"}, {"batch": 2},
        {"device": "cpu"}, {"pixel_size": 0.5}, {"max_cost": 3.0}, {"statistics": "tile"},
    ],
)  # fmt: skip
def test_what_decides_labels_or_tiles_is_in_the_request(given: Any) -> None:
    assert key(given) != key({})


def test_image_and_model_are_in_the_request() -> None:
    assert len({Keys({"sha256": i}, {}, m).request(Request()) for i in "ab" for m in "xy"}) == 4


@given(st.permutations(["margin", "entropy", "disagreement"]))
def test_the_order_and_form_of_layers_is_no_other_request(names: list[str]) -> None:
    assert key({"layers": names}) == key({"layers": ",".join(names)})
    assert key({"tile": 512.0}) == key({"tile": 512})


def test_a_file_of_polygons_counts_by_its_content(tmp_path: Path) -> None:
    one, two = tmp_path / "a.geojson", tmp_path / "b.geojson"
    one.write_text("{}")
    two.write_text("{}")
    assert key({"mask": one}) == key({"mask": str(two)})
    before = key({"mask": one})
    one.write_text("[]")
    assert key({"mask": one}) != before


def test_the_kept_plan_is_used_whatever_would_be_chosen_today(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Choices that depend on how busy a machine is are made once: the same command goes on with them."""
    image, model, output = noise(200, 220), random_unet(depth=1), tmp_path / "out.tif"
    sizes = iter([64, 96, 128])
    monkeypatch.setattr(
        planner,
        "choose_tiling",
        lambda _model, card, request, _load: (usual_tiling(card, replace(request, tile=next(sizes))), "measured"),
    )
    with pytest.raises(StopError):
        tp.segment(image, model, output, block=64, listener=stop_at("predict", 3))
    done: list[int] = []
    result = tp.segment(
        image, model, output, block=64, listener=lambda e: done.append(e.done) if e.stage == "predict" else None
    )
    assert result.plan.tiling.tile == 64
    assert done[0] >= 3, "blocks of before are used"
    assert len([path for path in work(output).iterdir() if path.is_dir()]) == 1
    again = tp.segment(image, model, output, block=64)
    assert again.plan == result.plan
    assert next(sizes) == 96, "planned once"


@pytest.mark.long
def test_another_number_of_workers_goes_on(tmp_path: Path) -> None:
    output = tmp_path / "out.tif"
    with pytest.raises(StopError):
        segment(output, listener=stop_at("predict", 3))
    done: list[int] = []
    result = segment(output, workers=1, listener=lambda e: done.append(e.done) if e.stage == "predict" else None)
    assert done[0] == 3
    assert result.plan.compute.workers == 1
    assert (labels_of(output) == CODES).all()


def test_workers_that_do_not_keep_the_memory_are_refused(tmp_path: Path) -> None:
    output, plan = tmp_path / "out.tif", tp.plan(noise(90, 130), random_unet(depth=1), tile=64)
    memory = plan.memory.total + (1 << 20)
    with pytest.raises(StopError):
        tp.segment(noise(90, 130), random_unet(depth=1), output, tile=64, memory=memory, listener=stop_at("predict"))
    with pytest.raises(UsageError, match=r"cannot be kept .* with 8 worker processes.*fewer `workers`"):
        tp.segment(noise(90, 130), random_unet(depth=1), output, tile=64, memory=memory, workers=8)


def test_a_device_that_is_gone_is_refused_in_a_sentence(tmp_path: Path) -> None:
    output = tmp_path / "out.tif"
    with pytest.raises(StopError):
        segment(output, listener=stop_at("predict", 3))
    kept = next(work(output).glob("*/plan.json"))
    plan = read_plan(kept.parent)
    fields = plan.plan.to_dict()
    fields["compute"]["device"] = "cuda:7"
    write_json(kept, {**fields, "request": plan.request})
    with pytest.raises(DeviceError, match=r"interrupted computes on cuda:7: .*name another one with `device`"):
        segment(output)


def test_a_damaged_plan_is_made_again(tmp_path: Path) -> None:
    output = tmp_path / "out.tif"
    with pytest.raises(StopError):
        segment(output, listener=stop_at("predict", 3))
    kept = next(work(output).glob("*/plan.json"))
    kept.write_text(kept.read_text().replace('"tile": 32', '"tile": 64'))
    with pytest.raises(StorageError, match="damaged"):
        read_plan(kept.parent)
    assert kept_plan(kept.parent, "") is None
    result = segment(output)
    assert result.plan.tiling.tile == 32
    assert (labels_of(output) == CODES).all()


def rewrite(path: Path, content: bytes, times: os.stat_result | None) -> None:
    with path.open("r+b") as file:
        file.write(content)
    if times:
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("how", ["written over", "time set back", "replaced", "same content", "zarr"])
def test_an_image_that_changes_during_a_run(how: str, tmp_path: Path) -> None:
    output = tmp_path / "out.tif"
    path, other = (tmp_path / f"{name}{'.zarr' if how == 'zarr' else '.tif'}" for name in ("in", "other"))
    for seed, file in enumerate((path, other)):
        save(file, noise(90, 130, seed=seed).read(Box(0, 0, 90, 130)))

    def change(event: Any) -> None:
        if event.stage != "predict" or event.done != 2:
            return
        if how == "zarr":
            for chunk in other.rglob("c/*/*/*"):
                (path / chunk.relative_to(other)).write_bytes(chunk.read_bytes())
        elif how == "replaced":
            os.replace(other, path)
        else:
            content = (path if how == "same content" else other).read_bytes()
            rewrite(path, content, path.stat() if how == "time set back" else None)

    model = random_unet(depth=1)
    if how == "same content":
        result = tp.segment(path, model, output, tile=32, block=32, listener=change)
        assert result.failed == []
        assert (np.asarray(result.labels) == whole_image(model, tp.open_source(path))).all()
        return
    with pytest.raises(tp.TilepipeError, match="changed while") as refused:
        tp.segment(path, model, output, tile=32, block=32, listener=change)
    assert refused.value.exit_code == 4
    assert not output.exists()
    result = tp.segment(path, model, output, tile=32, block=32)
    now = noise(90, 130, seed=1)
    assert (np.asarray(result.labels) == tp.predict(now, model, tile=32, block=32)).all()


def save(path: Path, pixels: np.ndarray) -> None:
    if path.suffix == ".zarr":
        import zarr

        zarr.save_array(str(path), pixels)
        return
    import rasterio

    size = {"count": len(pixels), "height": pixels.shape[1], "width": pixels.shape[2]}
    with rasterio.open(path, "w", driver="GTiff", dtype=pixels.dtype, **size, transform=(2, 0, 0, 0, -2, 0)) as file:
        file.write(pixels)
