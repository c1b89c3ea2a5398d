"""The OME-Zarr against ome-zarr-models, zarr's own read and brute force."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from helpers.small_runs import CODES, segment
from helpers.small_runs import IMAGE as SMALL_IMAGE
from numpy.typing import NDArray
from ome_zarr_models.v05.image import Image
from ome_zarr_models.v05.image_label import ImageLabel
from ome_zarr_models.v05.labels import Labels
from rasterio.crs import CRS

import tilepipe as tp
from tilepipe.box import Box
from tilepipe.errors import InputError, UsageError
from tilepipe.execution.export import export
from tilepipe.planning.memory import format_bytes
from tilepipe.products.label_map import LabelMap, Legend, Measure, label_map_of
from tilepipe.products.ome_zarr import CHUNK, MEMORY, read_ome_zarr, write_ome_zarr
from tilepipe.sources.array import ArraySource
from tilepipe.sources.base import Georeference, Resolution
from tilepipe.testing import constant_model

LEGEND = Legend("nuclei / H&E", ("background", "tumour", "stroma"), ((9, 9, 9), (213, 94, 0), (0, 158, 115)), 255)


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint8]:
    labels = np.random.default_rng(0).choice([0, 1, 2, 255], (2500, 1801)).astype(np.uint8)
    labels[:1030, :1030] = 255
    return labels


@pytest.fixture(scope="module")
def written(pixels: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("zarr") / "a.ome.zarr"
    size, place = Resolution(0.5, 0.25, "um"), {"origin": (100, 7), "scale": (2.0, 1.0)}
    write_ome_zarr(label_map_of(pixels, LEGEND, resolution=size, **place), path)
    return path


def group_of(path: Path, inner: str = "/") -> zarr.Group:
    return zarr.open_group(path, mode="r", path=inner, zarr_format=3)


def test_ome_zarr_models_accepts_image_and_labels(written: Path) -> None:
    image = Image.from_zarr(group_of(written))
    assert [dataset.path for dataset in image.datasets[0]] == [f"labels/nuclei_H_E/{level}" for level in range(3)]
    assert image.labels is not None
    assert Labels.from_zarr(group_of(written, "labels")).label_paths == ["nuclei_H_E"]
    label = ImageLabel.from_zarr(group_of(written, "labels/nuclei_H_E")).attributes.ome
    assert len(label.multiscales[0].datasets) == len(image.datasets[0])
    assert [axis.name for axis in label.multiscales[0].axes] == ["y", "x"]
    assert [axis.unit for axis in label.multiscales[0].axes] == ["micrometer", "micrometer"]
    said = label.image_label
    assert {color.label_value: color.rgba for color in said.colors}[1] == (213, 94, 0, 255)
    assert {color.label_value: color.rgba for color in said.colors}[255] == (0, 0, 0, 0)
    assert {p.label_value: p.model_extra["class"] for p in said.properties}[2] == "stroma"


def halved_by_brute_force(labels: NDArray[Any]) -> NDArray[Any]:
    votes = np.zeros((3, -(-labels.shape[0] // 2), -(-labels.shape[1] // 2)), int)
    for value in range(3):
        for dy, dx in np.ndindex(2, 2):
            quarter = labels[dy::2, dx::2] == value
            votes[value, : quarter.shape[0], : quarter.shape[1]] += quarter
    return np.where(votes.sum(0) == 0, 255, votes.argmax(0))


def test_every_level_is_the_majority_of_the_one_before(written: Path, pixels: NDArray[np.uint8]) -> None:
    expected, level = pixels, 0
    while True:
        array = group_of(written)[f"labels/nuclei_H_E/{level}"]
        assert array.chunks == (CHUNK, CHUNK)
        assert array.fill_value == 255
        assert array.metadata.dimension_names == ("y", "x")
        np.testing.assert_array_equal(array[:], expected)
        if max(expected.shape) <= CHUNK:
            break
        expected, level = halved_by_brute_force(expected), level + 1
    assert level == 2


def test_levels_cover_the_same_tissue(written: Path) -> None:
    """The centre of a level's first pixel lies in the middle of the source pixels that it stands for."""
    said = group_of(written, "labels/nuclei_H_E").attrs["ome"]["multiscales"][0]
    assert said == {**group_of(written).attrs["ome"]["multiscales"][0], "datasets": said["datasets"]}
    for level, dataset in enumerate(said["datasets"]):
        scale, translation = dataset["coordinateTransformations"]
        assert scale["scale"] == [0.5 * 2**level, 0.25 * 2**level]
        covered = np.arange(2 * 2**level) + 100, np.arange(2**level) + 7  # rows, columns of the slide
        assert translation["translation"] == [covered[0].mean() * 0.25, covered[1].mean() * 0.25]


def test_whole_map_is_moved_by_half_pixels_only(tmp_path: Path) -> None:
    labels = np.zeros((CHUNK + 1, 3), np.uint8)
    write_ome_zarr(label_map_of(labels, LEGEND, resolution=Resolution(2.0, 3.0)), tmp_path / "a.zarr")
    said = group_of(tmp_path / "a.zarr").attrs["ome"]["multiscales"][0]
    assert [axis["unit"] for axis in said["axes"]] == ["meter", "meter"]
    moved = [dataset["coordinateTransformations"][1]["translation"] for dataset in said["datasets"]]
    assert moved == [[0.0, 0.0], [1.0, 1.5]]


@pytest.mark.parametrize("shape", [(1, 1), (1, CHUNK + 1), (CHUNK, CHUNK)], ids=str)
def test_small_and_narrow_maps(tmp_path: Path, shape: tuple[int, int]) -> None:
    labels = np.random.default_rng(1).integers(0, 3, shape).astype(np.uint16)
    legend = Legend("...", ("a", "b", "c"), LEGEND.palette, 65535)
    write_ome_zarr(label_map_of(labels, legend), tmp_path / "a.zarr")
    Image.from_zarr(group_of(tmp_path / "a.zarr"))
    read = read_ome_zarr(tmp_path / "a.zarr")
    assert (read.dtype, read.legend, read.resolution) == (np.uint16, legend, None)
    np.testing.assert_array_equal(read.read(Box.of_shape(*shape)), labels)


def test_read_back_is_the_label_map(written: Path, pixels: NDArray[np.uint8]) -> None:
    read = pickle.loads(pickle.dumps(read_ome_zarr(written)))
    np.testing.assert_array_equal(read.read(Box(1000, 5, 2500, 1801)), pixels[1000:, 5:])
    assert read.legend == LEGEND
    assert (read.resolution, read.origin, read.scale) == (Resolution(0.5, 0.25, "um"), (100, 7), (2.0, 1.0))


def test_nodata_takes_no_room(written: Path) -> None:
    chunks = {str(file.relative_to(written)) for file in written.rglob("c/*/*")}
    assert "labels/nuclei_H_E/0/c/0/0" not in chunks
    assert "labels/nuclei_H_E/0/c/0/1" in chunks


def test_failures_leave_nothing_and_existing_folders_alone(tmp_path: Path, written: Path) -> None:
    def read(box: Box) -> NDArray[np.uint8]:
        if box.y0:
            raise InputError("chunk 1/0 is damaged")
        return np.zeros(box.shape, np.uint8)

    labels = LabelMap((2 * CHUNK, 5), np.dtype(np.uint8), LEGEND, read, (512, 512))
    with pytest.raises(InputError, match="damaged"):
        write_ome_zarr(labels, tmp_path / "a.zarr")
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match="exists"):
        write_ome_zarr(labels, written)


def test_a_damaged_chunk_is_named(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    path = tmp_path / "small.ome.zarr"
    write_ome_zarr(label_map_of(pixels[1100:1200, 1100:1200], LEGEND), path)
    (chunk,) = (file for file in path.rglob("*") if file.is_file() and file.suffix != ".json")
    chunk.write_bytes(chunk.read_bytes()[:20])
    with pytest.raises(InputError, match=r"cannot be read: .*it may be damaged"):
        read_ome_zarr(path).read(Box(0, 0, 10, 10))


def test_other_folders_are_refused(tmp_path: Path) -> None:
    zarr.create_group(tmp_path / "a.zarr")
    for name in ("a.zarr", "not there"):
        with pytest.raises(InputError, match="no label map that tilepipe wrote"):
            read_ome_zarr(tmp_path / name)


MEASURE = """
import resource, sys
from pathlib import Path
import numpy as np
from tilepipe.products.ome_zarr import write_ome_zarr
from tilepipe.products.label_map import LabelMap, Legend, Measure, label_map_of
legend = Legend("noise", tuple("abcde"), ((1, 1, 1),) * 5, 255)
def read(box):
    return np.random.default_rng(box.y0 * 99991 + box.x0).integers(0, 5, box.shape, dtype=np.uint8)
write_ome_zarr(label_map_of(np.zeros((5, 5), np.uint8), legend), Path(sys.argv[1]) / "small.zarr")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
write_ome_zarr(LabelMap((6000, 5000), np.dtype(np.uint8), legend, read, (1024, 1024)), Path(sys.argv[1]) / "large.zarr")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.long
def test_memory_is_bounded(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", MEASURE, str(tmp_path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < MEMORY


@pytest.mark.parametrize(
    "place",
    [
        None,
        Georeference(CRS.from_epsg(32645).to_wkt(), (0.1, 0.2, 335000.1, 1 / 3, -0.3, 3058000.7)),
        Georeference(None, (1e-9, 0.0, -54.123456789, 0.0, -8.9e-05, 1e300)),
        Georeference(CRS.from_epsg(4326).to_wkt(), None, ((0.5, 1.0, 7.1, 50.2, 0.0),), (("LINE_OFF", "3"),)),
    ],
)
@pytest.mark.parametrize("measure", [None, Measure(1 / 254, "margin")])
def test_the_position_is_read_back_bit_for_bit(place: Any, measure: Any, tmp_path: Path) -> None:
    legend = replace(LEGEND, measure=measure)
    write_ome_zarr(label_map_of(np.zeros((4, 5), np.uint8), legend, georeference=place), tmp_path / "a.ome.zarr")
    assert read_ome_zarr(tmp_path / "a.ome.zarr").georeference == place


@pytest.mark.parametrize("transform", [[1, 2], [1, 0, float("nan"), 0, 1, 0], "north"])
def test_a_position_that_is_none_is_refused(transform: Any, tmp_path: Path) -> None:
    place = Georeference(None, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0))
    write_ome_zarr(label_map_of(np.zeros((4, 5), np.uint8), LEGEND, georeference=place), tmp_path / "a.ome.zarr")
    group = zarr.open_group(tmp_path / "a.ome.zarr", path="labels/nuclei_H_E", zarr_format=3)
    said: Any = group.attrs["tilepipe"]
    group.attrs["tilepipe"] = {**said, "georeference": {**said["georeference"], "transform": transform}}
    with pytest.raises(InputError, match="no label map that tilepipe wrote"):
        read_ome_zarr(tmp_path / "a.ome.zarr")


def test_the_image_is_not_black_and_the_background_hides_nothing(written: Path) -> None:
    """Without an image of its own the root shows the labels in shades of grey."""
    (channel,) = group_of(written).attrs["ome"]["omero"]["channels"]
    assert channel["active"]
    assert (channel["window"]["start"], channel["window"]["end"]) == (0, 2)
    colors = group_of(written, "labels/nuclei_H_E").attrs["ome"]["image-label"]["colors"]
    assert [color["rgba"][3] for color in colors] == [0, 255, 255, 0]


def test_a_class_0_that_is_no_background_is_seen(tmp_path: Path) -> None:
    legend = replace(LEGEND, classes=("water", "wood", "town"))
    write_ome_zarr(label_map_of(np.zeros((5, 6), np.uint8), legend), tmp_path / "a.zarr")
    colors = group_of(tmp_path / "a.zarr", "labels/nuclei_H_E").attrs["ome"]["image-label"]["colors"]
    assert colors[0]["rgba"] == [9, 9, 9, 255]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_the_image_lies_beside_its_labels(tmp_path: Path, dtype: str, scale: float) -> None:
    height, width = CHUNK + 30, 700
    pixels = np.random.default_rng(0).integers(0, 200, (3, 2800, 1900)).astype(dtype)
    place = {"origin": (40, 30), "scale": (scale, scale), "resolution": Resolution(0.5 * scale, 0.5 * scale, "um")}
    labels = label_map_of(np.ones((height, width), np.uint8), LEGEND, **place)
    write_ome_zarr(labels, tmp_path / "a.zarr", ArraySource(pixels))
    image = Image.from_zarr(group_of(tmp_path / "a.zarr"))
    assert image.labels is not None
    label = ImageLabel.from_zarr(group_of(tmp_path / "a.zarr", "labels/nuclei_H_E")).attributes.ome
    rows, columns = (np.floor(s + (np.arange(n) + 0.5) * scale).astype(int) for s, n in ((40, height), (30, width)))
    expected = pixels[:, rows][:, :, columns]
    for level, (own, of_labels) in enumerate(zip(image.datasets[0], label.multiscales[0].datasets, strict=True)):
        found = np.asarray(group_of(tmp_path / "a.zarr")[str(level)])
        np.testing.assert_array_equal(found, expected)
        assert found.shape[1:] == group_of(tmp_path / "a.zarr", "labels/nuclei_H_E")[str(level)].shape
        for of_image, of_label in zip(own.coordinateTransformations, of_labels.coordinateTransformations, strict=True):
            assert list(of_image.model_dump().values())[1][1:] == list(of_label.model_dump().values())[1]
        whole = np.pad(expected.astype(float), ((0, 0), (0, expected.shape[1] % 2), (0, expected.shape[2] % 2)), "edge")
        mean = sum(whole[:, y::2, x::2] for y in range(2) for x in range(2)) / 4
        expected = (mean if dtype == "float32" else np.floor(mean + 0.5)).astype(dtype)
    channels = image.attributes.ome.omero["channels"]
    assert [one["color"] for one in channels] == ["FF0000", "00FF00", "0000FF"]
    assert all(one["window"]["end"] > one["window"]["start"] >= 0 for one in channels)
    assert np.asarray(read_ome_zarr(tmp_path / "a.zarr").read(Box(0, 0, 3, 4))).tolist() == [[1] * 4] * 3


@pytest.mark.parametrize(("dtype", "bands"), [("uint8", 3), ("float32", 2)])
def test_the_plan_counts_the_image_beside_the_labels(dtype: str, bands: int, tmp_path: Path) -> None:
    """Noise hardly compresses, so the folder is nearly as large as the plan says; nothing else of the plan changes."""
    pixels = np.random.default_rng(0).integers(0, 255, (bands, 2100, 1500)).astype(dtype)
    pixels += np.random.default_rng(1).random(pixels.shape).astype(dtype)
    image, model = ArraySource(pixels), constant_model(0.25, 0.75, bands=bands, halo=0)
    asked: dict[str, Any] = {"tile": 512, "of": "ome-zarr"}
    without, beside = (tp.plan(image, model, **asked, with_image=chosen) for chosen in (False, True))
    assert beside == without
    assert beside.key({}, "") == without.key({}, "")
    assert beside.disk() - without.disk() == pytest.approx(pixels.nbytes * 4 / 3, rel=0.01)
    row = next(row for row in beside.fit_table if row.name == "disk")
    assert f"at most {format_bytes(beside.disk())}" in row.text + str(beside)
    tp.segment(image, model, tmp_path / "a.ome.zarr", **asked, with_image=True, listener=lambda _: None)
    taken = sum(file.stat().st_size for file in (tmp_path / "a.ome.zarr").rglob("*") if file.is_file())
    assert 0.6 * pixels.nbytes < taken < beside.disk()


def test_a_run_and_an_export_with_the_image(tmp_path: Path) -> None:
    run = segment(tmp_path / "a.ome.zarr", with_image=True)
    np.testing.assert_array_equal(np.asarray(group_of(run.paths[0])["0"])[0], CODES)
    with pytest.raises(UsageError, match="give it as `image`"):
        export(run.paths[0], tmp_path / "b.ome.zarr", with_image=True)
    (again,) = export(run.paths[0], tmp_path / "b.ome.zarr", image=SMALL_IMAGE, with_image=True)
    np.testing.assert_array_equal(np.asarray(group_of(again)["0"])[0], CODES)
    with pytest.raises(UsageError, match="changes an OME-Zarr, and none are written"):
        segment(tmp_path / "c.tif", with_image=True)
