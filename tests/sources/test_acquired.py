"""When an image was taken: from a STAC item beside it, from its file, or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from tilepipe.sources.acquired import acquired_of, slide_time
from tilepipe.sources.array import ArraySource
from tilepipe.sources.bands import Picked, with_picked
from tilepipe.sources.open import open_source
from tilepipe.testing import write_geotiff

SAMPLE = Path(__file__).parents[2] / "pipelines/sample/CMU-1-Small-Region.svs"


def raster(folder: Path) -> Path:
    return write_geotiff(folder / "in.tif", np.zeros((1, 32, 32), np.uint8))


def beside(image: Path, name: str = "in.tif", **properties: Any) -> None:
    item = {"stac_version": "1.0.0", "properties": properties, "assets": {"data": {"href": f"https://x.y/{name}?k=1"}}}
    image.with_suffix(".json").write_text(json.dumps(item))


def test_a_raster_that_says_nothing_has_no_time(tmp_path: Path) -> None:
    image = raster(tmp_path)
    with rasterio.open(image, "r+") as file:
        file.update_tags(TIFFTAG_DATETIME="2019:03:04 05:06:07")  # when the file was made
    assert acquired_of(open_source(image)) == acquired_of(ArraySource(np.zeros((8, 8), np.uint8))) == ""


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2013-04-01 10:01:02", "2013-04-01T10:01:02Z"),
        ("2013-04-01T10:01:02.5+02:00", "2013-04-01T08:01:02Z"),
        ("April", ""),
    ],
)
def test_the_metadata_of_an_image_says_it(text: str, time: str, tmp_path: Path) -> None:
    image = raster(tmp_path)
    with rasterio.open(image, "r+") as file:
        file.update_tags(ns="IMAGERY", ACQUISITIONDATETIME=text)
    source = open_source(image)
    assert acquired_of(source) == acquired_of(with_picked(source, Picked((1,), 0))) == time


def test_an_item_beside_it_comes_first_if_it_names_the_file(tmp_path: Path) -> None:
    image = raster(tmp_path)
    with rasterio.open(image, "r+") as file:
        file.update_tags(ns="IMAGERY", ACQUISITIONDATETIME="2013-04-01 10:01:02")
    beside(image, "other.tif", datetime="2020-01-01T00:00:00Z")
    assert acquired_of(open_source(image)) == "2013-04-01T10:01:02Z"
    beside(image, datetime="2020-01-01T00:00:00+01:00")
    assert acquired_of(open_source(image)) == "2019-12-31T23:00:00Z"
    beside(image, datetime=None, start_datetime="2020-01-01T00:00:00Z", end_datetime="2020-02-01T00:00:00Z")
    assert acquired_of(open_source(image)) == "2020-01-01T00:00:00Z/2020-02-01T00:00:00Z"
    beyond = "0001-01-01T00:00:00+05:00"  # in UTC a year that the calendar has not
    for broken in ({"datetime": 5}, {"datetime": "soon"}, {"datetime": beyond}, {}):
        beside(image, **broken)
        assert acquired_of(open_source(image)) == "2013-04-01T10:01:02Z"


def test_the_sample_slide_says_it() -> None:
    assert acquired_of(open_source(SAMPLE)) == "2009-12-29T09:59:15Z"


@pytest.mark.parametrize(
    ("properties", "time"),
    [
        (
            {"aperio.Date": "12/29/2009", "aperio.Time": "23:59:15", "aperio.Time Zone": "GMT-05:30"},
            "2009-12-30T05:29:15Z",
        ),
        ({"dicom.AcquisitionDateTime": "20210102030405.123456+0130"}, "2021-01-02T01:34:05Z"),
        ({"philips.DICOM_ACQUISITION_DATETIME": "20210102030405.000000"}, "2021-01-02T03:04:05Z"),
        ({"leica.creation-date": "2010-03-18T10:24:25.22Z"}, "2010-03-18T10:24:25Z"),
        ({"dicom.AcquisitionDateTime": "2021"}, ""),
        ({"leica.creation-date": "9999-12-31T23:59:59-05:00"}, ""),
        ({"aperio.Date": "13/32/09", "aperio.Time": "1:2:3"}, ""),
        ({}, ""),
    ],
)  # fmt: skip
def test_slides_say_it_in_many_ways(properties: dict[str, str], time: str) -> None:
    assert slide_time(properties) == time
