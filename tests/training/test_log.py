from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tilepipe.events import Event
from tilepipe.models.formats.directory import load_model
from tilepipe.training import loop
from tilepipe.training.config import TrainConfig
from tilepipe.training.log import log_files, panels
from tilepipe.training.progress import Progress
from tilepipe.training.state import State

Configure = Callable[..., TrainConfig]


@pytest.fixture
def validating(configure: Configure) -> TrainConfig:
    entry = {"image": "i", "label": "l"}
    return configure(train=[entry], validate=[entry], classes=("a, b", "c"), steps=40)


def state(**fields: Any) -> State:
    rows = {"step": 20, "log": [[10, 0.1, 0.5], [20, 0.05, math.inf]]}
    scores = {"validations": [[15.0, 0.25, 0.5, math.nan], [20.0, 0.2, 0.4, 0.0]]}
    return State(*([None] * 5), **{**rows, **scores, **fields})  # type: ignore[arg-type]


def test_the_table_and_the_lines_say_the_same(validating: TrainConfig) -> None:
    files = log_files(state(), validating)
    table = list(csv.DictReader(files["log.csv"].decode().splitlines()))
    lines = [json.loads(line) for line in files["log.jsonl"].decode().splitlines()]
    assert list(table[0]) == ["step", "learning_rate", "loss", "mean_iou", "iou a, b", "iou c"]
    assert lines == [
        {"step": 10, "learning_rate": 0.1, "loss": 0.5},
        {"step": 15, "mean_iou": 0.25, "iou": {"a, b": 0.5, "c": None}},
        {"step": 20, "learning_rate": 0.05, "loss": None, "mean_iou": 0.2, "iou": {"a, b": 0.4, "c": 0.0}},
    ]
    for row, line in zip(table, lines, strict=True):
        iou = line.pop("iou", {})
        for name, value in {**line, **{f"iou {k}": v for k, v in iou.items()}}.items():
            assert row[name] == ("" if value is None else f"{value:.6g}")


def test_curves_show_all_that_was_logged(validating: TrainConfig) -> None:
    loss, rate, iou = panels(state(), validating)
    assert loss.lines[0].points == [(10, 0.5), (20, math.inf)]
    assert rate.lines[0].points == [(10, 0.1), (20, 0.05)]
    assert [line.name for line in iou.lines] == ["a, b", "c", "mean IoU"]
    assert iou.lines[2].points == [(15, 0.25), (20, 0.2)]
    assert iou.lines[2].mark == (15, 0.25)
    assert len(panels(state(validations=[]), validating)) == 2


def test_the_log_lies_in_the_model_directory_and_loading_does_not_mind(
    small: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "halo", lambda module, bands: 24)
    directory: Path = loop.fit(small(steps=3))
    assert sorted(path.name for path in directory.iterdir()) == [
        "certificate.json", "curves.png", "log.csv", "log.jsonl", "model.json", "training.json",
        "weights.safetensors",
    ]  # fmt: skip
    assert load_model(directory).card.name == "m"


def test_training_without_matplotlib_says_so_and_draws_no_curves(
    small: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = list[Event]()
    monkeypatch.setattr(loop, "halo", lambda module, bands: 24)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    directory = loop.fit(small(steps=2, checkpoint=1), events.append)
    assert sum("pip install 'tilepipe[report]'" in event.message for event in events) == 1
    assert (directory / "log.csv").exists()
    assert not (directory / "curves.png").exists()


def test_progress_says_loss_speed_time_left_and_the_last_validation(validating: TrainConfig) -> None:
    now, events = [100.0], list[Event]()
    current = state(step=0, validations=[])
    progress = Progress(current, validating, events.append, lambda: now[0])
    current.step, now[0] = 10, 105.0
    progress.stepped(0.25)
    current.validations = state().validations
    progress.validated()
    progress.stepped(0.25)
    assert events[0].message == "loss 0.2500, 2 steps/s, 15 s left"
    assert (events[0].done, events[0].total, events[0].data["seconds_left"]) == (10, 40, 15.0)
    assert events[1].message == "validation mean IoU 0.200, best 0.250 at step 15"
    assert events[1].data == {"step": 10, "mean_iou": 0.2, "iou": {"a, b": 0.4, "c": 0.0}}
    assert events[2].message == "loss 0.2500, 2 steps/s, 15 s left, validation mean IoU 0.200, best 0.250 at step 15"
