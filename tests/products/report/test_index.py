"""The page of a batch: all images, totals that add up, and nothing that it loads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from helpers.pages import check_self_contained
from hypothesis import given
from hypothesis import strategies as st

from tilepipe.products.label_map import Legend
from tilepipe.products.numbers import ClassNumbers, Numbers
from tilepipe.products.report.index import MARK, index_of, total

LEGEND = Legend("town", ("background", "roof"), ((199, 210, 190), (200, 100, 0)), 255)
NASTY = "<script>alert(1)</script>\"'{{ 3 * 3 }}"


def numbers(roof: int, ground: int = 60, unit: str = "m2", nodata: int = 5) -> Numbers:
    labelled = roof + ground
    rows = (
        ClassNumbers(0, "background", ground, ground / labelled, ground * 0.5, None, None),
        ClassNumbers(1, "roof", roof, roof / labelled, roof * 0.5, roof // 10, 2.0, (1, 2)),
    )
    return Numbers(rows, nodata, unit)  # type: ignore[arg-type]


def image(name: str, status: str = "done", found: Numbers | None = None, **fields: Any) -> dict[str, Any]:
    known = {
        "image": f"/data/{name}",
        "name": name,
        "status": status,
        "message": "",
        "seconds": 2.0,
        "processor_seconds": 0.0,
    }
    return {**known, "numbers": found.to_dict() if found else {}, "seams": "", "labels": "", "page": "", **fields}


def page(*images: dict[str, Any], thumbnails: dict[str, str] | None = None, legend: Legend | None = LEGEND) -> Any:
    facts = {"jobs": "night.yaml", "model": "buildings", "command": "tilepipe batch run night.yaml", "images": images}
    text = index_of(facts, thumbnails or {}, legend)
    assert MARK in text
    return check_self_contained(text)


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=6))
def test_totals_are_sums(roofs: list[int]) -> None:
    found = total([numbers(roof) for roof in roofs])
    assert found is not None
    ground, roof = found.classes
    assert (ground.pixels, roof.pixels) == (60 * len(roofs), sum(roofs))
    assert roof.area == sum(roofs) * 0.5
    assert roof.objects == sum(count // 10 for count in roofs)
    assert roof.density == pytest.approx(roof.objects / ((sum(roofs) + 60 * len(roofs)) * 0.5e-6))
    assert ground.objects is ground.density is None
    assert (ground.share + roof.share, found.nodata) == (pytest.approx(1), 5 * len(roofs))


def test_images_of_different_kinds_have_no_totals() -> None:
    assert total([]) is None
    assert total([numbers(10), numbers(10, unit="mm2")]) is None
    found = page(image("a.tif", found=numbers(10)), image("b.svs", found=numbers(10, unit="mm2")))
    assert "All images together" not in found.text


def test_what_failed_comes_first_with_its_reason() -> None:
    found = page(
        image("a.tif", found=numbers(40), labels="a b.tif", page="a b.html"),
        image("b.tif", "failed", message="InputError: no TIFF"),
        image("c.tif", "partial", numbers(0), message="3 tiles have no labels"),
        image("d.tif", "waiting", seconds=0.0),
        thumbnails={"a.tif": "data:image/jpeg;base64,AAAA"},
    )
    assert "4 images 1 done 1 partial 1 failed 1 waiting" in found.text
    assert "What failed b.tif InputError: no TIFF c.tif 3 tiles have no labels All images together" in found.text
    assert "total time 6 s" in found.text
    assert "Seams" not in found.text
    assert {one["href"] for one in found.every("a")} == {"a%20b.html"}
    assert [one["src"] for one in found.every("img")] == ["data:image/jpeg;base64,AAAA"]


def test_sentences_about_seams_are_counted() -> None:
    found = page(*(image(name, found=numbers(3), seams=said) for name, said in zip("abc", "xxy", strict=True)))
    assert "Seams x 2 images y 1 image" in found.text
    assert "Seams x Time" in page(image("a", found=numbers(3), seams="x")).text


def test_times_are_those_of_the_images_that_have_them() -> None:
    """The image that failed took time and has no area; one of two images was not alone in its process."""
    two = [image(name, found=numbers(1_000_000, 1_000_000), seconds=30.0) for name in "ab"]
    two[0]["processor_seconds"] = 50.0
    text = page(*two, image("c", "failed", seconds=90.0)).text
    assert "total time 2 min time per image 50 s on average time per km² 30 s" in text
    assert "processor time 50 s of all cores, known of 1 of 3 images" in text
    assert "processor time per image 50 s on average, 50 s per km²" in text
    two[1]["processor_seconds"] = 70.0
    assert "processor time 2 min of all cores processor time per image 60 s" in page(*two).text


def test_times_of_slides_are_by_tissue() -> None:
    tissue = replace(numbers(1000, unit="mm2"), tissue=200.0)
    text = page(image("a", found=tissue, seconds=30.0, processor_seconds=40.0)).text
    assert "time per cm² of tissue 15 s" in text
    assert "on average, 20 s per cm² of tissue" in text


def test_text_of_others_stays_text() -> None:
    legend = Legend(NASTY, ("background", NASTY), LEGEND.palette, 255)
    one = image(NASTY, "failed", numbers(10), message=NASTY, labels=NASTY)
    found = page(one, thumbnails={NASTY: "data:image/jpeg;base64,AAAA"}, legend=legend)
    assert len(found.every("script")) == 1
    assert found.text.count(NASTY) >= 3


def test_a_batch_without_images_or_labels() -> None:
    assert "no image that is there" in page(legend=None).text
    assert "1 image 1 failed" in page(image("a.tif", "failed"), legend=None).text
