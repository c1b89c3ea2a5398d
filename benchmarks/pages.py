"""Pictures of the demonstration and of the pages that tilepipe writes, as a browser shows them, for the documentation.

    python benchmarks/pages.py

segments the sample images, opens their reports in headless Chromium (Debian: apt-get install chromium) and writes
docs/images/demo.png (images beside their labels), docs/images/report.jpg (a report on a desk and on a telephone) and
docs/images/report_batch.jpg (the report of a batch).
"""

from __future__ import annotations

import sys
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from tilepipe.cli.demo import DEMOS, SAMPLES, make
from tilepipe.execution.batch.index import report_of_batch
from tilepipe.execution.batch.run_batch import run

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
sys.path.insert(0, str(ROOT / "tests"))

from helpers.chromium import Page, chromium  # noqa: E402  (tests are no package that is installed)

WIDE, COLOURS = 1000, 200
"""Width of the picture of the demonstration (pixels), and its number of colours."""
DESK, TELEPHONE, GAP = (1280, 1000), (390, 1000), 30
"""Width and height of the two screens, and the distance between their pictures (pixels)."""
JOBS = "images: {samples}/Amazon_*.tif\nmodel: forest\noutput: labels/{{stem}}.labels.tif\nof: [cog, report]\n"


def main() -> None:
    """Make the reports and their pictures."""
    with TemporaryDirectory() as folder, chromium() as browser:
        made = [make(demo, SAMPLES / demo.image, Path(folder), lambda event: None)[1] for demo in DEMOS]
        _save(_stacked(made), "demo.png")
        _save(_screens(browser, Path(folder) / "aerial.labels.html"), "report.jpg")
        jobs = Path(folder) / "forest.yaml"
        jobs.write_text(JOBS.format(samples=SAMPLES))
        run(jobs)
        _save(_screens(browser, report_of_batch(jobs)), "report_batch.jpg")


def _stacked(paths: list[Path]) -> Image.Image:
    """Return pictures one below the other, in few colours."""
    pictures = [Image.open(path).convert("RGB") for path in paths]
    pictures = [one.resize((WIDE, round(one.height * WIDE / one.width)), Image.Resampling.LANCZOS) for one in pictures]
    stacked = Image.new("RGB", (WIDE, sum(one.height for one in pictures)), (255, 255, 255))
    for k, one in enumerate(pictures):
        stacked.paste(one, (0, sum(above.height for above in pictures[:k])))
    return stacked.quantize(COLOURS)


def _screens(browser: Page, page: Path) -> Image.Image:
    """Return a page on a desk and on a telephone, side by side."""
    both = Image.new("RGB", (DESK[0] + GAP + TELEPHONE[0], DESK[1]), (255, 255, 255))
    for x, (width, height) in ((0, DESK), (DESK[0] + GAP, TELEPHONE)):
        browser.resize(width, height)
        browser.goto(page.as_uri())
        browser.evaluate("Promise.all([...document.images].map(image => image.decode()))")
        with TemporaryDirectory() as folder:
            browser.screenshot(Path(folder) / "seen.png")
            both.paste(Image.open(BytesIO((Path(folder) / "seen.png").read_bytes())), (x, 0))
    if browser.problems:
        raise SystemExit(f"{page.name}: {browser.problems}")
    return both


def _save(picture: Image.Image, name: str) -> None:
    picture.save(IMAGES / name, quality=85, optimize=True)
    print(IMAGES / name)


if __name__ == "__main__":
    main()
