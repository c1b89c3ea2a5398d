"""Time of inner stages counts once, and the bottleneck is the largest stage that holds the model up."""

from __future__ import annotations

import time

from tilepipe.stage_times import bottleneck, stage, taken_so_far


def test_an_inner_stage_counts_for_itself_alone() -> None:
    before = taken_so_far()
    with stage("compute"):
        with stage("blend"):
            time.sleep(0.05)
        with stage("blend"):
            time.sleep(0.05)
    taken = {name: seconds - before[name] for name, seconds in taken_so_far().items()}
    assert taken["blend"] >= 0.1
    assert taken["compute"] < 0.05


def test_the_bottleneck_is_named() -> None:
    stages = {"read": 9.0, "wait": 0.5, "compute": 8.0, "blend": 1.0, "write": 0.5, "elapsed": 10.0, "idle": 0.0}
    assert bottleneck(stages) == "the model took 80 % of the time and is the bottleneck"
    assert bottleneck({**stages, "wait": 30.0}).startswith("reading the image took 76 %")
    assert bottleneck({}) == ""


def test_time_in_which_nothing_worked_is_no_work_of_the_model() -> None:
    stages = {"wait": 0.0, "compute": 24.0, "write": 1.0, "products": 12.0, "elapsed": 63.0, "idle": 38.0}
    said = "the model took 32 % of the time and is the bottleneck; for 51 % nothing worked, as while libraries start"
    assert bottleneck(stages) == said
    assert bottleneck({**stages, "idle": 3.0}) == "the model took 60 % of the time and is the bottleneck"
