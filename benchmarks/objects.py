"""How many objects are right: nuclei and buildings against those drawn by people, matched at an IoU of 0.5.

    python benchmarks/objects.py nuclei buildings pictures

prints a Markdown table for each. Nuclei: the three images of `nuclei_monuseg/objects`, which have a number for each
nucleus, as components and split. Buildings: the rows of the aerial image that were not trained on, as polygons before
and after they are cleaned up. `pictures` draws objects of the sample images into docs/images.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import rasterio
import rasterio.features
import rasterio.warp
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from skimage.measure import label

import tilepipe as tp
from tilepipe.evaluation.metrics.confusion import Confusion, confusion_of
from tilepipe.evaluation.metrics.objects import ObjectScores, object_scores
from tilepipe.evaluation.metrics.pair import pair
from tilepipe.products.cleanup import cleaned
from tilepipe.products.label_map import LABELS, LabelMap
from tilepipe.products.material import Material
from tilepipe.products.objects import objects
from tilepipe.products.outline import Floats
from tilepipe.products.vector_options import VectorOptions
from tilepipe.sources.geojson import read_geojson
from tilepipe.sources.geojson_place import placed

ROOT = Path(__file__).parents[1]
SAMPLES, IMAGES = ROOT / "pipelines" / "sample", ROOT / "docs" / "images"
DATA = Path(os.environ.get("TILEPIPE_DATA", ROOT / "../shared/data"))
Numbers = NDArray[np.int32]
Rings = Sequence[Floats]
UNSEEN = 2816
"""First row of the aerial image that was not trained on."""
NUCLEI = (
    ("components", VectorOptions()),
    ("components from 10 um2 on", VectorOptions(min_area=10.0)),
    *(
        (f"split, neck {neck:g}, from 10 um2 on", VectorOptions(split=True, neck=neck, min_area=10.0))
        for neck in (0.6, 0.7, 0.8, 0.9)
    ),
)
SMALL, HOLES = 10.0, 10.0
BUILDINGS = (
    ("as they are traced", VectorOptions()),
    ("`--min-area 10`", VectorOptions(min_area=SMALL)),
    ("`--min-area 10 --fill-holes 10`", VectorOptions(min_area=SMALL, fill_holes=HOLES)),
    ("the same with `--simplify 0.5`", VectorOptions(min_area=SMALL, fill_holes=HOLES, simplify=0.5)),
    ("the same with `--smooth`", VectorOptions(min_area=SMALL, fill_holes=HOLES, smooth=True)),
    ("the same with `--orthogonalize`", VectorOptions(min_area=SMALL, fill_holes=HOLES, orthogonalize=True)),
)


def numbered(shapes: Iterable[Rings], shape: tuple[int, int]) -> Numbers:
    """Return a map with a number for each polygon of pixel corners; later ones win."""
    polygons = [
        ({"type": "Polygon", "coordinates": [ring.tolist() for ring in rings]}, k) for k, rings in enumerate(shapes, 1)
    ]
    if not polygons:
        return np.zeros(shape, np.int32)
    return np.asarray(rasterio.features.rasterize(polygons, shape, dtype="int32"))


def row(name: str, scores: ObjectScores) -> str:
    """Return a row of a table."""
    figures = (scores.precision, scores.recall, scores.f1, scores.segmentation_quality, scores.panoptic_quality)
    return " | ".join([f"| {name}", f"{scores.predicted:,}", *(f"{figure:.3f}" for figure in figures)]) + " |"


HEAD = "| {} | objects | precision | recall | F1 | mean IoU | PQ |\n|---|---:|---:|---:|---:|---:|---:|"


def segmented(image: Path, model: str, folder: Path, **settings: object) -> LabelMap:
    """Return the labels of an image."""
    return tp.segment(image, model, folder / f"{image.stem}.tif", **settings).labels.map


def nuclei() -> None:
    """Print the table of nuclei."""
    totals: dict[str, ObjectScores] = {}
    pixels, folder, true = Confusion.zero(2), DATA / "nuclei_monuseg" / "objects", 0
    with TemporaryDirectory() as work:
        for path in sorted(folder.glob("*-???.png")):
            truth = np.asarray(Image.open(path.with_name(f"{path.stem}_objects.png"))).astype(np.int32)
            labels = segmented(path, "nuclei", Path(work), pixel_size=0.25)
            drawn = labels.read(tp.Box(0, 0, *labels.shape))
            pixels += confusion_of(pair(drawn, truth > 0, 2))
            true += len(np.unique(truth)) - 1
            for name, options in NUCLEI:
                found = [one.outline.rings for one in objects(Material.of({LABELS: labels}, options=options))]
                scores = object_scores(numbered(found, truth.shape), truth)
                totals[name] = totals[name] + scores if name in totals else scores
    print(f"{true:,} nuclei; nucleus pixels: IoU {pixels.iou[1]:.3f}, Dice {pixels.dice[1]:.3f}\n")
    print(HEAD.format("nuclei"))
    print("\n".join(row(name, scores) for name, scores in totals.items()), flush=True)


def buildings() -> None:
    """Print the table of buildings."""
    image = DATA / "aerial_banepa" / "banepa_rgb.tif"
    source = tp.open_source(image)
    height, width = source.shape[1] - UNSEEN, source.shape[2]
    assert source.georeference is not None
    assert source.georeference.transform is not None
    to_pixels = ~rasterio.Affine(*source.georeference.transform)
    footprints = list(polygons_of(placed(read_geojson(DATA / "aerial_banepa" / "banepa_buildings.geojson"), source)))
    rings = [[np.column_stack(to_pixels * np.array(ring).T) - (0, UNSEEN) for ring in one] for one in footprints]
    truth = numbered(rings, (height, width))
    print(f"{len(np.unique(truth)) - 1:,} footprints\n\n{HEAD.format('buildings')}")
    print(row("components of the footprints themselves", object_scores(label(truth > 0, connectivity=1), truth)))
    with TemporaryDirectory() as work:
        labels = segmented(image, "buildings", Path(work), window=(0, UNSEEN, width, height))
        for name, options in BUILDINGS:
            found = [one.rings for one in cleaned(labels, options)]
            print(row(name, object_scores(numbered(found, truth.shape), truth)), flush=True)
        split = VectorOptions(split=True, min_area=SMALL)
        found = [one.outline.rings for one in objects(Material.of({LABELS: labels}, options=split))]
        print(row("objects with `--split --min-area 10`", object_scores(numbered(found, truth.shape), truth)))


def polygons_of(geometries: Iterable[dict[str, object]]) -> Iterator[list[list[tuple[float, float]]]]:
    """Yield the rings of each polygon."""
    for one in geometries:
        parts = [one["coordinates"]] if one["type"] == "Polygon" else one["coordinates"]
        yield from parts


def pictures() -> None:
    """Draw buildings and nuclei of the sample images."""
    aerial, slide = SAMPLES / "banepa_east_rgb.tif", SAMPLES / "CMU-1-Small-Region.svs"
    with TemporaryDirectory() as work:
        box, around = tp.Box(820, 640, 1060, 900), 200  # buildings are whole beyond the picture
        labels = segmented(aerial, "buildings", Path(work), region=box.pad(around))
        drawn = [VectorOptions(), BUILDINGS[3][1], BUILDINGS[4][1], BUILDINGS[5][1]]
        found = [[[ring - around for ring in one.rings] for one in cleaned(labels, options)] for options in drawn]
        side_by_side(aerial, found, box, 2, IMAGES / "buildings_clean.png")
        box = tp.Box(1600, 1000, 1760, 1200)
        labels = segmented(slide, "nuclei", Path(work), region=box)
        drawn = [VectorOptions(), VectorOptions(split=True, min_area=SMALL)]
        material = [Material.of({LABELS: labels}, options=options) for options in drawn]
        found = [[one.outline.rings for one in objects(of)] for of in material]
        side_by_side(slide, [[], *found], box, 3, IMAGES / "nuclei_split.png")


def side_by_side(image: Path, shown: Sequence[Iterable[Rings]], part: tp.Box, zoom: int, path: Path) -> None:
    """Write a picture: a part of an image once for each list of objects in it, with their outlines."""
    pixels = tp.open_source(image).read(part)[:3].transpose(1, 2, 0)
    plain = Image.fromarray(np.ascontiguousarray(pixels)).resize((part.width * zoom, part.height * zoom))
    page = Image.new("RGB", (len(shown) * (plain.width + 8) - 8, plain.height), "white")
    for k, found in enumerate(shown):
        panel = plain.copy()
        pen = ImageDraw.Draw(panel)
        for rings in found:
            for ring in rings:
                pen.line([tuple(p) for p in (ring * zoom).tolist()], (255, 225, 0), 2)
        page.paste(panel, (k * (plain.width + 8), 0))
    page.quantize(128).save(path, optimize=True)


def main() -> None:
    """Print the tables that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=("nuclei", "buildings", "pictures"))
    for name in parser.parse_args().names:
        {"nuclei": nuclei, "buildings": buildings, "pictures": pictures}[name]()


if __name__ == "__main__":
    main()
