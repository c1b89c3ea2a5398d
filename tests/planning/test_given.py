"""Settings of any kind, from Python and from a jobs file: taken as they are meant, or refused with what to give."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import tilepipe as tp
from tilepipe.errors import TilepipeError, UsageError
from tilepipe.execution.batch.jobs_file import read_jobs
from tilepipe.planning.given import KINDS, checked
from tilepipe.planning.settings import Settings

VALUES = [
    "x", "", "1", b"x", [], {}, [None], [[1]], (1, 2), -1, 0, 3.5, 2**70, math.inf, math.nan, True, np.zeros((2, 2)),
    object(),
]  # fmt: skip
IMAGE = np.random.default_rng(0).integers(0, 255, (3, 100, 100), dtype=np.uint8)
CARD = tp.ModelCard(bands=3, classes=("a", "b"), stride=1, halo=0)


@pytest.fixture(scope="module")
def model() -> tp.Model:
    torch.manual_seed(0)
    return tp.Model.from_torch(nn.Conv2d(3, 2, 1), CARD)


@pytest.mark.parametrize("name", Settings.__annotations__)
def test_any_value_is_taken_or_refused_in_a_sentence(name: str, model: tp.Model) -> None:
    for value in VALUES:
        with suppress(TilepipeError):
            tp.plan(IMAGE, model, **{name: value})  # type: ignore[misc]


def test_none_is_as_good_as_not_given(model: tp.Model) -> None:
    plain = tp.plan(IMAGE, model)
    assert tp.plan(IMAGE, model, **dict.fromkeys(Settings.__annotations__)) == plain  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "given", "meant"),
    [
        ("tile", np.int64(64), 64),
        ("tolerance", np.float32(0.5), 0.5),
        ("window", np.array([0, 0, 50, 60]), (0, 0, 50, 60)),
        ("window", [0, 0, 50, 60], (0, 0, 50, 60)),
        ("bounds", (np.float64(0), 1, 2, 3.5), (0.0, 1, 2, 3.5)),
    ],
)
def test_numbers_of_numpy_are_numbers(name: str, given: Any, meant: Any) -> None:
    found = checked({name: given})[name]  # type: ignore[misc, literal-required]
    assert found == meant
    assert type(found) is type(meant)


@pytest.mark.parametrize("name", KINDS)
def test_a_jobs_file_with_a_value_of_another_kind_is_refused_before_the_first_image(name: str, tmp_path: Path) -> None:
    jobs = tmp_path / "jobs.yaml"
    jobs.write_text(f"images: a.tif\nmodel: forest\nsettings: {{{name}: {{a: 1}}}}\n")
    with pytest.raises(UsageError, match=rf"jobs.yaml: {name} .* cannot be used; give "):
        read_jobs(jobs)
    jobs.write_text(f"images: a.tif\nmodel: forest\nsettings: {{{name}: null}}\n")
    assert read_jobs(jobs).settings == {}
