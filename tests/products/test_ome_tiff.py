"""OME-TIFF labels against tifffile, GDAL, OpenSlide, our own reader of images and the COG's majorities."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import openslide
import pytest
import rasterio
import tifffile
from helpers.full_disk import check_full_disk
from helpers.small_runs import CODES, IMAGE, segment
from numpy.typing import NDArray
from rasterio.crs import CRS

from tilepipe.box import Box
from tilepipe.errors import InputError, StorageError
from tilepipe.evaluation.accuracy.evaluate import evaluate
from tilepipe.evaluation.verify.verify import verify
from tilepipe.execution.export import export
from tilepipe.products.formats import product_of
from tilepipe.products.label_map import LabelMap, Legend, Measure, label_map_of
from tilepipe.products.labels import open_labels, open_map
from tilepipe.products.ome_tiff import MEMORY, read_ome_tiff, write_ome_tiff
from tilepipe.products.pyramid import average, majority
from tilepipe.sources.base import Georeference, Resolution
from tilepipe.testing import codes_model

LEGEND = Legend(
    'wood & "land"', ("background", "roof <flat>", "wöod"), ((30, 30, 30), (213, 94, 0), (0, 158, 115)), 255
)
UTM = Georeference(CRS.from_epsg(32645).to_wkt(), (0.3, 0.1, 300000.1, 0.1, -0.3, 3000000.7))


def labels_like(shape: tuple[int, int], dtype: str = "uint8") -> NDArray[np.integer]:
    coarse = np.random.default_rng(0).choice([0, 1, 2, np.iinfo(dtype).max], (shape[0] // 7 + 1, shape[1] // 7 + 1))
    return np.kron(coarse, np.ones((7, 7)))[: shape[0], : shape[1]].astype(dtype)


def map_of(shape: tuple[int, int], **fields: object) -> LabelMap:
    return label_map_of(labels_like(shape), LEGEND, resolution=Resolution(0.5, 0.25, "um"), **fields)


@pytest.mark.parametrize("shape", [(1, 1), (512, 512), (1301, 1100), (3, 1500), (1500, 1)], ids=str)
def test_tifffile_reads_every_level(tmp_path: Path, shape: tuple[int, int]) -> None:
    write_ome_tiff(map_of(shape), tmp_path / "a.ome.tif")
    labels = labels_like(shape)
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        (series,) = file.series
        assert (series.kind, series.axes) == ("ome", "YX")
        for level in series.levels:
            np.testing.assert_array_equal(level.asarray(), labels)
            labels = majority(labels, 255)
        assert max(level.shape) <= 512 or shape[1] == 1
        assert file.pages.first.is_tiled


def test_the_ome_xml_says_size_and_names(tmp_path: Path) -> None:
    write_ome_tiff(map_of((40, 50)), tmp_path / "a.ome.tif")
    root = ElementTree.fromstring(tifffile.TiffFile(tmp_path / "a.ome.tif").ome_metadata or "")
    (pixels,), (image,) = root.findall(".//{*}Pixels"), root.findall("{*}Image")
    assert image.get("Name") == LEGEND.name
    assert {key: pixels.get(key) for key in ("SizeX", "SizeY", "Type", "PhysicalSizeX", "PhysicalSizeY")} == {
        "SizeX": "50", "SizeY": "40", "Type": "uint8", "PhysicalSizeX": "0.25", "PhysicalSizeY": "0.5",
    }  # fmt: skip
    names = {entry.get("K"): entry.text for entry in root.iterfind(".//{*}MapAnnotation/{*}Value/{*}M")}
    assert [names[f"class {value}"] for value in range(3)] == list(LEGEND.classes)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_gdal_and_openslide_see_the_colours(tmp_path: Path) -> None:
    path, labels = tmp_path / "a.ome.tif", labels_like((600, 700))
    write_ome_tiff(map_of((600, 700)), path)
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(1), labels)
        assert [file.colormap(1)[value][:3] for value in range(3)] == list(LEGEND.palette)
    with openslide.OpenSlide(path) as slide:
        seen = np.asarray(slide.read_region((0, 0), 0, (700, 600)))[..., :3]
        assert float(slide.properties["openslide.level[0].width"]) == 700
    np.testing.assert_array_equal(seen, np.array([*LEGEND.palette, (0, 0, 0)])[np.minimum(labels, 3)])


@pytest.mark.parametrize("place", [None, UTM])
def test_read_again_with_everything(tmp_path: Path, place: Georeference | None) -> None:
    labels = map_of((600, 700), georeference=place, origin=(100, 200), scale=(2.0, 2.0), frame=(5, 6))
    write_ome_tiff(labels, tmp_path / "a.ome.tif")
    found = open_map(tmp_path / "a.ome.tif")
    for name in ("shape", "dtype", "legend", "resolution", "georeference", "origin", "scale", "frame"):
        assert getattr(found, name) == getattr(labels, name), name
    np.testing.assert_array_equal(found.read(Box(3, 5, 599, 700)), labels.read(Box(3, 5, 599, 700)))


def test_many_classes_and_layers(tmp_path: Path) -> None:
    wide = Legend("w", tuple(map(str, range(300))), ((1, 2, 3),) * 300, 65535)
    labels = np.random.default_rng(0).choice([0, 299, 65535], (600, 40)).astype(np.uint16)
    write_ome_tiff(label_map_of(labels, wide), tmp_path / "w.ome.tif")
    np.testing.assert_array_equal(np.asarray(open_labels(tmp_path / "w.ome.tif")), labels)
    margin = np.random.default_rng(0).integers(0, 256, (600, 40)).astype(np.uint8)
    write_ome_tiff(
        label_map_of(margin, Legend("margin", (), (), 255, Measure(1 / 254, "how sure"))), tmp_path / "m.tif"
    )
    with tifffile.TiffFile(tmp_path / "m.tif") as file:
        np.testing.assert_array_equal(file.series[0].levels[1].asarray(), average(margin, 255))
    with pytest.raises(InputError, match="holds the layer margin and no labels"):
        open_labels(tmp_path / "m.tif")


def test_a_run_an_export_verify_and_evaluate(tmp_path: Path) -> None:
    assert product_of(Path("a.labels.OME.TIF")) == "ome-tiff"
    result = segment(tmp_path / "a.ome.tif", of="ome-tiff,csv", layers="margin")
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == ["a.csv", "a.margin.ome.tif", "a.ome.tif"]
    np.testing.assert_array_equal(np.asarray(result.labels), CODES)
    before = (tmp_path / "a.ome.tif").read_bytes()
    assert verify(tmp_path / "a.ome.tif", IMAGE, codes_model(4), windows=0).holds
    export(tmp_path / "a.ome.tif", tmp_path / "b.tif")
    export(tmp_path / "b.tif", tmp_path / "b.ome.tif")
    assert (tmp_path / "b.ome.tif").read_bytes() == before, "the same labels give the same bytes"
    assert evaluate(tmp_path / "a.ome.tif", tmp_path / "b.tif").to_json()["mean_iou"] == 1


def test_other_files_are_not_taken_for_label_maps(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, np.zeros((20, 30), np.uint8), ome=True, metadata={"axes": "YX"})
    with pytest.raises(InputError, match="not a label map of tilepipe"):
        read_ome_tiff(path)
    with pytest.raises(InputError):
        open_labels(path)
    write_ome_tiff(map_of((600, 700)), tmp_path / "b.ome.tif")
    whole = (tmp_path / "b.ome.tif").read_bytes()
    for damaged in (b"", whole[:100], whole[: len(whole) // 2], whole.replace(b"tilepipe&", b"tilepipe<")):
        path.write_bytes(damaged)
        try:
            read_ome_tiff(path).read(Box(0, 0, 600, 700))
        except InputError:
            continue
        assert damaged == whole


def test_a_full_disk_is_noticed_wherever_it_strikes(tmp_path: Path) -> None:
    check_full_disk("tilepipe.products.ome_tiff:write_ome_tiff", tmp_path / "a.tif", [0, 20_000, 200_000, 280_000])


def test_what_is_read_back_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tilepipe.products.ome_tiff._tiles", lambda *_: iter([np.zeros((512, 512), np.uint8)]))
    with pytest.raises(StorageError, match="read back differs"):
        write_ome_tiff(map_of((40, 50)), tmp_path / "a.ome.tif")
    assert not list(tmp_path.iterdir())


MEASURE = """
import resource, sys
from pathlib import Path
import numpy as np
from tilepipe.products.ome_tiff import write_ome_tiff
from tilepipe.products.label_map import LabelMap, Legend, label_map_of
legend = Legend("noise", tuple("abcde"), ((1, 1, 1),) * 5, 255)
def read(box):
    coarse = np.random.default_rng(box.y0 * 99991 + box.x0).integers(0, 5, (box.height // 6 + 1, box.width // 6 + 1))
    return np.repeat(np.repeat(coarse.astype(np.uint8), 6, 0), 6, 1)[: box.height, : box.width]
write_ome_tiff(label_map_of(np.zeros((5, 5), np.uint8), legend), Path(sys.argv[1]) / "small.tif")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
side = int(sys.argv[2])
write_ome_tiff(LabelMap((side, side), np.dtype(np.uint8), legend, read, (2048, 2048)), Path(sys.argv[1]) / "large.tif")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.parametrize("side", [2048, pytest.param(16384, marks=pytest.mark.long)])
def test_memory_is_bounded(tmp_path: Path, side: int) -> None:
    command = [sys.executable, "-c", MEASURE, str(tmp_path), str(side)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < MEMORY
