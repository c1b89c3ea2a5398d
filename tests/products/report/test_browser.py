"""Reports in a real browser: they render at the width of a desk and of a telephone, load nothing, and can be used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.chromium import Page, chromium, needs_chromium
from PIL import Image

from tilepipe.products.label_map import LABELS, Legend, label_map_of
from tilepipe.products.material import Material
from tilepipe.products.report.index import index_of
from tilepipe.products.report.report import report_of
from tilepipe.sources.array import ArraySource
from tilepipe.sources.base import Resolution

pytestmark = [pytest.mark.long, needs_chromium]

LONG = "a_class_with_a_name_that_is_much_longer_than_any_line_of_a_telephone_could_ever_be_" * 3
FACTS = {
    "source": f"/data/{LONG}.tif",
    "model": "buildings",
    "plain": "Labels do not depend on tiling.",
    "seams": ["<script>alert(1)</script>"],
    "failed": ["rows 30 to 60, columns 90 to 170: the file ends"],
    "versions": {"tilepipe": "0.1.0", "weights": "ab" * 32},
    "tiles": 9,
    "blocks": 1,
    "elapsed_seconds": 48.1,
    "contents": {"a.tif": "labels"},
    "command": f"tilepipe segment /data/{LONG}.tif /data/out.tif -m buildings",
}
SMALL = """[...document.querySelectorAll("body *")].filter(e => e.children.length === 0 && e.textContent.trim()
  && e.getClientRects().length && parseFloat(getComputedStyle(e).fontSize) < 11).map(e => e.outerHTML.slice(0, 90))"""
FAINT = """(() => {
  const part = c => (c /= 255) <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
  const light = text => {
    const [r, g, b] = text.match(/[\\d.]+/g).map(part);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const paper = light(getComputedStyle(document.body).backgroundColor);
  const contrast = ink => (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05);
  return [...document.querySelectorAll("h1, h2, p, td, th, dt, dd, li, a, .state, label")].filter(
    e => contrast(light(getComputedStyle(e).color)) < 4.5).map(e => e.outerHTML.slice(0, 90));
})()"""
"""Elements whose text has a contrast to the page below 4.5, which WCAG 2 asks for."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with chromium() as page:
        yield page


def material(classes: int = 3, image: bool = True) -> Material:
    rng = np.random.default_rng(0)
    values = np.kron(rng.integers(0, classes, (12, 20), np.uint8), np.ones((10, 10), np.uint8))
    values[:20, :40] = 255
    legend = Legend(
        "town", ("background", LONG, *(f"class {k}" for k in range(2, classes))),
        tuple((k * 53 % 256, 90, 200 - k % 200) for k in range(classes)), 255,
    )  # fmt: skip
    labels = label_map_of(values, legend, resolution=Resolution(0.5, 0.5, "m"))
    pixels = rng.integers(0, 255, (3, 120, 200), np.uint8)
    return replace(Material.of({LABELS: labels}, ArraySource(pixels) if image else None), facts=FACTS)


def index() -> str:
    numbers = material().numbers().to_dict()
    known = {
        "image": "x",
        "message": "InputError: no TIFF " + LONG,
        "seconds": 3.0,
        "processor_seconds": 3.0,
        "labels": "a.tif",
        "page": "",
        "seams": "",
    }
    images = [
        {**known, "name": f"{LONG}/{k}.tif", "status": ("done", "failed")[k % 2], "numbers": numbers} for k in range(5)
    ]
    facts = {"jobs": "night.yaml", "model": "buildings", "command": "tilepipe batch run x.yaml", "images": images}
    return index_of(facts, {}, material().maps[LABELS].legend)


PAGES = {
    "report": lambda: report_of(material()),
    "255 classes": lambda: report_of(material(255)),
    "labels alone": lambda: report_of(material(image=False)),
    "no run": lambda: report_of(replace(material(), facts={})),
    "index": index,
}


@pytest.mark.parametrize("kind", PAGES)
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True])
def test_pages_render_and_ask_for_nothing(kind: str, width: int, dark: bool, browser: Page, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(PAGES[kind](), encoding="utf-8")
    browser.resize(width, 900)
    browser.dark(dark)
    browser.problems.clear()
    browser.requests.clear()
    browser.goto(path.as_uri())
    browser.wait_for("!document.getElementById('tools') || !document.getElementById('tools').hidden")
    assert browser.evaluate("document.documentElement.scrollWidth") == width, "nothing is wider than the screen"
    assert browser.evaluate("[...document.images].every(i => i.complete && i.naturalWidth)")
    assert browser.evaluate(SMALL) == []
    assert browser.evaluate(FAINT) == []
    browser.screenshot(tmp_path / "page.png", whole=True)
    with Image.open(tmp_path / "page.png") as seen:
        assert seen.width == width
        assert (seen.convert("L").getpixel((2, 2)) < 60) == dark  # type: ignore[operator]
    assert browser.problems == []
    assert browser.requests == [path.as_uri()]


def test_the_picture_can_be_compared_zoomed_and_moved(browser: Page, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(report_of(material()), encoding="utf-8")
    browser.resize(1280, 900)
    browser.dark(False)
    browser.problems.clear()
    browser.goto(path.as_uri())
    browser.wait_for("!document.getElementById('tools').hidden")

    def clip() -> float:
        return float(browser.evaluate("parseFloat(document.getElementById('labels').style.clipPath.split(' ').at(-1))"))

    def zoom() -> float:
        return float(browser.evaluate("new DOMMatrix(document.getElementById('sheet').style.transform).a"))

    def left() -> float:
        return float(browser.evaluate("new DOMMatrix(document.getElementById('sheet').style.transform).e"))

    browser.wait_for("document.getElementById('labels').style.clipPath")  # the first picture is drawn a moment later
    x, y = browser.centre("#divider")
    half = clip()
    browser.drag((x, y), (x - 100, y))
    assert clip() == pytest.approx(half - 100, abs=2)
    browser.press("ArrowRight")
    assert half - 100 < clip() < half
    at = browser.evaluate("document.getElementById('scale').querySelector('text').textContent")
    browser.wheel((x + 60, y), -300)
    assert zoom() == 1, "the wheel alone scrolls the page"
    x, y = browser.centre("#stage")
    browser.wheel((x + 60, y), -300, ctrl=True)
    browser.wait_for("new DOMMatrix(document.getElementById('sheet').style.transform).a > 1.5")
    assert browser.evaluate("document.getElementById('scale').querySelector('text').textContent") != at
    before = left()
    browser.drag((x + 200, y), (x + 150, y))
    assert left() == pytest.approx(before - 50, abs=2)
    browser.click("#in")
    grown = zoom()
    browser.click("#out")
    assert zoom() < grown
    browser.click("#fit")
    assert (zoom(), left()) == (1, 0)
    low, _ = browser.centre("#opacity")
    browser.drag((low, browser.centre("#opacity")[1]), (low + 60, browser.centre("#opacity")[1]))
    assert float(browser.evaluate("getComputedStyle(document.getElementById('fill')).opacity")) > 0.7
    assert browser.problems == []
