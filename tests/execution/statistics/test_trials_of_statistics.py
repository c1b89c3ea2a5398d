"""A model that fails where statistics are taken: a field leaves the patch out and lists it, the whole is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.fakes import global_net
from helpers.small_runs import StopError, stop_at
from torch import Tensor, nn

import tilepipe as tp
from tilepipe.box import Box
from tilepipe.errors import InputError, ModelError
from tilepipe.testing import FakeSource

TRIGGER = (255, 0, 255)
PIXELS = np.random.default_rng(0).integers(1, 255, (3, 130, 200), dtype=np.uint8)
PIXELS[:, 75, 101] = TRIGGER
CUT: dict[str, Any] = {"tile": 64, "overlap": 32, "statistics": "field"}
CARD = tp.ModelCard(bands=3, classes=tuple("abc"), stride=4, training={"configuration": {"crop": 32}})


class Global(nn.Module):
    """A network with squeeze-and-excitation that fails on patches and tiles with the trigger."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.net, self.what = global_net("squeeze"), what

    def forward(self, x: Tensor) -> Tensor:
        hit = ((x[:, 0] == TRIGGER[0]) & (x[:, 1] == TRIGGER[1]) & (x[:, 2] == TRIGGER[2])).any()
        hit = hit and not os.environ.get("WORKS")  # an attribute would make it another model
        if hit and self.what == "raise":
            raise RuntimeError("boom")
        x = (x - 127) / 60
        out: Tensor = self.net(x * torch.nan if hit and self.what == "nan inside" else x)
        return out * torch.nan if hit and self.what == "nan" else out


def model(what: str) -> tp.Model:
    return tp.Model.from_torch(Global(what), CARD)


@pytest.mark.parametrize("what", [*(pytest.param(w, marks=pytest.mark.long) for w in ("raise", "nan")), "nan inside"])
def test_a_patch_counts_for_nothing_and_is_listed(what: str, tmp_path: Path) -> None:
    result = tp.segment(PIXELS, model(what), tmp_path / "out.tif", **CUT)
    labels = np.asarray(result.labels)
    assert result.plan.statistics is not None
    patches = [text for text in result.failed if "rows 64 to 128, columns 64 to 128" in text]
    assert len(patches) == 1, result.failed  # a patch, and no tile lies there
    assert labels[75, 101] == 255
    assert 0 < (labels == 255).mean() < 0.5
    far = tp.segment(np.minimum(PIXELS, 254), model(what), tmp_path / "far.tif", **CUT)
    assert far.failed == []
    differ = np.argwhere((labels != np.asarray(far.labels)) & (labels != 255))
    assert (abs(differ - (75, 101)) < 128).all()  # no further than the patch that is missing is looked at


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("what", "cause"), [("raise", "RuntimeError: boom"), ("nan inside", "NaN")])
def test_statistics_of_the_whole_image_are_refused(
    what: str, cause: str, batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = {**CUT, "statistics": "whole", "batch": batch}
    with pytest.raises(ModelError, match=rf"rows 16 to 80, columns 48 to 112: .*{cause}.*`statistics='field'`"):
        tp.segment(PIXELS, model(what), tmp_path / "out.tif", **cut)
    with pytest.raises(ModelError, match=rf"rows 16 to 80, columns 48 to 112: .*{cause}"):
        tp.predict(PIXELS, model(what), **cut)
    monkeypatch.setenv("WORKS", "1")
    assert tp.segment(PIXELS, model(what), tmp_path / "out.tif", **cut).failed == []


@pytest.mark.parametrize("asked", [pytest.param("overwrite", marks=pytest.mark.long), "fail"])
def test_a_patch_is_tried_again_when_asked(asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "out.tif"
    if asked == "fail":
        for _ in range(2):
            with pytest.raises(ModelError, match="rows 64 to 128, columns 64 to 128: RuntimeError: boom"):
                tp.segment(PIXELS, model("raise"), output, on_tile_error="fail", **CUT)
    else:
        assert tp.segment(PIXELS, model("raise"), output, **CUT).failed
    monkeypatch.setenv("WORKS", "1")
    result = tp.segment(PIXELS, model("raise"), output, **CUT, **{asked: True} if asked == "overwrite" else {})
    assert result.failed == []
    truth = tp.segment(PIXELS, model("raise"), tmp_path / "truth.tif", **CUT)
    np.testing.assert_array_equal(np.asarray(result.labels), np.asarray(truth.labels))


@pytest.mark.long
def test_fail_never_mixes_statistics_with_and_without_a_patch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that went on without a patch is stopped; with `fail` the patch is tried again, and then it works."""

    with pytest.raises(StopError):
        tp.segment(PIXELS, model("raise"), tmp_path / "out.tif", listener=stop_at("export"), **CUT)
    monkeypatch.setenv("WORKS", "1")
    result = tp.segment(PIXELS, model("raise"), tmp_path / "out.tif", on_tile_error="fail", **CUT)
    assert result.failed == []
    truth = tp.segment(PIXELS, model("raise"), tmp_path / "truth.tif", **CUT)
    np.testing.assert_array_equal(np.asarray(result.labels), np.asarray(truth.labels))


def test_in_memory_a_patch_that_fails_is_an_error_where_it_is_needed() -> None:
    wide = np.concatenate((PIXELS, np.minimum(PIXELS, 254), np.minimum(PIXELS, 254)), axis=2)
    far = Box(0, 500, 60, 560)
    truth = tp.predict(np.minimum(wide, 254), model("raise"), far, **CUT)
    np.testing.assert_array_equal(tp.predict(wide, model("raise"), far, **CUT), truth)
    beside = Box(96, 160, 130, 200)  # its tiles do not hold the pixel
    with pytest.raises(ModelError, match="rows 64 to 128, columns 64 to 128: RuntimeError: boom"):
        tp.predict(PIXELS, model("raise"), beside, **CUT)


def test_in_memory_a_patch_that_cannot_be_read_is_an_error_where_it_is_needed() -> None:
    torn = FakeSource(np.minimum(PIXELS, 254), damaged=Box(75, 101, 76, 102))
    with pytest.raises(InputError, match="rows 75 to 76, columns 101 to 102 are damaged"):
        tp.predict(torn, model("raise"), Box(96, 160, 130, 200), **CUT)
