"""Labels by polygon as QuPath, QGIS and `tilepipe segment` write them, through to trained models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.execution.segment import segment
from tilepipe.models.formats.directory import load_model
from tilepipe.sources.geo_labels import ClassRules, polygons
from tilepipe.training import sampling
from tilepipe.training.config import TrainConfig
from tilepipe.training.loop import fit
from tilepipe.training.sampling import Sampler, survey
from tilepipe.training.scenes import Scene, open_scenes

Write = Callable[..., Path]
Configure = Callable[..., TrainConfig]

SAMPLE = Path(__file__).parents[2] / "pipelines" / "sample"
SLIDE, AERIAL = SAMPLE / "CMU-1-Small-Region.svs", SAMPLE / "banepa_east_rgb.tif"
RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.integers(0, 255, (3, 40, 56), dtype=np.uint8)
WHOLE = Box(0, 0, 40, 56)
TINY: dict[str, Any] = {
    "arch": {"name": "unet", "width": 2, "depth": 1}, "steps": 2, "batch": 1, "crop": 32, "augment": {"scale": 1},
}  # fmt: skip


def square(y: int, x: int, side: int, **properties: Any) -> dict[str, Any]:
    ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    return {"geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": properties}


def qupath(y: int, x: int, side: int, name: str) -> dict[str, Any]:
    return square(y, x, side, objectType="annotation", classification={"name": name, "color": [1, 2, 3]})


def written(path: Path, *features: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(features)}))
    return path


def only(config: TrainConfig) -> Scene:
    (scene,) = open_scenes(config.train, config)
    return scene


def test_qupaths_classes_are_found_by_name(write: Write, configure: Configure, tmp_path: Path) -> None:
    image = write("i.png", IMAGE)
    label = written(
        tmp_path / "p.geojson", qupath(2, 3, 20, "Stroma"), qupath(5, 5, 6, "background"),
        qupath(12, 12, 4, "Ignore*"), square(30, 40, 5, classification={"names": ["Tumor", "Positive"]}),
        square(30, 5, 5), square(30, 20, 4, class_name="Stroma"),
    )  # fmt: skip
    entry = {"image": str(image), "label": str(label)}
    found = only(configure(train=[entry], classes=("background", "Stroma", "Tumor: Positive"))).label(WHOLE)
    wanted = np.zeros((40, 56), int)
    wanted[2:22, 3:23], wanted[5:11, 5:11], wanted[12:16, 12:16] = 1, 0, -1
    wanted[30:35, 40:45], wanted[30:35, 5:10], wanted[30:34, 20:24] = 2, 1, 1
    np.testing.assert_array_equal(found, wanted)
    words = r"the class of polygons is 'Stroma', 'Tumor: Positive', which is none of background, nucleus"
    with pytest.raises(InputError, match=words):
        only(configure(train=[entry], classes=("background", "nucleus")))


def test_only_the_area_is_labelled(write: Write, configure: Configure, tmp_path: Path) -> None:
    image = write("i.png", IMAGE)
    label = written(tmp_path / "p.geojson", qupath(0, 10, 8, "b"), qupath(4, 6, 30, "Region*"))
    entry = {"image": str(image), "label": str(label), "area": "Region*"}
    wanted = np.full((40, 56), -1)
    wanted[4:34, 6:36], wanted[4:8, 10:18] = 0, 1
    scene = only(configure(train=[entry]))
    np.testing.assert_array_equal(scene.label(WHOLE), wanted)
    np.testing.assert_array_equal(scene.label(Box(0, 0, 4, 56)), -1)
    found = survey([scene], 2)
    assert found.counts.sum(0).tolist() == [(wanted == 0).sum(), (wanted == 1).sum()]
    np.testing.assert_allclose(found.mean, IMAGE[:, wanted >= 0].mean(1))
    with pytest.raises(InputError, match=r"holds no polygon of class 'Regio'"):
        only(configure(train=[{**entry, "area": "Regio"}]))
    raster = write("l.png", IMAGE[0] // 128)
    with pytest.raises(InputError, match="a raster, which has no attribute, no area and no layer"):
        only(configure(train=[{**entry, "label": str(raster)}]))


def test_other_vector_files_say_how_to_make_geojson(write: Write, configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "p.kml").touch()
    with pytest.raises(InputError, match=r"ogr2ogr -t_srs OGC:CRS84 \S*p\.geojson \S*p\.kml"):
        only(configure(train=[{"image": str(write("i.png", IMAGE)), "label": "p.kml"}]))


@pytest.mark.parametrize(("factor", "up"), [(2, False), (3, False), (3, True)])
def test_a_mask_of_a_slide_may_be_reduced(write: Write, configure: Configure, factor: int, up: bool) -> None:
    image = write("i.png", IMAGE)
    shape = [-(-n // factor) if up else n // factor for n in (40, 56)]
    mask = RANDOM.integers(0, 2, shape, dtype=np.uint8)
    found = only(configure(train=[{"image": str(image), "label": str(write("m.png", mask))}])).label(WHOLE)
    rows, columns = ((np.arange(n) + 0.5) * size / n for n, size in zip((40, 56), shape, strict=True))
    np.testing.assert_array_equal(found, mask[rows.astype(int)[:, None], columns.astype(int)])
    with pytest.raises(InputError, match="of a slide also on one reduced by a whole factor"):
        only(configure(train=[{"image": str(image), "label": str(write("m.png", mask[:-2]))}]))
    with pytest.raises(InputError, match="not one band of whole numbers"):  # with a position, only the very grid
        only(configure(train=[{"image": str(write("i.tif", IMAGE)), "label": str(write("m.tif", mask))}]))


class Large:
    """A source of 100000 x 100000 pixels that counts what is read."""

    name, shape, dtype, resolution, georeference = "large", (3, 100_000, 100_000), np.dtype(np.uint8), None, None
    pixels = 0

    def read(self, box: Box) -> NDArray[Any]:
        self.pixels += box.area
        return np.full((3, *box.shape), 7, np.uint8)

    def valid(self, box: Box) -> NDArray[np.bool_] | None:
        return None


@pytest.mark.parametrize("area", [None, "Region*"])
def test_a_large_slide_is_not_read_whole(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, area: str | None
) -> None:
    monkeypatch.setattr(sampling, "MOST_CELLS", 50)
    source: Any = Large()
    features = [qupath(70_000 + 500 * k, 90_000, 20, "b") for k in range(20)]
    path = written(tmp_path / "p.geojson", *features, qupath(69_900, 89_900, 10_000, "Region*"))
    if area is None:
        path = written(path, *features)
    labels = polygons(path, source, ClassRules(("a", "b"), area=area))
    whole = Box(0, 0, 100_000, 100_000)
    found = survey([Scene("large", source, whole, whole, labels)], 2)
    assert len(found.places) <= 70
    assert found.counts.sum(0)[1] >= 20 * 20 * 20 / 2  # each object is seen, at least in part
    assert area is None or (found.places[:, 1:] >= 69_900 - 64).all()
    assert source.pixels <= 70 * 64 * 64
    sampler = Sampler(
        [Scene("large", source, whole, whole, labels)],
        found,
        configure(train=[{"image": "large", "label": str(path)}], crop=64, batch=4),
    )
    images, classes = sampler.batch(0)
    assert images.shape == (4, 3, 64, 64)
    assert (classes >= 0).any()


@pytest.mark.long
def test_a_slide_corrected_and_trained_again(configure: Configure, tmp_path: Path) -> None:
    """Polygons of `segment` on a slide, one of them renamed as a person would in QuPath, become training data."""
    segment(SLIDE, "nuclei", tmp_path / "n.geojson", window=(1280, 1024, 192, 192), of=["geojson"], device="cpu")
    label = next(tmp_path.glob("n*.geojson"))
    document = json.loads(label.read_text())
    document["features"][0]["properties"]["classification"]["name"] = "debris"
    document["features"].append(qupath(1024, 1280, 192, "Region*"))
    label.write_text(json.dumps(document))
    config = configure(
        train=[{"image": str(SLIDE), "label": str(label), "area": "Region*"}],
        classes=("background", "nucleus", "debris"), start="nuclei", **{**TINY, "crop": 64},
    )  # fmt: skip
    config = TrainConfig(**config.model_dump(exclude={"arch"}, exclude_unset=True))
    card = load_model(fit(config)).card
    pixels = card.training["pixels"]
    assert 0 < pixels["debris"] < pixels["nucleus"] < pixels["background"]
    assert sum(pixels.values()) == pytest.approx(192 * 192, rel=0.02)
    assert (card.resolution, card.unit, card.mean) == (0.5, "um", load_model("nuclei").card.mean)


def test_slide_and_mask(configure: Configure, write: Write) -> None:
    mask = np.zeros((2967 // 3, 2220 // 3), np.uint8)
    mask[300:] = 255
    entry = {"image": str(SLIDE), "label": str(write("mask.png", mask)), "rows": [800, 1000], "columns": [0, 96]}
    card = load_model(fit(configure(train=[entry], values={0: 0, 255: 1}, **TINY))).card
    assert card.training["pixels"] == {"a": 100 * 96, "b": 100 * 96}


def test_map_and_polygons_in_other_coordinates(configure: Configure, tmp_path: Path) -> None:
    """The image is in EPSG:3857; the same squares in UTM and in longitude and latitude give the same labels."""
    with rasterio.open(AERIAL) as file:
        to_map, crs = file.transform, file.crs
    counted = []
    for code, stated in (("EPSG:32645", True), ("OGC:CRS84", False)):
        feature = square(120, 80, 40)
        ring = [to_map @ (x, y) for x, y in feature["geometry"]["coordinates"][0]]
        moved = rasterio.warp.transform(crs, code, *zip(*ring, strict=True))
        feature["geometry"]["coordinates"] = [list(zip(*moved, strict=True))]
        document: dict[str, Any] = {"type": "FeatureCollection", "features": [feature]}
        if stated:
            document["crs"] = {"type": "name", "properties": {"name": code}}
        path = tmp_path / f"{stated}.geojson"
        path.write_text(json.dumps(document))
        entry = {"image": str(AERIAL), "label": str(path), "rows": [64, 192], "columns": [64, 192]}
        config = configure(train=[entry], **TINY)
        (scene,) = open_scenes(config.train, config)
        wanted = np.zeros((128, 128), int)
        wanted[56:96, 16:56] = 1
        np.testing.assert_array_equal(scene.label(Box(0, 0, 128, 128)), wanted)
        counted.append(config)
    assert load_model(fit(counted[0])).card.training["pixels"] == {"a": 128 * 128 - 1600, "b": 1600}


def test_picture_and_mask(configure: Configure, write: Write) -> None:
    entry = {"image": str(write("i.png", IMAGE)), "label": str(write("m.png", (IMAGE[0] > 128) * np.uint8(255)))}
    card = load_model(fit(configure(train=[entry], values={0: 0}, other=1, **TINY))).card
    assert card.training["pixels"] == {"a": int((IMAGE[0] <= 128).sum()), "b": int((IMAGE[0] > 128).sum())}
