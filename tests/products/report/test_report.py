"""The report as one page: what it shows, that it loads nothing, and that text of others stays text."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.pages import Seen, check_self_contained, picture
from numpy.typing import NDArray
from PIL import Image

from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.products.label_map import LABELS, LabelMap, Legend, label_map_of
from tilepipe.products.material import Material
from tilepipe.products.report.report import parse_report, report_of, write_report
from tilepipe.products.report.thumbnail import thumbnail
from tilepipe.sources.array import ArraySource
from tilepipe.sources.base import Resolution

NASTY = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "{{ 7 * 7 }}",
    "</style><b>",
    "a\x1b[31m\u202eb",
    "&lt;",
)
TOWN = Legend("town", ("background", "roof", "road"), ((199, 210, 190), (200, 100, 0), (10, 20, 30)), 255)
LABELS_OF_TOWN = np.kron(np.array([[0, 1, 1], [0, 2, 255]], np.uint8), np.ones((40, 50), np.uint8))
IMAGE = ArraySource(np.full((3, 80, 150), 90, np.uint8))


def material(
    labels: NDArray[Any] = LABELS_OF_TOWN, legend: Legend = TOWN, image: Any = IMAGE, **fields: Any
) -> Material:
    facts = fields.pop("facts", {})
    return replace(Material.of({LABELS: label_map_of(labels, legend, **fields)}, image), facts=facts)


def page(made: Material) -> Seen:
    return check_self_contained(report_of(made))


def test_classes_have_their_share_area_and_objects() -> None:
    found = page(material(resolution=Resolution(2, 2, "m")))
    assert "roof 40.0 % 1.6 ha 1" in found.text
    assert "background 40.0 % 1.6 ha" in found.text
    assert "16.7 % of the pixels have no label" in found.text
    assert "1 object, 1.6 ha on average" in found.text


def test_pictures_are_the_image_and_its_labels() -> None:
    found = page(material())
    image, fill, edges = (np.asarray(Image.open(BytesIO(picture(one["src"])))) for one in found.every("img"))
    assert image.shape[:2] == fill.shape[:2] == edges.shape[:2] == (480, 900)
    assert abs(image.astype(int) - 90).max() <= 2
    codes = np.kron(LABELS_OF_TOWN, np.ones((6, 6), np.uint8))
    for value in (1, 2):
        assert (fill[codes == value] == (*TOWN.palette[value], 255)).all()
    assert (fill[(codes == 0) | (codes == 255), 3] == 0).all(), "background and nodata hide nothing"
    outlined = edges[..., 3] > 0
    assert 0 < outlined.sum() < (fill[..., 3] > 0).sum() / 10
    assert (edges[outlined] == fill[outlined]).all()


def test_without_an_image_the_labels_stand_alone() -> None:
    found = page(material(image=None))
    (alone,) = found.every("img")
    fill = np.asarray(Image.open(BytesIO(picture(alone["src"]))))
    assert (fill[0, 0] == (*TOWN.palette[0], 255)).all(), "the background is no longer clear"
    assert not [one for _, one in found.elements if one.get("id") == "divider"]


def test_text_of_others_stays_text() -> None:
    legend = Legend(NASTY[1], ("background", *NASTY), tuple((k * 30, 90, 90) for k in range(7)), 255)
    labels = np.arange(7, dtype=np.uint8).repeat(30).reshape(1, -1).repeat(20, 0)
    facts = {
        "source": f"/data/{NASTY[0]}.tif",
        "failed": [f"rows 0 to 5, columns 0 to 9: {name}" for name in NASTY],
        "plain": NASTY[0],
        "seams": list(NASTY),
        "contents": {f"{NASTY[1]} #?.tif": "labels", "a.margin.tif": NASTY[0]},
        "command": f"tilepipe segment '{NASTY[0]}'",
        "settings": {"mask": NASTY[0], "bands": [1, NASTY[1]]},
        "versions": {"tilepipe": "1", NASTY[0]: NASTY[1]},
        "plan": {"fit_table": [{"name": NASTY[0], "state": "note", "text": NASTY[1]}], "shape": [20, 210],
                 "bands": 3, "dtype": NASTY[0], "region": [0, 0, 20, 210], "model": NASTY[0], "predicted": [1, 2],
                 "tiling": {"tile": 1, "overlap": 0, "window": NASTY[0]},
                 "compute": {"device": NASTY[0], "precision": "", "batch": 1, "workers": 2}},
    }  # fmt: skip
    found = page(material(labels, legend, None, facts=facts))
    assert len(found.every("script")) == 1
    assert "b" not in {tag for tag, _ in found.elements}
    for name in NASTY:
        assert " ".join(name.replace("\x1b", "\\u001b").replace("\u202e", "\\u202e").split()) in found.text
    links = [one["href"] for one in found.every("a")]
    assert links == ["%22%3E%3Cimg%20src%3Dx%20onerror%3Dalert%282%29%3E%20%23%3F.tif", "a.margin.tif"]


def test_many_classes_and_no_labels() -> None:
    names = tuple(f"class {k} of a legend with long names {'x' * 40}" for k in range(255))
    legend = Legend("many", names, tuple((k, 255 - k, 90) for k in range(255)), 255)
    values = np.arange(255, dtype=np.uint8).reshape(15, 17)
    found = page(material(values, legend, None))
    assert len(found.every("tr")) == 1 + 255
    empty = page(material(np.full((30, 40), 255, np.uint8)))
    assert "No pixel has a label." in empty.text
    assert "100.0 % of the pixels have no label" in empty.text
    assert "Without pixels: background, roof, road." in empty.text


@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (700, 2), (3, 5000)])
def test_maps_of_any_shape(shape: tuple[int, int], tmp_path: Path) -> None:
    made = material(np.ones(shape, np.uint8), image=ArraySource(np.zeros((3, *shape), np.uint8)))
    write_report(made, tmp_path / "page.html")
    parse_report(tmp_path / "page.html")
    check_self_contained((tmp_path / "page.html").read_text())


def test_a_page_that_was_cut_is_noticed(tmp_path: Path) -> None:
    write_report(material(), tmp_path / "page.html")
    whole = (tmp_path / "page.html").read_bytes()
    for part in (b"", whole[:500], whole[:-3], b"<p>" + whole):
        (tmp_path / "cut.html").write_bytes(part)
        with pytest.raises(ValueError, match="no whole report"):
            parse_report(tmp_path / "cut.html")


def test_labels_are_read_once() -> None:
    read: list[Box] = []
    labels = label_map_of(np.ones((700, 2300), np.uint8), TOWN)

    def counted(box: Box) -> NDArray[Any]:
        read.append(box)
        return labels.read(box)

    report_of(Material.of({LABELS: LabelMap(**{**vars(labels), "read": counted})}))
    assert sum(box.area for box in read) == 700 * 2300


def test_places_that_failed_are_marked_and_told() -> None:
    facts = {"failed": ["rows 20 to 60, columns 100 to 400: the file ends", "a patch without a place"], "plan": {}}
    found = page(material(facts=facts))
    first = [one.get("class") for _, one in found.elements].index("missing")
    marks = [one for tag, one in found.elements[first + 1 :] if tag == "rect"]
    assert [marks[0][name] for name in ("x", "y", "width", "height")] == ["600.0", "120.0", "300.0", "240.0"]
    assert "2 tiles without labels" in found.text
    assert "a patch without a place" in found.text


def test_an_image_that_cannot_be_read_costs_only_its_picture() -> None:
    class Torn(ArraySource):
        def read(self, box: Box) -> NDArray[Any]:
            raise InputError("scene.tif <b> cannot be read in rows 0 to 9")

    torn = Torn(np.zeros((3, 80, 150), np.uint8))
    found = page(material(image=torn))
    assert "The image is not shown: scene.tif <b> cannot be read" in found.text
    (alone,) = found.every("img")
    labels = label_map_of(LABELS_OF_TOWN, TOWN)
    assert thumbnail(labels, torn) == thumbnail(labels, None) != thumbnail(labels, IMAGE)
    assert (np.asarray(Image.open(BytesIO(picture(alone["src"]))))[0, 0] == (*TOWN.palette[0], 255)).all()


def test_a_report_without_a_known_run_says_so() -> None:
    text = page(material()).text
    assert "The record of the run was not found" in text
    assert "complete" not in text
