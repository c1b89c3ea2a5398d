"""Labels must fit: elsewhere, off the image, of another kind, without a class, they are refused before step 1."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import rasterio
import zarr
from helpers.small_training import SMALL, Stop, stopped_at
from PIL import Image
from rasterio.crs import CRS
from rasterio.transform import from_origin
from rasterio.warp import transform_geom

from tilepipe.box import Box
from tilepipe.errors import InputError, UsageError
from tilepipe.events import Event
from tilepipe.sources.ome_tiff import is_ome_tiff
from tilepipe.sources.open import open_source
from tilepipe.training import sampling
from tilepipe.training.config import TrainConfig
from tilepipe.training.dataset import Dataset
from tilepipe.training.loop import fit
from tilepipe.training.scenes import open_scenes

Write = Callable[..., Path]
Configure = Callable[..., TrainConfig]

SIDE = 64
RANDOM = np.random.default_rng(0)
LABEL = (RANDOM.random((8, 8)) > 0.5).astype(np.uint8).repeat(8, 0).repeat(8, 1)
IMAGE = (LABEL * 120 + RANDOM.integers(20, 60, (3, SIDE, SIDE))).astype(np.uint8)
WHOLE = Box(0, 0, SIDE, SIDE)
UTM: dict[str, Any] = {"crs": "EPSG:32645", "transform": from_origin(300000, 3000000, 1, 1)}


@pytest.fixture
def entry(write: Write) -> Callable[..., dict[str, str]]:
    """Write image and label raster, by default on the same pixels; keywords are rasterio's for the label."""

    def _entry(label: Any = LABEL, image: Any = None, name: str = "l.tif", **profile: Any) -> dict[str, str]:
        place = UTM if image is None else image
        label_place = {} if name.endswith(".png") else {**UTM, **profile}
        return {"image": str(write("i.tif", IMAGE, **place)), "label": str(write(name, label, **label_place))}

    return _entry


def classes(config: TrainConfig) -> np.ndarray:
    (scene,) = open_scenes(config.train, config)
    return scene.label(WHOLE)


@pytest.mark.parametrize("kind", ["uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "float32", "float64"])
def test_whole_numbers_of_any_type_are_read(entry: Any, configure: Configure, kind: str) -> None:
    np.testing.assert_array_equal(classes(configure(train=[entry(LABEL.astype(kind))])), LABEL)


def test_one_bit_masks_are_read(entry: Any, configure: Configure) -> None:
    np.testing.assert_array_equal(classes(configure(train=[entry(nbits=1)])), LABEL)


def test_labels_in_zarr_are_read(entry: Any, configure: Configure, tmp_path: Path) -> None:
    zarr.create_array(str(tmp_path / "l.zarr"), data=LABEL)
    label = {"label": str(tmp_path / "l.zarr")}
    np.testing.assert_array_equal(classes(configure(train=[entry() | label])), LABEL)


@pytest.mark.parametrize("name", ["l.jpg", "l.tif", "lerc.tif", "l.ome.tif", "l.zarr"])
def test_labels_that_were_compressed_with_loss_are_refused(
    entry: Any, configure: Configure, tmp_path: Path, name: str
) -> None:
    """The values are all classes, and up to a third of them are others than those that were written."""
    label = np.add.outer(np.arange(SIDE), np.arange(SIDE)).astype(np.uint8) // 32
    if name == "l.jpg":
        Image.fromarray(label).save(tmp_path / name)
        found = np.asarray(Image.open(tmp_path / name))
        given = entry() | {"label": str(tmp_path / name)}
    elif name == "l.ome.tif":
        given = entry(label, compress="JPEG", BIGTIFF="NO")
        described = (
            '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" '
            f'DimensionOrder="XYCZT" Type="uint8" SizeX="{SIDE}" SizeY="{SIDE}" SizeC="1" SizeZ="1" SizeT="1">'
            "<TiffData/></Pixels></Image></OME>"
        )
        with rasterio.open(given["label"], "r+") as file:
            file.update_tags(TIFFTAG_IMAGEDESCRIPTION=described)
        given["label"] = str(Path(given["label"]).rename(tmp_path / name))
        assert is_ome_tiff(Path(given["label"]))
        found = np.asarray(open_source(given["label"]).read(WHOLE))[0]
    elif name == "l.zarr":
        label = label.astype(np.float32)
        rounding = numcodecs.BitRound(keepbits=0)
        array = zarr.create_array(str(tmp_path / name), data=label, zarr_format=2, filters=[rounding])
        found = np.asarray(array[:])
        given = entry() | {"label": str(tmp_path / name)}
    elif name == "lerc.tif":
        given = entry(label, compress="LERC", MAX_Z_ERROR=2)
        with rasterio.open(given["label"]) as file:
            found = file.read(1)
    else:
        given = entry(label, compress="JPEG")
        with rasterio.open(given["label"]) as file:
            found = file.read(1)
    assert (found != label).mean() > 0.02
    with pytest.raises(InputError, match=r"compressed with loss.*gdal_calc\.py -A"):
        classes(configure(train=[given], classes=["a", "b", "c", "d", "e", "f"]))


def test_nan_in_labels_is_no_label_and_fractions_are_refused(entry: Any, configure: Configure) -> None:
    label = LABEL.astype(np.float32)
    label[:3] = np.nan
    found = classes(configure(train=[entry(label)]))
    np.testing.assert_array_equal(found, np.where(np.isnan(label), -1, LABEL.astype(int)))
    label[9, 9] = 0.25
    with pytest.raises(InputError, match=r"holds the value 0\.25; labels are whole numbers"):
        classes(configure(train=[entry(label)]))


def test_nodata_that_is_a_class_is_asked_about(entry: Any, configure: Configure) -> None:
    """As gdal_rasterize -a_nodata 0, QGIS and ArcGIS leave it."""
    masks = [entry(nodata=0)]
    words = r"says that 0 is nodata, and 0 is the value of class 'a'.*write values: \{0: 0, 1: 1\}.*ignore: \[0\]"
    with pytest.raises(InputError, match=words):
        classes(configure(train=masks))
    np.testing.assert_array_equal(classes(configure(train=masks, values={0: 0, 1: 1})), LABEL)
    with pytest.raises(InputError, match=r"class 'a' has no labelled pixel .*: its value 0 is under ignore"):
        Dataset(configure(train=masks, ignore=[0])).check()
    np.testing.assert_array_equal(classes(configure(train=masks, values={1: 1})), np.where(LABEL == 1, 1, -1))


def test_values_that_are_no_class_come_with_what_to_write(entry: Any, configure: Configure) -> None:
    for values, remedy in ((LABEL * 255, r"\{0: 0, 255: 1\}"), (LABEL * 10 + 10, r"\{10: 0, 20: 1\}")):
        with pytest.raises(InputError, match=rf"which is no class; if its values are .* write values: {remedy}"):
            classes(configure(train=[entry(values)]))
    np.testing.assert_array_equal(classes(configure(train=[entry(LABEL * 255)], values={0: 0, 255: 1})), LABEL)


def test_colours_are_mapped_or_asked_for(entry: Any, configure: Configure) -> None:
    rgb = np.stack([LABEL * 255, LABEL * 0, (1 - LABEL) * 200]).astype(np.uint8)
    np.testing.assert_array_equal(classes(configure(train=[entry(rgb)], colors=["#0000c8", "#FF0000"])), LABEL)
    with pytest.raises(
        InputError,
        match=r"colours \(among them #0000c8, #ff0000\); say which .* colors: \{a: '#rrggbb', b: '#rrggbb'\}",
    ):
        classes(configure(train=[entry(rgb)]))
    with pytest.raises(InputError, match=r"holds the colour #ff0000, which is none of colors #0000c8, #00ff00"):
        classes(configure(train=[entry(rgb)], colors=["#0000c8", "#00ff00"]))
    for colors in (["#0000c8"], ["red", "#00ff00"]):
        with pytest.raises(UsageError, match="colors"):
            configure(train=[entry()], colors=colors)


@pytest.mark.parametrize("name", ["l.tif", "l.png"])
@pytest.mark.parametrize("alpha", [False, True])
def test_a_mask_in_colours_is_read_by_a_map(entry: Any, configure: Configure, name: str, alpha: bool) -> None:
    """Several colours of one class, a colour that nobody labelled, and the alpha band that drawing programs write."""
    rgb = np.stack([LABEL * 255, LABEL * 0, (1 - LABEL) * 200, *([LABEL * 0 + 255] if alpha else [])]).astype(np.uint8)
    rgb[:3, :4], rgb[:3, 4:8] = np.array([[[10]], [[20]], [[30]]]), 255
    masks = [entry(rgb, name=name)]
    wanted = LABEL.astype(int)
    wanted[:4], wanted[4:8] = 1, -1
    maps: list[dict[str, Any]] = [
        {"colors": {"b": "#ff0000", "a": "#0000C8"}, "other": "b", "ignore": ["#ffffff"]},
        {"values": {"#0000c8": "a", "#ff0000": "b", "#0a141e": 1}, "ignore": ["#FFFFFF"]},
    ]
    for settings in maps:
        np.testing.assert_array_equal(classes(configure(train=masks, **settings)), wanted)
    words = r"the colour #ffffff, which is none of values #0000c8, #ff0000, #0a141e; .* ignore: \['#ffffff'\]"
    with pytest.raises(InputError, match=words):
        classes(configure(train=masks, values=maps[1]["values"]))
    for colors, words in (
        ({"a": "#000000"}, "'b' has no colour"),
        ({"a": "#000000", "c": "#ffffff"}, "'b' has|'c' is"),
    ):
        with pytest.raises(UsageError, match=words):
            configure(train=masks, colors=colors)


ESRI = CRS.from_epsg(32645).to_wkt(version="WKT1_ESRI")


@pytest.mark.parametrize(
    "place",
    [{"crs": ESRI}, {"transform": from_origin(300000.3, 3000000, 1, 1)}, {"crs": None}],
    ids=["esri", "a third of a pixel", "no crs"],
)
def test_the_same_place_in_other_words_is_read(entry: Any, configure: Configure, place: dict[str, Any]) -> None:
    np.testing.assert_array_equal(classes(configure(train=[entry(**place)])), LABEL)


def test_a_mask_without_position_is_taken_pixel_by_pixel(entry: Any, configure: Configure) -> None:
    np.testing.assert_array_equal(classes(configure(train=[entry(name="l.png")])), LABEL)
    assert (
        Dataset(configure(train=[entry(name="l.png")]))
        .check()[0]
        .endswith("l.png says no position; its pixels are taken as the image's")
    )
    lost = configure(train=[entry(image={"crs": None, "transform": None})])
    np.testing.assert_array_equal(classes(lost), LABEL)
    assert "i.tif says no position; its pixels are taken as the label raster's" in Dataset(lost).check()[0]


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (
            {"crs": "EPSG:4326", "transform": from_origin(10, 50, 1e-5, 1e-5)},
            r"y 49\.99936 to 50 \(EPSG:4326\), the image",
        ),
        ({"crs": "EPSG:32644"}, r"\(EPSG:32644\), the image x 300000 to 300064, y 2999936 to 3000000 \(EPSG:32645\)"),
        ({"crs": ESRI, "transform": from_origin(300040, 3000000, 1, 1)}, "lies 40.0 pixels away"),
        ({"transform": from_origin(300000.5, 3000000, 1, 1)}, "lies 0.5 pixels away"),
        (
            {"transform": from_origin(300040, 3000000, 1, 1)},
            r"gdalwarp -r near -t_srs EPSG:32645 -te 300000 2999936 300064",
        ),
        ({"crs": None, "transform": from_origin(0, 64, 1, 1)}, r"\(no CRS\), the image"),
    ],
    ids=["degrees", "zone", "esri", "half a pixel", "shifted", "no crs"],
)
def test_labels_of_another_place_are_refused_with_both_extents(
    entry: Any, configure: Configure, place: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        classes(configure(train=[entry(**place)]))


def test_another_grid_is_refused_with_both_extents(entry: Any, configure: Configure) -> None:
    with pytest.raises(InputError, match=r"The labels cover x 300000 to 300032.*-ts 64 64 \S+l\.tif on_grid\.tif"):
        classes(configure(train=[entry(LABEL[::2, ::2], transform=from_origin(300000, 3000000, 1, 1))]))


def square(x: float, y: float, side: float) -> dict[str, Any]:
    ring = [[x, y], [x + side, y], [x + side, y - side], [x, y - side], [x, y]]
    return {"type": "Polygon", "coordinates": [ring]}


def written(path: Path, *geometries: dict[str, Any]) -> str:
    features = [{"type": "Feature", "properties": {}, "geometry": g} for g in geometries]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return str(path)


HOUSE = dict(transform_geom("EPSG:32645", "OGC:CRS84", square(300010, 2999990, 20)))
AWAY = dict(transform_geom("EPSG:32645", "OGC:CRS84", square(300510, 2999990, 20)))
SWAPPED = {**HOUSE, "coordinates": [[(y, x) for x, y in HOUSE["coordinates"][0]]]}


@pytest.mark.parametrize(
    ("geometry", "words"),
    [
        (AWAY, r"do not lie on .*i\.tif: they cover x 300510 to .* the image x 300000 to 300064, y 2999936 to 3000000"),
        (SWAPPED, "With x and y exchanged they would lie on it|Are longitude and latitude swapped"),
        (square(300010, 2999990, 20), r"which are no longitude and latitude.*ogr2ogr -a_srs EPSG:32645"),
    ],
    ids=["away", "swapped", "metres"],
)
def test_polygons_off_the_image_are_refused(
    write: Write, configure: Configure, tmp_path: Path, geometry: dict[str, Any], words: str
) -> None:
    entry = {"image": str(write("i.tif", IMAGE, **UTM)), "label": written(tmp_path / "p.geojson", geometry)}
    with pytest.raises(InputError, match=words):
        fit(configure(**SMALL, train=[entry]))
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("transform", [UTM["transform"], None])
def test_degrees_on_an_image_without_crs_are_refused(
    write: Write, configure: Configure, tmp_path: Path, transform: Any
) -> None:
    image = str(write("i.tif", IMAGE, crs=None, transform=transform))
    entry = {"image": image, "label": written(tmp_path / "p.geojson", HOUSE)}
    with pytest.raises(InputError, match=r"do not lie on .*i\.tif: they cover x 84\.9"):
        Dataset(configure(train=[entry])).check()


def test_polygons_that_lie_off_in_part_are_said(write: Write, configure: Configure, tmp_path: Path) -> None:
    entry = {"image": str(write("i.tif", IMAGE, **UTM)), "label": written(tmp_path / "p.geojson", HOUSE, AWAY)}
    said = " ".join(" ".join(Dataset(configure(train=[entry])).check()).split())
    assert "1 of 2 polygons of" in said
    assert "they cover x 300010 to 300530" in said
    assert "a 3,696 px 90.2%" in said
    assert "b 400 px 9.8%" in said


def test_one_file_may_label_many_images(write: Write, configure: Configure, tmp_path: Path) -> None:
    label = written(tmp_path / "all.geojson", HOUSE)
    images = [
        write("0.tif", IMAGE, **UTM),
        write("1.tif", IMAGE, **{**UTM, "transform": from_origin(3e5 + 64, 3e6, 1, 1)}),
    ]
    config = configure(train=[{"image": str(path), "label": label} for path in images])
    said = Dataset(config).check()
    assert "a 7,792 px 95.1%" in [" ".join(line.split()) for line in said]
    assert not [line for line in said if "lie off" in line]
    assert "1 of 1 polygons lie on the images" in said


def test_a_class_without_a_labelled_pixel_is_refused_or_named(entry: Any, configure: Configure) -> None:
    three = {"classes": ("a", "b", "c"), "train": [entry()]}
    words = r"class 'c' has no labelled pixel in the images to train on \(a [\d,]+ .*, c 0 .*absent: \[c\]"
    with pytest.raises(InputError, match=words):
        fit(configure(**SMALL, **three))
    with pytest.raises(Stop):
        fit(configure(**SMALL, **three, absent=["c"]), stopped_at(1))
    with pytest.raises(UsageError, match="absent names 'd'"):
        configure(**three, absent=["d"])


def test_in_a_large_image_a_class_may_be_missed(entry: Any, configure: Configure, monkeypatch: Any) -> None:
    monkeypatch.setattr(sampling, "MOST_CELLS", 0)
    monkeypatch.setattr(sampling, "_some", lambda numbers: numbers)
    said = Dataset(configure(classes=("a", "b", "c"), train=[entry()])).check()
    assert [line for line in said if line.endswith("as far as they were looked at")]


def test_labels_to_score_on_are_read_before_the_first_step(entry: Any, configure: Configure, write: Write) -> None:
    good = entry()
    for wrong, words in ((LABEL + 5, "holds the value [56], which is no class"), (LABEL * 0 + 9, "no labelled pixel")):
        score = {"image": good["image"], "label": str(write("s.tif", wrong, **UTM))}
        events: list[Event] = []
        with pytest.raises(InputError, match=words):
            fit(configure(**SMALL, train=[good], score=[score], ignore=[9]), events.append)
        assert not any(event.stage == "train" for event in events)
    score = {"image": good["image"], "label": str(write("s.tif", LABEL * 0, **UTM))}
    said = Dataset(configure(train=[good], score=[score])).check()
    assert "to score on there are no labelled pixels of b, so they have no IoU unless predicted" in said


def test_the_sidecar_of_a_label_is_part_of_its_content(entry: Any, configure: Configure) -> None:
    labels = entry(LABEL + 1, nodata=7)
    config = configure(train=[labels], values={1: 0, 2: 1})
    before = Dataset(config).content()
    with rasterio.open(labels["label"], "r+") as file:
        file.nodata = 2
    assert Dataset(config).content() != before
