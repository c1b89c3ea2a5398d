"""The page in Chromium: what is seen, what the keys and the pointer do, and that nothing leaves this machine."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from helpers.chromium import Page, chromium, needs_chromium
from helpers.small_runs import CODES, IMAGE, StopError, segment, stop_at, work
from helpers.viewers import enter, settle
from PIL import Image
from pyproj import Transformer
from rasterio.crs import CRS

from tilepipe.products.cog import write_cog
from tilepipe.products.label_map import Legend, Measure, label_map_of
from tilepipe.sources.base import Georeference
from tilepipe.view.viewer import view

pytestmark = [pytest.mark.long, needs_chromium]

PLACE = Georeference(CRS.from_epsg(32633).to_wkt(), (2.0, 0.0, 500_000.0, 0.0, -2.0, 5_000_000.0))
COLOURS = ((217, 217, 217), (255, 0, 0), (0, 0, 255))
LEGEND = Legend("things", ("background", "red <b>", "blue"), COLOURS, 255)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image of one grey, labels in quarters, truth in halves, a margin with one bad square."""
    folder = tmp_path_factory.mktemp("shown")
    affine = rasterio.Affine(*PLACE.transform or ())
    with rasterio.open(
        folder / "image.tif", "w", "GTiff", 1600, 1200, 3, dtype="uint8", crs=CRS.from_epsg(32633), transform=affine
    ) as file:
        file.write(np.full((3, 1200, 1600), 100, np.uint8))
    labels = np.zeros((1200, 1600), np.uint8)
    labels[:600, 800:], labels[600:, :800], labels[1100:, 1500:] = 1, 2, 255
    write_cog(label_map_of(labels, LEGEND, georeference=PLACE), folder / "labels.tif")
    truth = np.zeros((1200, 1600), np.uint8)
    truth[:, 800:] = 2
    write_cog(label_map_of(truth, LEGEND, georeference=PLACE), folder / "truth.tif")
    margin = np.full((1200, 1600), 254, np.uint8)
    margin[320:384, 960:1024] = 10
    meaning = Legend("margin", (), (), 255, Measure(1 / 254, "largest probability minus the second largest"))
    write_cog(label_map_of(margin, meaning, georeference=PLACE), folder / "labels.margin.tif")
    return folder


@contextmanager
def opened(*what: Any, size: tuple[int, int] = (1280, 800), **options: Any) -> Iterator[Page]:
    with view(*what, browser=False, **options) as viewer, chromium(*size) as page:
        enter(page, viewer.url)
        yield page
        address = viewer.url.split("/open")[0]
        assert page.problems == []
        assert all(url.startswith(address) for url in page.requests)


def colour(page: Page, y: int, x: int) -> tuple[int, ...]:
    """Return the colour on the screen of an image pixel."""
    at = page.evaluate(f"(() => {{ const p = viewer.map.latLngToContainerPoint([{y}, {x}]); return [p.x, p.y]; }})()")
    clip = {"x": int(at[0]) - 1, "y": int(at[1]) - 1, "width": 3, "height": 3, "scale": 1}
    picture = page.send("Page.captureScreenshot", format="png", clip=clip)["data"]
    found = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB").getpixel((1, 1))
    assert isinstance(found, tuple)
    return found


def over(below: int, label: tuple[int, int, int], opacity: float) -> tuple[int, ...]:
    return tuple(round(below + (channel - below) * opacity) for channel in label)


def near(found: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return max(abs(a - b) for a, b in zip(found, wanted, strict=True)) <= 2


def press(page: Page, key: str) -> None:
    page.send("Input.dispatchKeyEvent", type="keyDown", key=key, text=key if len(key) == 1 else "")
    page.send("Input.dispatchKeyEvent", type="keyUp", key=key)
    settle(page)


GREY, RED, BLUE = (100, 100, 100), over(100, (255, 0, 0), 0.45), over(100, (0, 0, 255), 0.45)


def test_labels_lie_over_the_image_and_can_be_hidden(folder: Path) -> None:
    with opened(folder / "image.tif", folder / "labels.tif") as page:
        quarters = {(300, 400): GREY, (300, 1200): RED, (900, 400): BLUE, (1150, 1550): GREY}
        assert all(near(colour(page, *place), wanted) for place, wanted in quarters.items())
        names = page.evaluate("[...document.querySelectorAll('#legend .name')].map((one) => one.textContent)")
        assert names == ["background", "red <b>", "blue"]
        page.click("#legend li:nth-child(2) input")
        settle(page)
        assert near(colour(page, 300, 1200), GREY)
        assert near(colour(page, 900, 400), BLUE)
        page.click("#all")
        settle(page)
        assert near(colour(page, 300, 400), over(100, COLOURS[0], 0.45))
        press(page, " ")
        assert near(colour(page, 300, 1200), GREY)
        press(page, " ")
        assert near(colour(page, 300, 1200), RED)
        page.evaluate("(() => { const o = document.getElementById('opacity'); o.value = 100; o.oninput(); })()")
        settle(page)
        assert near(colour(page, 300, 1200), COLOURS[1])
        press(page, "i")
        press(page, "l")
        assert near(colour(page, 300, 1200), (20, 21, 23))  # the ground of the page


def test_outlines_are_one_pixel_and_do_not_end_at_tiles(folder: Path) -> None:
    with opened(folder / "image.tif", folder / "labels.tif") as page:
        page.evaluate("void viewer.map.setView([600, 1024], 0, {animate: false})")
        settle(page)
        assert near(colour(page, 599, 1100), COLOURS[1])
        assert near(colour(page, 598, 1100), RED)
        for x in range(1020, 1030):  # tiles meet at column 1024
            assert near(colour(page, 599, x), COLOURS[1])
            assert near(colour(page, 500, x), RED)
        press(page, "o")
        assert near(colour(page, 599, 1100), RED)


def test_position_and_class_under_the_pointer(folder: Path) -> None:
    with opened(folder / "image.tif", folder / "labels.tif", truth=folder / "truth.tif") as page:
        page.evaluate("void viewer.map.setView([300, 1200], 0, {animate: false})")
        settle(page)
        x, y = page.centre("#map")
        page.mouse("mouseMoved", x + 10, y + 20)
        page.wait_for("document.getElementById('class').textContent.includes('margin')")
        at = page.evaluate("document.getElementById('pixel').textContent")
        column, row = (int(word) for word in at.replace("x ", "").replace("y ", "").split())
        assert abs(column - 1210) <= 1
        assert abs(row - 320) <= 1
        wanted = f"{500_000 + 2 * (column + 0.5):.2f}, {5_000_000 - 2 * (row + 0.5):.2f}"
        assert page.evaluate("document.getElementById('position').textContent") == wanted
        lon, lat = Transformer.from_crs(32633, 4326, always_xy=True).transform(*map(float, wanted.split(",")))
        assert page.evaluate("document.getElementById('lonlat').textContent") == f"{lat:.6f}° N  {lon:.6f}° E"
        assert page.evaluate("document.getElementById('values').textContent") == "100 100 100"
        assert page.evaluate("document.getElementById('class').textContent") == "red <b>truth: bluewrongmargin 1.00"


def test_the_least_certain_place_is_jumped_to_and_coloured(folder: Path) -> None:
    with opened(folder / "image.tif", folder / "labels.tif") as page:
        press(page, "n")
        page.wait_for("document.getElementById('place').textContent.startsWith('1 of ')")
        settle(page)
        centre = page.evaluate("[viewer.map.getCenter().lat, viewer.map.getCenter().lng, viewer.map.getZoom()]")
        assert centre == pytest.approx([352, 992, 0], abs=1)
        before = colour(page, 340, 980)
        press(page, "u")
        assert colour(page, 340, 980) != before
        assert near(colour(page, 300, 900), RED)


def test_truth_lies_right_of_a_line_that_can_be_moved(folder: Path) -> None:
    with opened(folder / "image.tif", folder / "labels.tif", truth=folder / "truth.tif") as page:
        assert near(colour(page, 300, 1400), RED)
        press(page, "t")
        assert near(colour(page, 300, 1400), BLUE)
        assert near(colour(page, 900, 300), BLUE)
        x, y = page.centre("#divider")
        page.drag((x, y + 100), (20, y + 100))
        settle(page)
        assert near(colour(page, 900, 300), GREY)


def test_errors_are_red_and_what_is_right_is_green(folder: Path) -> None:
    with opened(folder / "image.tif", folder / "labels.tif", truth=folder / "truth.tif") as page:
        press(page, "l")
        assert near(colour(page, 300, 1200), GREY)
        press(page, "e")
        wrong, right = over(100, (255, 30, 30), 0.85), over(100, (31, 191, 90), 0.3)
        places = {(300, 400): right, (300, 1200): wrong, (900, 400): wrong, (900, 1200): wrong, (1150, 1550): GREY}
        assert all(near(colour(page, *place), wanted) for place, wanted in places.items())
        press(page, "e")
        assert near(colour(page, 300, 1200), GREY)
    with opened(folder / "image.tif", folder / "labels.tif") as page:
        assert page.evaluate("document.getElementById('show-errors').parentElement.hidden")


def test_keys_move_and_zoom(folder: Path) -> None:
    with opened(folder / "image.tif") as page:
        whole = page.evaluate("viewer.map.getZoom()")
        press(page, "1")
        page.wait_for("viewer.map.getZoom() === 0 && !viewer.map._animatingZoom")
        press(page, "+")
        page.wait_for("viewer.map.getZoom() === 1 && !viewer.map._animatingZoom")
        before = page.evaluate("viewer.map.getCenter().lng")
        press(page, "ArrowRight")
        page.wait_for(f"viewer.map.getCenter().lng > {before} + 70")
        press(page, "0")
        page.wait_for(f"viewer.map.getZoom() === {whole}")


LAYERS = "[viewer.layers.image, viewer.layers.labels]"
READY = f"{LAYERS}.every((layer) => Object.values(layer._tiles).every((tile) => tile.loaded))"
ALL = f"{LAYERS}.every((layer) => layer.canvases().length === 12) && {READY}"
"""All of the image is loaded, which has 4 x 3 tiles and lies within two tiles of the view."""


def test_the_next_view_is_loaded_while_this_one_is_looked_at(folder: Path) -> None:
    with opened(folder / "image.tif", folder / "labels.tif", size=(640, 480)) as page:
        page.evaluate("void viewer.map.setView([300, 300], 0, {animate: false})")
        page.wait_for(ALL)
        hidden = page.evaluate("viewer.layers.uncertainty.canvases().length")
        assert hidden == 4, "what is not shown is not loaded ahead"
        page.evaluate("void viewer.map.panBy([620, 430], {animate: false})")
        assert page.evaluate(READY)
        settle(page)
        assert near(colour(page, 900, 1000), GREY)
        assert near(colour(page, 900, 780), BLUE)


def test_a_move_drops_what_nobody_has_asked_to_see_yet(folder: Path) -> None:
    with opened(folder / "image.tif", folder / "labels.tif", size=(640, 480)) as page:
        page.evaluate("void viewer.map.setView([300, 300], 0, {animate: false})")
        settle(page)
        # A tile that never comes stands for a slow one.
        page.evaluate("void (viewer.layers.image.load = () => new Promise(() => {}))")
        page.evaluate("void viewer.layers.image.loadAhead(Object.assign(L.point(2, 1), {z: 0}))")
        assert not page.evaluate(READY)
        page.evaluate("delete viewer.layers.image.load")
        page.evaluate("void viewer.map.panBy([1, 0], {animate: false})")
        page.wait_for(ALL)


def test_finished_blocks_of_a_run_appear_while_the_page_is_open(tmp_path: Path) -> None:
    output = tmp_path / "labels.tif"
    with pytest.raises(StopError):
        segment(output, listener=stop_at("predict", 3))
    with opened(IMAGE, work(output)) as page:
        page.wait_for("document.getElementById('said').textContent.startsWith('the run has stopped')")
        seen = "viewer.layers.labels.canvases().flatMap((c) => [...(c.content ?? [])]).filter((v) => v !== 255).length"
        before = page.evaluate(seen)
        assert 0 < before < CODES.size
        segment(output)
        page.wait_for(f"({seen}) === {CODES.size}", 30)
        page.wait_for("document.getElementById('said').textContent === ''")


def test_a_telephone_sees_the_image_and_can_open_the_panel(folder: Path, tmp_path: Path) -> None:
    with opened(folder / "image.tif", folder / "labels.tif", size=(390, 800)) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.evaluate("getComputedStyle(document.getElementById('panel')).display") == "none"
        page.click("#fold")
        settle(page)
        box = "JSON.stringify(document.getElementById('%s').getBoundingClientRect())"
        shown, panel = (json.loads(page.evaluate(box % name)) for name in ("map", "panel"))
        assert (panel["left"], panel["right"]) == (shown["left"], shown["right"]) == (0, 390)
        assert panel["top"] == pytest.approx(shown["bottom"], abs=1)
        assert shown["bottom"] >= 400, "the image stays in sight"
        assert page.evaluate("viewer.map.getSize().y") == pytest.approx(shown["height"], abs=1)
        assert near(colour(page, 300, 1200), RED)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        targets = page.evaluate("[...document.querySelectorAll('label')].map((one) => one.offsetHeight)")
        assert min(height for height in targets if height) >= 30
        page.click("#fold")
        settle(page)
        assert page.evaluate("viewer.map.getSize().y") > 700


def test_a_page_whose_viewer_has_ended_says_so(folder: Path) -> None:
    with chromium() as page:
        with view(folder / "image.tif", browser=False) as viewer:
            enter(page, viewer.url)
        x, y = page.centre("#map")
        page.mouse("mouseMoved", x, y)
        page.wait_for("document.getElementById('said').textContent.startsWith('the viewer has ended')")
