"""One tile that the model fails on: its pixels get no label and it is listed; every other label is right."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from helpers.small_runs import StopError, stop_at
from torch import Tensor, nn

import tilepipe as tp
from tilepipe.box import Box
from tilepipe.cli.main import main
from tilepipe.errors import DeviceError, InputError, ModelError, UsageError
from tilepipe.evaluation.verify.verify import verify
from tilepipe.execution.batch import run_batch
from tilepipe.planning import reduced_halo
from tilepipe.sources.array import ArraySource
from tilepipe.testing import FakeSource

RNG = np.random.default_rng(0)
TRIGGER = (255, 0, 255)
PIXELS = RNG.integers(1, 255, (3, 130, 200), dtype=np.uint8)
PIXELS[:, 75, 101] = TRIGGER
TILE = 32
BAD = np.s_[64:96, 96:128]
MEMORY_ERRORS = {
    "memory": MemoryError(),
    "torch's memory": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
}
NO_TILE_ERRORS = {
    "cuda memory": torch.OutOfMemoryError("CUDA out of memory"),
    "broken device": torch.AcceleratorError("CUDA error: device-side assert triggered"),
}


class Bad(nn.Module):
    """Labels each pixel by itself, and does `what` to a tile that holds the trigger."""

    def __init__(self, what: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.what = nn.Conv2d(3, 4, 1), what

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        hit = (x[:, 0] == TRIGGER[0]) & (x[:, 1] == TRIGGER[1]) & (x[:, 2] == TRIGGER[2])
        if self.what == "always" or hit.any():
            if self.what == "raise":
                raise RuntimeError("boom")
            if self.what in MEMORY_ERRORS:
                raise MEMORY_ERRORS[self.what]
            if self.what in NO_TILE_ERRORS:
                raise NO_TILE_ERRORS[self.what]
            if self.what in ("nan", "inf", "always"):
                return y * float("inf" if self.what == "inf" else "nan")
            if self.what == "shape":
                return y[:, :2]
        return y


def model(what: str) -> tp.Model:
    return tp.Model.from_torch(Bad(what), tp.ModelCard(bands=3, classes=tuple("abcd"), stride=1, halo=0))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    shape = {"count": 3, "height": 130, "width": 200, "dtype": "uint8"}
    place = {"crs": "EPSG:32645", "transform": rasterio.Affine(0.5, 0, 3e5, 0, -0.5, 3e6)}
    with rasterio.open(tmp_path / "in.tif", "w", driver="GTiff", **shape, **place) as file:
        file.write(PIXELS)
    return tmp_path / "in.tif"


def truth() -> np.ndarray:
    with torch.inference_mode():
        return model("nothing").module(torch.from_numpy(PIXELS[None]).float()).argmax(1)[0].numpy()


HARD: dict[str, Any] = {"tile": TILE, "overlap": 0, "window_shape": "crop", "block": 2 * TILE}


@pytest.mark.parametrize("what", ["raise", "nan", "inf", "shape"])
@pytest.mark.parametrize("batch", [1, 4])
def test_that_tile_is_nodata_and_listed(image: Path, tmp_path: Path, what: str, batch: int) -> None:
    result = tp.segment(image, model(what), tmp_path / "out.tif", batch=batch, **HARD)
    with rasterio.open(tmp_path / "out.tif") as file:
        found = file.read(1)
    wanted = truth().astype(np.uint8)
    wanted[BAD] = 255
    np.testing.assert_array_equal(found, wanted)
    (failed,) = result.failed
    assert "the model fails in rows 64 to 96, columns 96 to 128: " in failed
    cause = {"raise": "RuntimeError: boom", "shape": "returned (", "nan": "NaN", "inf": "infinite"}[what]
    assert cause in failed
    assert "float32" not in failed  # no advice about the model as a whole, which works
    (record,) = tmp_path.glob(".out.tif.tilepipe/*/run.json")
    assert json.loads(record.read_text())["failed"] == [failed]


def test_blended_tiles_leave_what_the_tile_weighs_in_on(image: Path, tmp_path: Path) -> None:
    result = tp.segment(image, model("nan"), tmp_path / "out.tif", tile=48, overlap=16, window_shape="hann", block=96)
    with rasterio.open(tmp_path / "out.tif") as file:
        found = file.read(1)
    wanted = truth().astype(np.uint8)
    wanted[32:112, 64:144] = 255  # the four tiles that hold the pixel, whole, as with tiles that cannot be read
    assert len(result.failed) == 4
    np.testing.assert_array_equal(found, wanted)


class Once(Bad):
    """Fails unless the environment says that it works: its identity stays, which an attribute would change."""

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if os.environ.get("WORKS") else super().forward(x)


def test_a_second_run_with_overwrite_tries_it_again(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tp.Model.from_torch(Once("raise"), tp.ModelCard(bands=3, classes=tuple("abcd"), stride=1, halo=0))
    assert len(tp.segment(image, module, tmp_path / "out.tif", **HARD).failed) == 1
    monkeypatch.setenv("WORKS", "1")
    again = tp.segment(image, module, tmp_path / "out.tif", overwrite=True, **HARD)
    assert again.failed == []
    assert len(list(tmp_path.glob(".out.tif.tilepipe/*/run.json"))) == 1  # the same run
    np.testing.assert_array_equal(np.asarray(again.labels), truth())


def test_fail_ends_the_run_and_nodata_goes_on_from_there(image: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="rows 64 to 96, columns 96 to 128: RuntimeError: boom"):
        tp.segment(image, model("raise"), tmp_path / "out.tif", on_tile_error="fail", **HARD)
    assert not (tmp_path / "out.tif").exists()
    directories = list(tmp_path.glob(".out.tif.tilepipe/*/plan.json"))
    assert len(tp.segment(image, model("raise"), tmp_path / "out.tif", **HARD).failed) == 1
    assert list(tmp_path.glob(".out.tif.tilepipe/*/plan.json")) == directories  # the same run
    with pytest.raises(UsageError, match="give nodata or fail"):
        tp.segment(image, model("raise"), tmp_path / "o.tif", on_tile_error="skip", **HARD)


def test_a_tile_that_cannot_be_read_ends_the_run_too_where_that_is_asked_for(tmp_path: Path) -> None:
    torn = FakeSource(np.where(PIXELS == 255, 254, PIXELS).astype(np.uint8), damaged=Box(75, 101, 76, 102))
    problem = "array: rows 75 to 76, columns 101 to 102 are damaged"
    assert tp.segment(torn, model("nothing"), tmp_path / "a.tif", **HARD).failed == [problem]
    with pytest.raises(InputError, match=problem):
        tp.segment(torn, model("nothing"), tmp_path / "b.tif", on_tile_error="fail", **HARD)


def test_a_model_that_fails_on_every_tile_is_refused(image: Path, tmp_path: Path) -> None:
    everywhere = np.broadcast_to(np.array(TRIGGER, np.uint8)[:, None, None], PIXELS.shape)
    with pytest.raises(ModelError, match=r"none of 35 tiles could be predicted; the first: the model fails in rows 0"):
        tp.segment(everywhere.copy(), model("raise"), tmp_path / "out.tif", **HARD)
    with pytest.raises(ModelError, match="NaN"):
        tp.segment(image, model("always"), tmp_path / "out.tif", **HARD)
    assert not (tmp_path / "out.tif").exists()


def test_in_memory_it_is_an_error() -> None:
    with pytest.raises(ModelError, match="rows 64 to 96, columns 96 to 128: RuntimeError: boom"):
        tp.predict(PIXELS, model("raise"), **HARD)
    part = tp.predict(PIXELS, model("raise"), Box(0, 0, 60, 90), **HARD)
    np.testing.assert_array_equal(part, truth()[:60, :90])


@pytest.mark.parametrize("what", MEMORY_ERRORS)
@pytest.mark.parametrize("settings", [HARD, {**HARD, "batch": 4}])
def test_a_tile_that_eats_memory_gets_no_label(
    image: Path, tmp_path: Path, what: str, settings: dict[str, Any]
) -> None:
    result = tp.segment(image, model(what), tmp_path / "out.tif", **settings)
    assert len(result.failed) == 1
    assert "rows 64 to 96, columns 96 to 128" in result.failed[0]
    assert "memory ran out" in result.failed[0] or "MemoryError" in result.failed[0] or "allocate" in result.failed[0]
    labels = rasterio.open(tmp_path / "out.tif").read(1)
    right = truth()
    right[64:96, 96:128] = 255
    np.testing.assert_array_equal(labels, right)


@pytest.mark.parametrize("what", MEMORY_ERRORS)
def test_memory_that_is_short_for_all_tiles_is_no_matter_of_one(image: Path, tmp_path: Path, what: str) -> None:
    class Short(Bad):
        def forward(self, x: Tensor) -> Tensor:
            raise MEMORY_ERRORS[what]

    short = tp.Model.from_torch(Short(what), tp.ModelCard(bands=3, classes=tuple("abcd"), stride=1, halo=0))
    with pytest.raises(DeviceError, match="memory ran out"):
        tp.segment(image, short, tmp_path / "out.tif", **HARD)
    assert not (tmp_path / "out.tif").exists()


@pytest.mark.parametrize("what", NO_TILE_ERRORS)
def test_memory_that_runs_out_or_a_broken_device_is_no_matter_of_a_tile(image: Path, tmp_path: Path, what: str) -> None:
    with pytest.raises(DeviceError):
        tp.segment(image, model(what), tmp_path / "out.tif", **HARD)
    assert not (tmp_path / "out.tif").exists()
    (ledger,) = tmp_path.glob(".out.tif.tilepipe/*/ledger.jsonl")
    done = [json.loads(line) for line in ledger.read_text().splitlines()]
    assert done  # finished blocks stay
    assert not any(line["failed"] for line in done)


def test_fail_tries_again_what_failed_in_a_run_that_was_stopped(image: Path, tmp_path: Path) -> None:
    with pytest.raises(StopError):
        tp.segment(image, model("raise"), tmp_path / "out.tif", listener=stop_at("export"), **HARD)
    with pytest.raises(ModelError, match="boom"):
        tp.segment(image, model("raise"), tmp_path / "out.tif", on_tile_error="fail", **HARD)
    assert not (tmp_path / "out.tif").exists()


@pytest.mark.long
@pytest.mark.parametrize("window", ["crop", "hann"])
def test_a_run_with_such_a_tile_can_be_verified(
    image: Path, tmp_path: Path, window: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut: dict[str, Any] = {"tile": TILE, "overlap": 16, "window_shape": window, "block": 2 * TILE}
    result = tp.segment(image, model("raise"), tmp_path / "out.tif", **cut)
    found = verify(result, image, model("raise"), windows=12)
    assert found.holds, found
    assert 0 < len(found.windows) < 12
    once = tp.Model.from_torch(Once("raise"), tp.ModelCard(bands=3, classes=tuple("abcd"), stride=1, halo=0))
    monkeypatch.setenv("WORKS", "1")
    whole = tp.segment(image, once, tmp_path / "whole.tif", **cut)
    monkeypatch.delenv("WORKS")
    with pytest.raises(ModelError, match="boom"):  # no tile of that run failed
        verify(whole, image, once, windows=12)


@pytest.mark.long
def test_a_window_that_shows_how_much_context_is_needed_may_be_the_bad_one(tmp_path: Path) -> None:
    """Where a tolerance is asked for, the model runs on patches of the image before there is a plan."""

    class Wide(Bad):
        def __init__(self) -> None:
            super().__init__("raise")
            self.layer = nn.Conv2d(3, 4, 21, padding=10)
            near = nn.functional.pad(torch.ones(11, 11), [5] * 4, value=1e-3)
            self.layer.weight = nn.Parameter(self.layer.weight.detach() * near / 60)

    source = ArraySource(PIXELS)
    wide = tp.Model.from_torch(Wide(), tp.ModelCard(bands=3, classes=tuple("abcd")))
    seen = [(patch == np.array(TRIGGER)[:, None, None]).all(0).any() for patch in reduced_halo.patches(source, 66)]
    assert 0 < sum(seen) < len(seen)
    plans = [tp.plan(pixels, wide, tile=32, tolerance=0.9, max_cost=4) for pixels in (source, np.minimum(PIXELS, 254))]
    assert plans[0].tiling == plans[1].tiling
    assert plans[0].reach.tolerance == 0.9


def test_the_command_line_says_why_and_ends_with_3(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tilepipe.models.unread.open_model", lambda *_args, **_options: model("raise"))
    words = ["segment", str(image), str(tmp_path / "o.tif"), "-m", "m", "-q", "--tile", "32", "--overlap", "0"]
    assert main([*words, "--window-shape", "crop"]) == 3
    assert "RuntimeError: boom" in capsys.readouterr().err
    assert main([*words[:2], str(tmp_path / "p.tif"), *words[3:], "--on-tile-error", "fail"]) == 5


def test_a_batch_lists_the_tile_or_the_image(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run_batch, "open_known", lambda *_args, **_options: model("raise"))
    for asked, status in (("nodata", "partial"), ("fail", "failed")):
        cut = f"tile: 32, overlap: 0, window_shape: crop, on_tile_error: {asked}"
        jobs = tmp_path / f"{asked}.yaml"
        jobs.write_text(f"images: [in.tif]\nmodel: m\noutput: {asked}/{{stem}}.tif\nsettings: {{{cut}}}\n")
        assert main(["batch", "run", str(jobs), "-q"]) == 3
        out, err = capsys.readouterr()
        assert out.startswith(status)
        assert "rows 64 to 96, columns 96 to 128: RuntimeError: boom" in err
