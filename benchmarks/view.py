"""How long a view of a 40,000 px slide takes in the browser, after each step of a pan.

    python benchmarks/view.py --side 40000

makes a slide (a pyramid of JPEG tiles at 1, 1/4, 1/16 and 1/64 of its size, repeated from the sample slide) and labels
at half its resolution, shows both with `tilepipe view` in headless Chromium at 1280 x 800 px, moves by a whole view
again and again, and prints a Markdown table: the time from the move until every tile of the new view is drawn, for
moves after a look of one second and for moves one right after the other. The folder `--work` keeps slide and labels.
`--picture FILE` makes the picture of the documentation instead. Chromium must be installed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from itertools import product
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.enums import Resampling
from rasterio.windows import Window

import tilepipe as tp
from tilepipe.box import Box
from tilepipe.products.cog import write_cog
from tilepipe.products.label_map import LabelMap, Legend
from tilepipe.sources.resample import Resampled
from tilepipe.view.viewer import view

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from helpers.chromium import Page, chromium  # noqa: E402
from helpers.viewers import enter  # noqa: E402

SLIDE = ROOT / "pipelines" / "sample" / "CMU-1-Small-Region.svs"
TOWN = SLIDE.with_name("banepa_east_rgb.tif")
PATTERN, TILE, STEPS = 2048, 256, (4, 16, 64)
LEGEND = Legend("dark", ("background", "dark", "pale"), ((217, 217, 217), (213, 94, 0), (0, 158, 115)), 255)
MOVE = """(async () => {
  const {map, layers} = viewer, start = performance.now();
  map.panBy([%d, %d], {animate: false});
  const loading = Object.values(layers).filter((layer) => layer.isLoading());
  await Promise.all(loading.map((layer) => new Promise((done) => layer.once("load", done))));
  return performance.now() - start;
})()"""
ZOOMS = (0, -2, -4)
LOOK = 1.0
"""Time for which a view is looked at before the next move [s]."""
PANS = ((900, 0), (900, 0), (0, 700), (-900, 0), (-900, 0), (0, 700), (900, 0), (900, 700))


def pattern(step: int) -> NDArray[np.uint8]:
    """Return the pattern that the slide repeats, at 1/step of its size, (3, height, width)."""
    whole = Resampled(tp.open_source(SLIDE), 2967 // step, 2220 // step)
    return np.asarray(whole.read(Box(0, 0, PATTERN // step, PATTERN // step)), np.uint8)


def write_slide(path: Path, side: int) -> None:
    """Write a slide of `side` x `side` pixels."""
    colours = pattern(1)
    how = {"tiled": True, "blockxsize": TILE, "blockysize": TILE, "compress": "JPEG", "photometric": "YCBCR"}
    with rasterio.open(path, "w", "GTiff", side, side, 3, dtype="uint8", BIGTIFF="YES", **how) as file:
        for y in range(0, side, PATTERN):
            for x in range(0, side, PATTERN):
                part = colours[:, : side - y, : side - x]
                file.write(part, window=Window(x, y, part.shape[2], part.shape[1]))
    overviews = {"COMPRESS_OVERVIEW": "JPEG", "PHOTOMETRIC_OVERVIEW": "YCBCR", "GDAL_TIFF_OVR_BLOCKSIZE": TILE}
    with rasterio.Env(**overviews), rasterio.open(path, "r+") as file:
        file.build_overviews(STEPS, Resampling.average)


def write_labels(path: Path, side: int) -> None:
    """Write labels at half the resolution of the slide."""
    shades = pattern(2).mean(0)
    values = np.where(shades < 150, 1, np.where(shades > 225, 0, 2)).astype(np.uint8)

    def read(box: Box) -> NDArray[np.uint8]:
        rows, columns = np.arange(box.y0, box.y1) % len(values), np.arange(box.x0, box.x1) % len(values)
        return values[rows[:, None], columns[None, :]]

    write_cog(LabelMap((side // 2,) * 2, np.dtype("uint8"), LEGEND, read, (2048, 2048), scale=(2.0, 2.0)), path)


def main() -> None:
    """Make what is missing, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=40_000)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--work", type=Path, default=Path("view-benchmark"))
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    if asked.picture:
        take_picture(asked.picture, asked.work)
    else:
        measure(asked.side, asked.work)


def measure(side: int, work: Path) -> None:
    """Make what is missing, and print the table."""
    slide, labels = work / f"{side}.tif", work / f"{side}.labels.tif"
    if not slide.exists():
        write_slide(slide, side)
    if not labels.exists():
        write_labels(labels, side)
    print("| moves | image pixels per pixel of the screen | image alone, median (ms) | worst | with labels | worst |")
    print("|---|---|---|---|---|---|")
    found = {}
    for shown in ((), (labels,)):
        with view(slide, *shown, browser=False) as viewer, chromium(1280, 800) as page:
            enter(page, viewer.url)
            for pause, zoom in product((LOOK, 0.0), ZOOMS):
                # Each row begins elsewhere, so that no tile of it is kept from another row.
                start = side // 3 if pause else side // 2
                page.evaluate(f"void viewer.map.setView([{start}, {start}], {zoom}, {{animate: false}})")
                page.evaluate(MOVE % (0, 0))
                found[bool(shown), pause, zoom] = [_moved(page, pan, pause) for pan in PANS]
    for pause, zoom in product((LOOK, 0.0), ZOOMS):
        cells = [f"{one:.0f}" for shown in (False, True) for one in _middle_and_worst(found[shown, pause, zoom])]
        print(f"| {'after a look' if pause else 'at once'} | {2**-zoom} | {' | '.join(cells)} |")


def _moved(page: Page, pan: tuple[int, int], pause: float) -> float:
    time.sleep(pause)
    return float(page.evaluate(MOVE % pan))


def take_picture(path: Path, work: Path) -> None:
    """Write the picture of the documentation: the sample of Banepa with buildings, at its least certain place."""
    labels = work / "town.tif"
    if not labels.exists():
        tp.segment(TOWN, "buildings", labels, layers="margin")
    with view(TOWN, labels, browser=False) as viewer, chromium(1120, 680) as page:
        enter(page, viewer.url)
        page.evaluate("void viewer.map.setView([1180, 1050], 0, {animate: false})")
        page.evaluate("void document.getElementById('next').click()")
        page.wait_for("document.getElementById('place').textContent.startsWith('1 of')")
        page.evaluate(MOVE % (0, 0))
        page.mouse("mouseMoved", 300, 500)
        page.wait_for("document.getElementById('class').textContent.includes('margin')")
        page.screenshot(path)
    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(160, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


def _middle_and_worst(times: list[float]) -> tuple[float, float]:
    return statistics.median(times), max(times)


if __name__ == "__main__":
    main()
