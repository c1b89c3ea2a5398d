"""Truth as it comes: polygons, maps of other ground on the same lattice, and folders; scikit-learn has the figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio.raw
import pytest
import rasterio
import shapely
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rasterio.features import rasterize
from rasterio.transform import Affine, from_origin
from rasterio.warp import transform_geom
from scipy.ndimage import gaussian_filter
from sklearn.metrics import confusion_matrix

import tilepipe as tp
from tilepipe.cli.main import main
from tilepipe.errors import InputError, UsageError
from tilepipe.evaluation.accuracy.class_map import open_raw
from tilepipe.evaluation.accuracy.common_part import common_part
from tilepipe.products.cog import write_cog
from tilepipe.products.label_map import Legend, label_map_of
from tilepipe.sources.base import Georeference

SIZE = (60, 80)
GRID = from_origin(300000, 5200000, 0.5, 0.5)
UTM = "EPSG:32633"
CLASSES = ("background", "house", "road")
LEGEND = Legend("things", CLASSES, ((0, 0, 0),) * 3, 255)
SHAPES = [shapely.box(300003, 5199980, 300013, 5199990), shapely.Point(300028, 5199985).buffer(6)]
TRUTH = rasterize(zip(SHAPES, (1, 2), strict=True), SIZE, transform=GRID).astype(np.uint8)


def noisy(seed: int = 0, truth: Any = TRUTH) -> np.ndarray:
    found = np.roll(truth, 2, 1)
    found[gaussian_filter(np.random.default_rng(seed).standard_normal(truth.shape), 2) > 0.2] = 1
    return found.astype(np.uint8)


def labels(path: Path, array: np.ndarray, transform: Affine | None = GRID, **fields: Any) -> Path:
    """Write a label map of tilepipe."""
    place = Georeference(rasterio.CRS.from_string(UTM).to_wkt(), tuple(transform)[:6]) if transform else None
    write_cog(label_map_of(array, LEGEND, georeference=place, **fields), path)
    return path


def polygons(path: Path, crs: str = UTM, kinds: tuple[Any, Any] = ("house", "road")) -> Path:
    shapes = [shapely.from_geojson(json.dumps(transform_geom(UTM, crs, s.__geo_interface__))) for s in SHAPES]
    pyogrio.raw.write(
        path, np.array([shapely.to_wkb(s) for s in shapes], object), fields=["kind"], crs=crs, geometry_type="Polygon",
        field_data=[np.array(kinds, object if isinstance(kinds[0], str) else None)],
        driver={".gpkg": "GPKG", ".fgb": "FlatGeobuf", ".shp": "ESRI Shapefile"}[path.suffix],
    )  # fmt: skip
    return path


def counts(prediction: np.ndarray, truth: np.ndarray) -> list[list[int]]:
    found: list[list[int]] = confusion_matrix(truth.ravel(), prediction.ravel(), labels=[0, 1, 2]).tolist()
    return found


@pytest.mark.parametrize("name", ["t.gpkg", "t.shp", "t.fgb"])
@pytest.mark.parametrize("crs", [UTM, "EPSG:3857"])
def test_polygons_are_scored_as_their_pixels(tmp_path: Path, name: str, crs: str) -> None:
    prediction = labels(tmp_path / "p.tif", noisy())
    found = tp.evaluate(prediction, polygons(tmp_path / name, crs), attribute="kind")
    off = np.abs(np.array(found.to_json()["confusion"]) - counts(noisy(), TRUTH)).sum()
    # A centre of a pixel within a rounding error of an outline may fall to either side.
    assert off == 0 if crs == UTM else off <= 4
    assert not found.to_json()["notes"]


def test_the_command_takes_polygons_and_their_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prediction, truth = labels(tmp_path / "p.tif", noisy()), polygons(tmp_path / "t.gpkg", kinds=(10, 20))
    words = ["evaluate", str(prediction), str(truth), "--attribute", "kind", "--json", "-q"]
    assert main([*words, "--values", "10:1,20:2"]) == 0
    assert json.loads(capsys.readouterr().out)["confusion"] == counts(noisy(), TRUTH)
    assert main([*words, "--values", "10:1", "--ignore", "20"]) == 0
    scored = json.loads(capsys.readouterr().out)["confusion"]
    assert np.array(scored).sum() == (TRUTH != 2).sum()
    assert main(words) == 4
    assert "kind of polygons is '10', '20', which is none of background, house, road" in capsys.readouterr().err
    assert main(["evaluate", str(truth), str(prediction), "-q"]) == 4
    assert "holds polygons; give the label map" in capsys.readouterr().err
    assert main(["evaluate", str(prediction), str(prediction), "--layer", "a", "-q"]) == 2
    assert "holds no polygons; leave out --layer" in capsys.readouterr().err


def test_polygons_elsewhere_are_refused_with_both_extents(tmp_path: Path) -> None:
    prediction = labels(tmp_path / "p.tif", noisy(), from_origin(400000, 5200000, 0.5, 0.5))
    words = r"do not lie on .*p\.tif: they cover x 300003 to .* the prediction x 400000 to 400040"
    with pytest.raises(InputError, match=words):
        tp.evaluate(prediction, polygons(tmp_path / "t.gpkg"), attribute="kind")


def test_qupaths_annotations_on_a_part_of_a_slide(tmp_path: Path) -> None:
    """The label map begins at (100, 200) of the slide, whose bounds begin at (10, 20), where QuPath counts from."""
    ring = [[190, 95], [210, 95], [210, 105], [190, 105], [190, 95]]
    feature = {
        "type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"classification": {"name": "road"}},
    }  # fmt: skip
    (tmp_path / "q.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    truth = np.zeros(SIZE, np.uint8)
    truth[5:15, 10:30] = 2
    prediction = labels(tmp_path / "p.tif", noisy(truth=truth), None, origin=(100, 200), frame=(10, 20))
    found = tp.evaluate(prediction, tmp_path / "q.geojson")
    assert found.to_json()["confusion"] == counts(noisy(truth=truth), truth)


def test_coco_is_found_by_the_name_of_the_image(tmp_path: Path) -> None:
    document = {
        "images": [{"id": 1, "file_name": "scan.png", "height": SIZE[0], "width": SIZE[1]}],
        "categories": [{"id": 1, "name": "house"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[10, 5, 30, 5, 30, 15, 10, 15]]}],
    }
    (tmp_path / "c.json").write_text(json.dumps(document))
    truth = np.zeros(SIZE, np.uint8)
    truth[5:15, 10:30] = 1
    found = tp.evaluate(labels(tmp_path / "scan.labels.tif", noisy(truth=truth)), tmp_path / "c.json")
    assert found.to_json()["confusion"] == counts(noisy(truth=truth), truth)


# Maps of other ground on one lattice


def raster(path: Path, array: np.ndarray, transform: Affine, crs: str = UTM) -> Path:
    profile = {"crs": crs, "transform": transform, "dtype": array.dtype, "count": 1}
    with rasterio.open(path, "w", "GTiff", array.shape[1], array.shape[0], **profile) as file:
        file.write(array, 1)
    return path


@given(st.integers(-70, 70), st.integers(-90, 90), st.integers(1, 70), st.integers(1, 90))
def test_the_part_that_both_cover_is_compared(dy: int, dx: int, height: int, width: int) -> None:
    first, second = np.indices(SIZE)[0] * 100 + np.indices(SIZE)[1], np.zeros((height, width), int)
    rows, columns = np.arange(height) + dy, np.arange(width) + dx
    second[:] = rows[:, None] * 100 + columns
    maps = []
    for array, transform in ((first, GRID), (second, GRID * Affine.translation(dx, dy))):
        known = Georeference(rasterio.CRS.from_string(UTM).to_wkt(), tuple(transform)[:6])
        raw = open_raw(array, set())
        maps.append(raw.__class__(**{**raw.__dict__, "georeference": known}))
    rows, columns = rows[(rows >= 0) & (rows < SIZE[0])], columns[(columns >= 0) & (columns < SIZE[1])]
    if not len(rows) or not len(columns):
        with pytest.raises(InputError, match=r"share no pixel: .*x 300000 to 300040.*\(EPSG:32633\); array is"):
            common_part(*maps)
        return
    one, two, said = common_part(*maps)
    assert one.shape == two.shape == (len(rows), len(columns))
    box = tp.Box.of_shape(*one.shape)
    np.testing.assert_array_equal(one.read(box), rows[:, None] * 100 + columns)
    np.testing.assert_array_equal(two.read(box), one.read(box))
    assert (said == "") == (maps[0].shape == maps[1].shape and dy == dx == 0)


def test_what_was_compared_is_said_with_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prediction = labels(tmp_path / "p.tif", noisy())
    truth = raster(tmp_path / "t.tif", TRUTH[20:, :40], GRID * Affine.translation(0, 20))
    assert main(["evaluate", str(prediction), str(truth), "-q", "--page", str(tmp_path / "p.html")]) == 0
    said = f"the 40 x 40 pixels that both maps cover are compared: 33.3% of {prediction}, 100.0% of {truth}"
    assert said in capsys.readouterr().out.splitlines()
    assert said in (tmp_path / "p.html").read_text()
    assert tp.evaluate(prediction, truth).to_json()["confusion"] == counts(noisy()[20:, :40], TRUTH[20:, :40])


# Folders


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Three pairs in three spellings, and one file without a partner in each folder."""
    found, truth = tmp_path / "found", tmp_path / "truth"
    found.mkdir()
    truth.mkdir()
    for k, name in enumerate("abcx"):
        labels(found / f"{name}.labels.tif", noisy(k), GRID if name == "b" else None)
    Image.fromarray(TRUTH).save(truth / "a_label.png")
    polygons(truth / "b.gpkg")
    np.save(truth / "notes.npy", TRUTH)
    raster(truth / "c.tif", TRUTH, GRID)
    raster(truth / "y.tif", TRUTH, GRID)
    return found, truth


def test_folders_are_paired_by_name(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", *map(str, folders), "-q"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "1 of 4 files in" in out
    assert "x.labels.tif" in out
    assert "y.tif" in out
    assert "3 pairs, " in out
    # Without an attribute every polygon is of class 1.
    truths = [TRUTH, np.minimum(TRUTH, 1), TRUTH]
    each = [np.array(counts(noisy(k), truth)) for k, truth in enumerate(truths)]
    assert main([*words, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["total"]["confusion"] == sum(each).tolist()
    assert [pair["name"] for pair in said["pairs"]] == ["a", "b", "c"]
    assert [pair["confusion"] for pair in said["pairs"]] == [one.tolist() for one in each]
    iou = [np.diag(one) / (one.sum(0) + one.sum(1) - np.diag(one)) for one in each]
    np.testing.assert_allclose([row["iou_mean"] for row in said["classes"]], np.mean(iou, 0))
    house = [pair["classes"][1]["objects"] for pair in said["pairs"]]
    matched, objects = sum(o["matched"] for o in house), sum(o["predicted"] + o["true"] for o in house)
    assert said["classes"][1]["object_f1"] == pytest.approx(2 * matched / objects)


def test_folders_that_do_not_fit_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    found, truth = folders
    with pytest.raises(UsageError, match="is a folder and the other map is none"):
        tp.evaluate(found, truth / "c.tif")
    with pytest.raises(UsageError, match="a page shows one pair"):
        tp.evaluate(found, truth, page=tmp_path / "p.html")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no label map in .*\(a\.labels\.tif, .*has a truth .*\(no label map\)"):
        tp.evaluate(found, tmp_path / "empty")
    Image.fromarray(TRUTH).save(truth / "a_mask.png")
    with pytest.raises(InputError, match=r"a_label\.png and .*a_mask\.png both are labels called 'a'"):
        tp.evaluate(found, truth)
