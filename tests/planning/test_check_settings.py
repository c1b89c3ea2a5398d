"""Settings of any kind, from Python and from a jobs file: taken as they are meant, or refused with what to give."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import tilepipe as tp
from tilepipe.errors import TilepipeError, UsageError
from tilepipe.execution.batch.jobs_file import read_jobs
from tilepipe.execution.export import export
from tilepipe.planning.check_settings import KINDS
from tilepipe.planning.settings import Request, Settings
from tilepipe.products.vector_options import VectorOptions

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


def test_a_request_has_every_setting() -> None:
    names = {"of" if field.name == "products" else field.name for field in fields(Request)} - {"given", "polygons"}
    names |= set(VectorOptions.names())
    assert names == set(Settings.__annotations__) == set(KINDS)
    assert Request.of({}) == Request()


@pytest.mark.parametrize(
    ("name", "value", "give"),
    [
        ("overwrite", "no", "true or false"),
        ("tile", 64.5, "auto or a whole number of at least 1"),
        ("workers", -1, "a whole number of at least 0"),
        ("tolerance", 1, "a number from 0 on that is below 1"),
        ("statistics", "some", "auto, field, whole or tile"),
        ("on_tile_error", "stop", "nodata or fail"),
        ("pixel_size", math.inf, "a number above 0"),
        ("resolution", "fine", "full, model or a pixel size above 0"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused_with_what_to_give(name: str, value: Any, give: str) -> None:
    with pytest.raises(UsageError, match=f"^`{name}` {value!r} cannot be used; give {give}"):
        Request.of({name: value})


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
    request = Request.of({name: given})
    for found in (getattr(request, name), request.given[name]):
        assert found == meant
        assert type(found) is type(meant)


@pytest.mark.parametrize("name", KINDS)
def test_a_jobs_file_with_a_value_of_another_kind_is_refused_before_the_first_image(name: str, tmp_path: Path) -> None:
    jobs = tmp_path / "jobs.yaml"
    value = "[1, 2, a]" if name == "pixel_size" else "{a: 1}"  # pixel sizes may be a table by image
    jobs.write_text(f"images: a.tif\nmodel: forest\nsettings: {{{name}: {value}}}\n")
    with pytest.raises(UsageError, match=rf"jobs.yaml: `{name}` .* cannot be used; give "):
        read_jobs(jobs)
    jobs.write_text(f"images: a.tif\nmodel: forest\nsettings: {{{name}: null}}\n")
    assert read_jobs(jobs).settings == {}


def test_products_in_one_text_are_those_between_its_commas(model: tp.Model, tmp_path: Path) -> None:
    assert Request.of({"of": "cog, geojson"}).products == ("cog", "geojson")
    made = tp.segment(IMAGE, model, tmp_path / "a", of="cog,geojson")
    assert [path.name for path in made.paths] == ["a.tif", "a.geojson"]
    assert [path.name for path in export(tmp_path / "a.tif", tmp_path / "b", of="cog,geojson")] == [
        "b.tif",
        "b.geojson",
    ]
    jobs = tmp_path / "jobs.yaml"
    jobs.write_text("images: a.tif\nmodel: forest\nof: cog, geojson\n")
    assert read_jobs(jobs).of == ("cog", "geojson")


def test_a_plan_refuses_a_product_that_is_not_known(model: tp.Model) -> None:
    with pytest.raises(UsageError, match="product 'tiff' is not known; use cog"):
        tp.plan(IMAGE, model, of=["cog", "tiff"])


@pytest.mark.parametrize("region", [(10, 20, 60, 90), [10, 20, 60, 90], np.array([10, 20, 60, 90])])
def test_four_whole_numbers_are_a_box(region: Any, model: tp.Model) -> None:
    assert (tp.predict(IMAGE, model, region) == tp.predict(IMAGE, model)[10:60, 20:90]).all()
    assert tp.plan(IMAGE, model, region=region).region == tp.Box(10, 20, 60, 90)


@pytest.mark.parametrize("region", [(0, 0, 64), (0, 0, 64, 6.5), (0.0, 0, 64, 64), "0abc", {1, 2, 3, 4}, 5])
def test_what_is_no_region_is_refused(region: Any, model: tp.Model) -> None:
    with pytest.raises(UsageError):
        tp.predict(IMAGE, model, region)
