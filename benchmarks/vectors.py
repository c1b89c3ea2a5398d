"""What polygons take: memory and time of a million features in each format.

    python benchmarks/vectors.py --cells 1024

makes a label raster with `--cells` times `--cells` separate shapes of random pixels, one in each square of 10 pixels,
and prints a Markdown table: each row is one `tilepipe export` in a process of its own. The folder `--work` keeps the
raster and the files.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray
from rasterio.crs import CRS

from tilepipe.box import Box
from tilepipe.products.cog import write_cog
from tilepipe.products.label_map import LabelMap, Legend
from tilepipe.products.vector_files import count_features
from tilepipe.sources.base import Georeference, Resolution

CELL = 10
"""Side in pixels of the square that a shape lies in; its last row and column are background."""
SHAPES = 251
"""Different shapes."""
LEGEND = Legend("shapes", ("background", "shape"), ((90, 90, 90), (213, 94, 0)), 255)
SYSTEM, PLACE, SIZE = "EPSG:32645", (335000.0, 3058000.0), 0.3
EXPORTS = (
    ("GeoPackage", ["a.gpkg"]),
    ("FlatGeobuf", ["a.fgb"]),
    ("Shapefile", ["a.shp.zip"]),
    ("GeoParquet", ["a.parquet"]),
    ("GeoJSON", ["a.geojson"]),
    ("GeoPackage, cleaned up", ["b.gpkg", "--min-area", "0.5", "--fill-holes", "1", "--simplify", "0.45"]),
    ("GeoPackage, right angles", ["c.gpkg", "--orthogonalize"]),
)
"""Name of the row, and what `tilepipe export LABELS` is given."""


def shapes() -> NDArray[np.uint8]:
    """Return connected shapes of random pixels, (SHAPES, CELL, CELL) uint8."""
    random = np.random.default_rng(0)
    found = np.zeros((SHAPES, CELL, CELL), np.uint8)
    for k, (top, left) in enumerate(random.integers(1, 4, (SHAPES, 2))):
        found[k, top : CELL - 2, left : CELL - 2] = 1
        found[k, top - 1, left : CELL - 2] = random.integers(0, 2, CELL - 2 - left)
        found[k, top : CELL - 2, left - 1] = random.integers(0, 2, CELL - 2 - top)
        found[k, top + 2, left + 2] = k % 3 > 0
    return found


def label_map(cells: int) -> LabelMap:
    """Return a label map of `cells` times `cells` shapes."""
    kinds, random = shapes(), np.random.default_rng(1).integers(0, SHAPES, (cells, cells))

    def read(box: Box) -> NDArray[np.uint8]:
        rows = slice(box.y0 // CELL, -(-box.y1 // CELL))
        columns = slice(box.x0 // CELL, -(-box.x1 // CELL))
        there = kinds[random[rows, columns]].transpose(0, 2, 1, 3)
        whole = there.reshape(there.shape[0] * CELL, -1)
        y, x = box.y0 - rows.start * CELL, box.x0 - columns.start * CELL
        return np.ascontiguousarray(whole[y : y + box.height, x : x + box.width])

    place = Georeference(CRS.from_user_input(SYSTEM).to_wkt(), (SIZE, 0.0, PLACE[0], 0.0, -SIZE, PLACE[1]))
    side = cells * CELL
    return LabelMap((side, side), np.dtype("uint8"), LEGEND, read, (1024, 1024), place, Resolution(SIZE, SIZE))


def peak_and_seconds(command: list[str]) -> tuple[int, float]:
    """Run a command; return the peak resident memory of its process tree in bytes, and its time in seconds."""
    start, peak = time.monotonic(), 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as child:
        main = psutil.Process(child.pid)
        while child.poll() is None:
            with suppress(psutil.NoSuchProcess):
                peak = max(peak, sum(one.memory_info().rss for one in (main, *main.children(recursive=True))))
            time.sleep(0.02)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {child.returncode}")
    return peak, time.monotonic() - start


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=1024, help="shapes along each side of the raster")
    parser.add_argument("--work", type=Path, default=Path("vectors-work"), help="folder for the raster and the files")
    parser.add_argument("--only", default="", help="leave out rows that do not begin with this")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    labels = given.work / f"shapes_{given.cells}.tif"
    if not labels.exists():
        write_cog(label_map(given.cells), labels)
    print("| written | features | peak memory | time | file |\n|---|---:|---:|---:|---:|")
    for name, (output, *options) in EXPORTS:
        if name.startswith(given.only):
            path = given.work / output
            command = [sys.executable, "-m", "tilepipe", "export", str(labels), str(path), "--overwrite", *options]
            peak, seconds = peak_and_seconds(command)
            cells = f"{peak / 2**20:,.0f} MiB | {seconds:.0f} s | {path.stat().st_size / 2**20:.0f} MiB"
            print(f"| {name} | {count_features(path):,} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
