"""A model is its behaviour: labels, resumed runs and what is kept of a model never come from another one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tilepipe as tp
from tilepipe.events import Event

IMAGE = np.random.default_rng(0).integers(0, 256, (1, 200, 230), dtype=np.uint8)
CUT = {"tile": 32, "overlap": 0, "window_shape": "crop", "block": 64, "workers": 0}


class Rule(nn.Module):
    """Class 1 where a function that was handed in says so."""

    def __init__(self, rule: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.rule = rule

    def forward(self, x: Tensor) -> Tensor:
        bright = self.rule(x).float()
        return 4 * torch.cat((1 - bright, bright), 1) - 2


def model(rule: Callable[[Tensor], Tensor]) -> tp.Model:
    return tp.Model.from_torch(Rule(rule), tp.ModelCard(bands=1, classes=["dark", "bright"]))


def stopping_after(blocks: int) -> Callable[[Event], None]:
    def listen(event: Event) -> None:
        if event.stage == "predict" and event.done >= blocks:
            raise KeyboardInterrupt

    return listen


def test_an_interrupted_run_is_never_completed_by_another_behaviour(tmp_path: Path) -> None:
    output = tmp_path / "labels.tif"
    with pytest.raises(KeyboardInterrupt):
        tp.segment(IMAGE, model(lambda x: x > 100), output, listener=stopping_after(5), **CUT)
    result = tp.segment(IMAGE, model(lambda x: x < 100), output, **CUT)
    assert (result.labels[:] == (IMAGE[0] < 100)).all()


def test_overwrite_returns_the_labels_of_the_model_that_is_given(tmp_path: Path) -> None:
    output = tmp_path / "labels.tif"
    for level in (100, 50, 100):
        result = tp.segment(IMAGE, model(lambda x, level=level: x > level), output, overwrite=True, **CUT)
        assert (result.labels[:] == (IMAGE[0] > level)).all()


def test_the_same_behaviour_resumes(tmp_path: Path) -> None:
    output, done = tmp_path / "labels.tif", []
    with pytest.raises(KeyboardInterrupt):
        tp.segment(IMAGE, model(lambda x: x > 100), output, listener=stopping_after(5), **CUT)
    tp.segment(
        IMAGE,
        model(lambda x: x > 100),
        output,
        listener=lambda event: done.append(event.done) if event.stage == "predict" else None,
        **CUT,
    )
    assert min(done) >= 5


PLANNED = """
import numpy as np
import torch
import tilepipe as tp

calls = []

class Own(torch.nn.Module):
    def __init__(self, gain):
        super().__init__()
        self.conv, self.gain = torch.nn.Conv2d(3, 2, 5, padding=2), [gain]
        torch.nn.init.constant_(self.conv.weight, 0.1)
        torch.nn.init.zeros_(self.conv.bias)

    def forward(self, x):
        calls.append(1)
        return self.conv(x) * self.gain[0]

model = tp.Model.from_torch(Own(2.0), tp.ModelCard(bands=3, classes=["a", "b"]))
calls.clear()
print(tp.plan(np.zeros((3, 100, 120), np.uint8), model).tiling.halo, len(calls))
"""


@pytest.mark.long
def test_the_probe_of_a_users_model_is_kept_between_processes(tmp_path: Path) -> None:
    def planned() -> list[int]:
        environment = {**os.environ, "TILEPIPE_CACHE": str(tmp_path / "cache")}
        command = [sys.executable, "-c", PLANNED]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return [int(word) for word in done.stdout.split()]

    (halo, calls), (same, again) = planned(), planned()
    assert halo == same == 2
    assert calls > 24
    assert again <= 10, "asked for its identity alone"


def test_a_dask_array_over_changed_data_gets_its_own_labels(tmp_path: Path) -> None:
    output, bright = tmp_path / "labels.tif", model(lambda x: x > 100)
    data = [IMAGE]
    array = da.from_array(IMAGE, chunks=(1, 64, 64), name="image").map_blocks(
        lambda _, block_info: data[0][tuple(slice(*place) for place in block_info[0]["array-location"])],
        dtype=np.uint8,
        meta=np.zeros((0, 0, 0), np.uint8),
    )
    for pixels in (IMAGE, 255 - IMAGE):
        data[0] = pixels
        result = tp.segment(array, bright, output, overwrite=True, **CUT)
        assert (result.labels[:] == (pixels[0] > 100)).all()


class Wavers(nn.Module):
    """Changes the last bits of its logits from call to call: too little for the probe to refuse it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        bright = (x > 100).float()
        return 4 * torch.cat((1 - bright, bright), 1) - 2 + self.calls % 3 * 2.4e-7


def test_a_run_of_a_model_whose_answers_do_not_repeat_is_said_and_never_resumed(tmp_path: Path) -> None:
    output, events = tmp_path / "labels.tif", []
    wavers = tp.Model.from_torch(Wavers(), tp.ModelCard(bands=1, classes=["dark", "bright"]))
    with pytest.raises(KeyboardInterrupt):
        tp.segment(IMAGE, wavers, output, listener=stopping_after(5), **CUT)
    for _ in range(2):
        events.clear()
        tp.segment(IMAGE, wavers, output, listener=events.append, overwrite=True, **CUT)
        said = [event.message for event in events if "has no identity" in event.message]
        assert said == [
            "python has no identity: it answers the same tile differently when it is asked again; "
            "the run cannot be resumed"
        ]
        assert min(event.done for event in events if event.stage == "predict") <= 1, "computed from the first block"
    with pytest.raises(tp.TilepipeError, match="cannot be verified: it answers the same tile differently"):
        tp.verify(output, image=IMAGE, model=wavers)


@pytest.mark.parametrize("byte", [0.3, 0.5, 0.9])
def test_overwrite_keeps_a_product_only_where_its_bytes_are_proven_the_same(byte: float, tmp_path: Path) -> None:
    output, bright = tmp_path / "labels.tif", model(lambda x: x > 100)
    tp.segment(IMAGE, bright, output, **CUT)
    written, times = output.read_bytes(), output.stat()
    damaged = bytearray(written)
    damaged[int(byte * len(written))] ^= 1
    output.write_bytes(damaged)
    os.utime(output, ns=(times.st_atime_ns, times.st_mtime_ns))
    tp.segment(IMAGE, bright, output, overwrite=True, **CUT)
    assert output.read_bytes() == written
