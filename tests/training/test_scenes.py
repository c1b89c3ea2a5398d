from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
import zarr
from helpers.cut_files import COLUMNS, PIXELS, ROWS, cut
from helpers.cut_files import write as write_at

from tilepipe.box import Box
from tilepipe.errors import InputError, UsageError
from tilepipe.training.config import TrainConfig
from tilepipe.training.dataset import Dataset
from tilepipe.training.loop import fit
from tilepipe.training.scenes import Scene, held, open_scenes

Write = Callable[..., Path]
Configure = Callable[..., TrainConfig]

RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.integers(0, 255, (3, 40, 56), dtype=np.uint8)
LABEL = RANDOM.integers(0, 2, (40, 56), dtype=np.uint8)
WHOLE = Box(0, 0, 40, 56)


def only(config: TrainConfig) -> Scene:
    (scene,) = open_scenes(config.train, config)
    return scene


def test_a_pair_of_rasters_is_read_as_rasterio_reads_it(write: Write, configure: Configure) -> None:
    entry = {"image": str(write("i.tif", IMAGE)), "label": str(write("l.tif", LABEL))}
    scene = only(configure(train=[entry]))
    for box in (WHOLE, Box(3, 5, 17, 50), Box(39, 55, 40, 56)):
        rows, columns = box.slices_in(WHOLE)
        np.testing.assert_array_equal(scene.image(box), IMAGE[:, rows, columns])
        np.testing.assert_array_equal(scene.label(box), LABEL[rows, columns])


def test_a_window_shows_nothing_beyond_it(write: Write, configure: Configure) -> None:
    entry = {
        "image": str(write("i.tif", IMAGE)),
        "label": str(write("l.tif", LABEL)),
        "rows": [8, 30],
        "columns": [4, 50],
    }
    scene = only(configure(train=[entry]))
    part, box = IMAGE[:, 8:30, 4:50], Box(-5, -7, 30, 60)
    wanted = np.pad(part, [(0, 0), (5, 8), (7, 14)], mode="reflect")
    np.testing.assert_array_equal(scene.image(box), wanted)
    labels = np.pad(LABEL[8:30, 4:50].astype(int), [(5, 8), (7, 14)], constant_values=-1)
    np.testing.assert_array_equal(scene.label(box), labels)
    assert scene.full == Box(8, 4, 30, 50)


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"values": {1: 0, 2: 1}, "ignore": [0]}, [-1, 0, 1]),
        ({"values": {0: 0}, "other": 1}, [0, 1, 1]),
        ({"values": {0: 1, 1: 0, 2: 0}}, [1, 0, 0]),
        ({"ignore": [2]}, [0, 1, -1]),
        ({"classes": ("a", "b", "c")}, [0, 1, 2]),
    ],
)
def test_values_become_classes(write: Write, configure: Configure, settings: dict[str, Any], wanted: list[int]) -> None:
    label = RANDOM.integers(0, 3, (40, 56), dtype=np.uint8)
    entry = {"image": str(write("i.tif", IMAGE)), "label": str(write("l.tif", label))}
    found = only(configure(train=[entry], **settings)).label(WHOLE)
    np.testing.assert_array_equal(found, np.array(wanted)[label])


def test_a_value_that_is_no_class_is_named(write: Write, configure: Configure) -> None:
    entry = {"image": str(write("i.tif", IMAGE)), "label": str(write("l.tif", LABEL + 6))}
    with pytest.raises(InputError, match=r"l\.tif holds the value [67], which is no class"):
        only(configure(train=[entry])).label(WHOLE)


def test_nodata_of_labels_and_of_the_image_is_ignored(write: Write, configure: Configure) -> None:
    image = IMAGE.copy()
    image[:, :5] = 0
    image[:, 5:] = np.maximum(image[:, 5:], 1)
    label = np.where(RANDOM.random((40, 56)) < 0.2, 99, LABEL).astype(np.uint8)
    entry = {"image": str(write("i.tif", image, nodata=0)), "label": str(write("l.tif", label, nodata=99))}
    found = only(configure(train=[entry])).label(WHOLE)
    wanted = np.where((label == 99) | (np.arange(40) < 5)[:, None], -1, LABEL.astype(int))
    np.testing.assert_array_equal(found, wanted)


def test_png_with_alpha_and_a_mask_beside_it(write: Write, configure: Configure) -> None:
    rgba = np.concatenate([IMAGE, np.full((1, 40, 56), 255, np.uint8)])
    entry = {"image": str(write("i.png", rgba)), "label": "{stem}_mask.png", "resolution": 0.25}
    write("i_mask.png", LABEL * 255)
    scene = only(configure(train=[entry], values={0: 0}, other=1, resolution=0.25, unit="um"))
    np.testing.assert_array_equal(scene.image(WHOLE), IMAGE)
    np.testing.assert_array_equal(scene.label(WHOLE), LABEL)
    assert scene.source.resolution is not None
    assert scene.source.resolution.unit == "um"


def test_patterns_find_images_and_leave_label_rasters_out(write: Write, configure: Configure, tmp_path: Path) -> None:
    for name in "abc":
        write(f"{name}.tif", IMAGE)
        write(f"{name}_label.tif", LABEL)
    config = configure(train=[{"image": str(tmp_path / "*.tif"), "label": "{stem}_label.tif"}])
    assert [Path(scene.name).name for scene in open_scenes(config.train, config)] == ["a.tif", "b.tif", "c.tif"]


def test_at_another_resolution_pixels_are_averaged_and_labels_taken_at_centres(
    write: Write, configure: Configure
) -> None:
    entry = {"image": str(write("i.tif", IMAGE)), "label": str(write("l.tif", LABEL)), "rows": [10, 30]}
    scene = only(configure(train=[entry], resolution=1.0))  # 0.5 m in the file
    assert scene.region.shape == (10, 28)
    means = IMAGE[:, 10:30].reshape(3, 10, 2, 28, 2).mean((2, 4))
    box = Box(0, 0, 10, 28)
    assert np.abs(scene.image(box) - means).max() <= 0.51
    np.testing.assert_array_equal(scene.label(box), LABEL[11:30:2, 1::2])
    both = Box(2, 3, 9, 20)
    np.testing.assert_array_equal(scene.label(both), scene.label(box)[both.slices_in(box)])


@pytest.mark.parametrize("resolution", [None, 0.8])
def test_holding_a_scene_in_memory_changes_nothing(
    write: Write, configure: Configure, resolution: float | None
) -> None:
    entry = {"image": str(write("i.tif", IMAGE)), "label": str(write("l.tif", LABEL)), "rows": [5, 33]}
    scene = only(configure(train=[entry], resolution=resolution))
    box = Box.of_shape(*scene.region.shape).pad(6)
    np.testing.assert_array_equal(held(scene).image(box), scene.image(box))
    np.testing.assert_array_equal(held(scene).label(box), scene.label(box))
    with rasterio.open(scene.name) as file:
        assert scene.full == Box(5, 0, 33, file.width)


SQUARES = [((10, 4), 12, 8), ((30, 20), 10, 15)]  # ((x, y), width, height) in pixels


def geojson(path: Path, to_map: Any, **extra: Any) -> Path:
    def ring(corner: tuple[int, int], width: int, height: int) -> list[list[float]]:
        x, y = corner
        corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height), (x, y)]
        return [list(to_map(cx, cy)) for cx, cy in corners]

    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [ring(*square)]},
            "properties": {"kind": kind},
        }
        for square, kind in zip(SQUARES, ("b", "c"), strict=True)
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features, **extra}))
    return path


def burnt(second: int) -> np.ndarray:
    wanted = np.zeros((40, 56), int)
    wanted[4:12, 10:22], wanted[20:35, 30:40] = 1, second
    return wanted


@pytest.mark.parametrize(("attribute", "second"), [(None, 1), ("kind", 2)])
@pytest.mark.parametrize("stated", [True, False])
def test_polygons_are_burnt_where_they_lie(
    write: Write, configure: Configure, tmp_path: Path, attribute: str | None, second: int, stated: bool
) -> None:
    image = write("i.tif", IMAGE)
    with rasterio.open(image) as file:
        transform, crs = file.transform, file.crs

    def to_map(x: float, y: float) -> tuple[float, float]:
        x, y = transform.c + x * transform.a, transform.f + y * transform.e
        if stated:
            return x, y
        (lon,), (lat,) = rasterio.warp.transform(crs, "OGC:CRS84", [x], [y])
        return lon, lat

    extra = {"crs": {"type": "name", "properties": {"name": "EPSG:32631"}}} if stated else {}
    entry = {
        "image": str(image),
        "label": str(geojson(tmp_path / "p.geojson", to_map, **extra)),
        "attribute": attribute,
    }
    scene = only(configure(train=[entry], classes=("a", "b", "c")))
    np.testing.assert_array_equal(scene.label(WHOLE), burnt(second))
    for box in (Box(5, 11, 6, 12), Box(11, 0, 25, 56), Box(36, 0, 40, 5)):
        np.testing.assert_array_equal(scene.label(box), burnt(second)[box.slices_in(WHOLE)])


def test_polygons_on_an_image_without_position_are_in_pixels(
    write: Write, configure: Configure, tmp_path: Path
) -> None:
    entry = {"image": str(write("i.png", IMAGE)), "label": str(geojson(tmp_path / "p.geojson", lambda x, y: (x, y)))}
    np.testing.assert_array_equal(only(configure(train=[entry])).label(WHOLE), burnt(1))


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("{}", "not GeoJSON"),
        ("[1]", "not GeoJSON"),
        ("nonsense", "not GeoJSON"),
        (None, "kind of polygons is 'b', 'c', which is none of a, z; add it to classes"),
        ('[{"geometry": {"type": "Point", "coordinates": [1, 2]}}]', "holds 1 Point and no polygon"),
    ],
)
def test_polygons_that_cannot_be_used(
    write: Write, configure: Configure, tmp_path: Path, label: str | None, words: str
) -> None:
    path = geojson(tmp_path / "p.geojson", lambda x, y: (x, y))
    if label is not None:
        path.write_text(label)
    entry = {"image": str(write("i.png", IMAGE)), "label": str(path), "attribute": "kind"}
    with pytest.raises(InputError, match=words):
        only(configure(train=[entry], classes=("a", "z")))


def test_files_that_do_not_fit(write: Write, configure: Configure) -> None:
    image, label = str(write("i.tif", IMAGE)), str(write("l.tif", LABEL[:-1]))
    with pytest.raises(InputError, match=r"l\.tif is \(1, 39, 56\) uint8, not one band .* on the \(40, 56\) pixels"):
        only(configure(train=[{"image": image, "label": label}]))
    with pytest.raises(InputError, match=r"none\.tif does not exist"):
        only(configure(train=[{"image": image, "label": "none.tif"}]))
    with pytest.raises(InputError, match=r"no image matches \S+\*\.jp2"):
        only(configure(train=[{"image": image.replace("i.tif", "*.jp2"), "label": "x"}]))
    write("l.tif", LABEL)
    with pytest.raises(UsageError, match=r"rows \(30, 41\).* not inside its 40 x 56"):
        only(configure(train=[{"image": image, "label": label, "rows": [30, 41]}]))


@pytest.mark.parametrize(("step", "right"), [(0.0, True), (0.4, True), (0.6, False), (300.0, False)])
def test_labels_of_another_place_are_refused(write: Write, configure: Configure, step: float, right: bool) -> None:
    moved = rasterio.Affine(0.5, 0, 5e5 + 0.5 * step, 0, -0.5, 5e6)
    entry = {"image": str(write("i.tif", IMAGE)), "label": str(write("l.tif", LABEL, transform=moved))}
    if right:
        np.testing.assert_array_equal(only(configure(train=[entry])).label(WHOLE), LABEL)
        return
    with pytest.raises(InputError, match=rf"l\.tif lies {step:.1f} pixels away from .*i\.tif"):
        only(configure(train=[entry]))


@pytest.mark.long
def test_footprints_burnt_on_the_fly_are_the_label_raster_of_banepa() -> None:
    folder = Path(os.environ.get("TILEPIPE_DATA", "../shared/data")) / "aerial_banepa"
    if not folder.exists():
        pytest.skip("needs the larger data in TILEPIPE_DATA")
    image = str(folder / "banepa_rgb.tif")
    fields = {"name": "m", "output": "m", "classes": ("a", "b")}
    boxes = [Box(0, 0, 1000, 3072), Box(2800, 100, 4096, 900)]
    rasters = only(TrainConfig(**fields, train=[{"image": image, "label": "banepa_buildings.tif"}]))
    vectors = only(TrainConfig(**fields, train=[{"image": image, "label": "banepa_buildings.geojson"}]))
    for box in boxes:
        assert (rasters.label(box) != vectors.label(box)).mean() < 2e-3


def ome_tiff(path: Path, *images: Any, axes: str = "CYX") -> Path:
    with tifffile.TiffWriter(path, ome=True) as file:
        for pixels in images:
            file.write(pixels, photometric="minisblack", metadata={"axes": axes})
    return path


def test_one_image_of_a_file_that_holds_several(write: Write, configure: Configure, tmp_path: Path) -> None:
    other = RANDOM.integers(0, 255, IMAGE.shape, dtype=np.uint8)
    path, label = ome_tiff(tmp_path / "two.ome.tif", IMAGE, other), str(write("l.tif", LABEL, crs=None, transform=None))
    for number, pixels in enumerate((IMAGE, other)):
        scene = only(configure(train=[{"image": str(path), "label": label, "scene": number}]))
        np.testing.assert_array_equal(scene.image(WHOLE), pixels)
        assert scene.notes == ()
    both = [{"image": str(path), "label": label, "scene": number} for number in (0, 1)]
    first, second = open_scenes(configure(train=both).train, configure(train=both))
    assert first.identity() != second.identity()
    assert not first.same_image(second)
    dataset = Dataset(configure(train=both[:1], validate=both[1:]))
    assert any("validate" in said for said in dataset.check())
    largest = {"image": str(path), "label": label}  # the first, as both are as large
    with pytest.raises(UsageError, match="validate and train share rows 0 to 40"):
        Dataset(configure(train=both[:1], validate=[largest])).check()
    with pytest.raises(UsageError, match="scene=0 to scene=1; scene=2"):
        only(configure(train=[{"image": str(path), "label": label, "scene": 2}]))


def test_one_plane_along_z_and_t(write: Write, configure: Configure, tmp_path: Path) -> None:
    stack = RANDOM.integers(0, 255, (2, 4, *IMAGE.shape), dtype=np.uint8)
    label = str(write("l.tif", LABEL, crs=None, transform=None))
    folder = tmp_path / "stack.zarr"
    zarr.create_array(str(folder), data=stack.transpose(0, 2, 1, 3, 4), chunks=(1, 3, 1, 40, 56))
    for path in (ome_tiff(tmp_path / "stack.ome.tif", stack, axes="TZCYX"), folder):
        scene = only(configure(train=[{"image": str(path), "label": label, "z": 3, "t": 1}]))
        np.testing.assert_array_equal(scene.image(WHOLE), stack[1, 3])
        with pytest.raises(InputError, match=r"4 planes along z; pick one"):
            only(configure(train=[{"image": str(path), "label": label, "t": 1}]))
    with pytest.raises(UsageError, match="has no planes along z; leave `z` out"):
        only(configure(train=[{"image": str(write("i.tif", IMAGE)), "label": str(write("l.tif", LABEL)), "z": 0}]))


def test_nothing_is_trained_into_what_is_read(configure: Configure, tmp_path: Path) -> None:
    pixels = RANDOM.integers(0, 255, IMAGE.shape, dtype=np.uint8)
    zarr.create_array(str(tmp_path / "i.zarr"), data=pixels, chunks=(3, 40, 56))
    zarr.create_array(str(tmp_path / "l.zarr"), data=LABEL, chunks=(40, 56))
    entry = {"image": str(tmp_path / "i.zarr"), "label": str(tmp_path / "l.zarr")}
    far = {"image": str(tmp_path / "far.tif"), "label": str(tmp_path / "far_label.tif")}
    for path in far.values():
        Path(path).touch()
    (tmp_path / "link").symlink_to(tmp_path / "i.zarr")
    for place in ("i.zarr/m.model", "i.zarr/deep/m.model", "l.zarr/m.model", "link/m.model"):
        for use in ("train", "score", "validate"):
            entries = {"train": [far], use: [entry]}
            with pytest.raises(UsageError, match=r"would be written over .*, which is read; give another output"):
                fit(configure(output=str(tmp_path / place), **entries))
    assert sorted(path.name for path in (tmp_path / "i.zarr").iterdir()) == ["c", "zarr.json"]


def test_a_folder_of_files_is_one_scene(tmp_path: Path, configure: Configure) -> None:
    folder = cut(tmp_path / "tiles", ROWS, COLUMNS, overlap=3)
    label = RANDOM.integers(0, 2, PIXELS.shape[1:], dtype=np.uint8)
    at_place = write_at(tmp_path / "l.tif", Box(0, 0, *label.shape), label[None])
    scene = only(configure(train=[{"image": str(folder), "label": str(at_place)}]))
    assert any("9 files" in note for note in scene.notes)
    box = Box(50, 60, 140, 200)
    np.testing.assert_array_equal(scene.image(box), PIXELS[:, 50:140, 60:200])
    np.testing.assert_array_equal(scene.label(box), label[50:140, 60:200])
