"""`tta`: the same labels whatever the tiles, those of eight passes over the whole image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tilepipe as tp
from tilepipe.box import Box
from tilepipe.errors import UsageError
from tilepipe.evaluation.verify.verify import verify
from tilepipe.planning.settings import Settings
from tilepipe.testing import noise, random_unet

IMAGE, MODEL = noise(100, 140), random_unet(depth=1)
CUT: Settings = {"tile": 64, "block": 64, "tta": "d4"}


def eight_passes() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Labels of the whole image by torch alone, and by how much the best class leads."""
    box = Box(0, 0, 100, 140)
    x = MODEL.normalise(torch.from_numpy(IMAGE.read(box)[None]))
    mean = np.zeros((MODEL.module(x).shape[1], 100, 140))
    for turns in range(4):
        for mirrored in (False, True):
            turned = torch.rot90(x.flip(2) if mirrored else x, turns, (2, 3)).contiguous()
            with torch.no_grad():
                p = torch.rot90(MODEL.module(turned).double().softmax(1), -turns, (2, 3))
            mean += (p.flip(2) if mirrored else p)[0].numpy() / 8
    first, second = np.sort(mean, axis=0)[::-1][:2]
    return mean.argmax(0), first - second


def test_labels_are_those_of_eight_passes_whatever_the_tiles(tmp_path: Path) -> None:
    result = tp.segment(IMAGE, MODEL, tmp_path / "out.tif", **CUT)
    labels = result.labels[:]
    wanted, lead = eight_passes()
    assert (labels == wanted)[lead > 1e-5].all()
    assert (lead > 1e-5).mean() > 0.99
    assert (labels != tp.predict(IMAGE, MODEL)).mean() > 0.01, "one pass says something else"
    assert result.certificate.mode == "EXACT"
    assert result.plan.tta == "d4"
    assert "8 turned and mirrored" in str(result.plan)
    part = Box(30, 40, 90, 120)
    assert (tp.predict(IMAGE, MODEL, part, **CUT) == labels[30:90, 40:120]).all()
    assert (tp.predict(IMAGE, MODEL, tile=100, block=32, tta="d4") == labels)[lead > 1e-5].all()
    assert verify(tmp_path / "out.tif", IMAGE, MODEL, windows=0).holds


def test_blended_tiles_give_a_region_as_the_crop_of_the_whole() -> None:
    blended: Settings = {**CUT, "window_shape": "hann", "overlap": 32}
    whole = tp.predict(IMAGE, MODEL, **blended)
    part = tp.predict(IMAGE, MODEL, Box(30, 40, 90, 120), **{**blended, "block": 32})
    assert (part == whole[30:90, 40:120]).all()


def test_it_is_part_of_the_keys(tmp_path: Path) -> None:
    window = (0, 0, 64, 64)
    first = tp.segment(IMAGE, MODEL, tmp_path / "out.tif", window=window, tta="d4")
    with pytest.raises(UsageError, match="exists"):
        tp.segment(IMAGE, MODEL, tmp_path / "out.tif", window=window)
    other = tp.segment(IMAGE, MODEL, tmp_path / "other.tif", window=window, tta="none")
    same = tp.segment(IMAGE, MODEL, tmp_path / "same.tif", window=window)
    assert first.record["key"] != other.record["key"] == same.record["key"]
    assert other.record["request"] == same.record["request"] != first.record["request"]


def test_statistics_of_the_whole_image_are_not_put_into_turned_tiles() -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.InstanceNorm2d(4), torch.nn.Conv2d(4, 2, 1))
    model = tp.Model.from_torch(net, tp.ModelCard(bands=3, classes=["a", "b"]))
    plan = tp.plan(IMAGE, model, tile=64, tta="d4")
    assert plan.statistics is None
    assert plan.tiling.window != "crop"
    assert "not fixed for the turned tiles of" in plan.seams
    with pytest.raises(UsageError, match=r"statistics field is not possible for python: .* turned tiles of `tta='d4'`"):
        tp.plan(IMAGE, model, tile=64, tta="d4", statistics="field")
    with pytest.raises(UsageError, match="tta"):
        tp.plan(IMAGE, MODEL, tta="d8")  # type: ignore[typeddict-item]
