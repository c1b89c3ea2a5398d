"""The COG against rasterio's own read, rio-cogeo's validation and brute force."""

from __future__ import annotations

import itertools
import pickle
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from helpers.full_disk import check_full_disk
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.crs import CRS
from rio_cogeo.cogeo import cog_validate

from tilepipe.box import Box
from tilepipe.errors import InputError, StorageError, UsageError
from tilepipe.products.cog import MEMORY, read_cog, write_cog
from tilepipe.products.label_map import LabelMap, Legend, label_map_of
from tilepipe.products.pyramid import halvings, majority
from tilepipe.sources.base import Georeference, Resolution

LEGEND = Legend(
    "land & cover", ("background", "roof <flat>", "wood"), ((217, 217, 217), (213, 94, 0), (0, 158, 115)), 255
)
UTM, LONLAT = CRS.from_epsg(32645).to_wkt(), CRS.from_epsg(4326).to_wkt()
PLACES = {
    "north-up": Georeference(UTM, (0.3, 0.0, 300000.1, 0.0, -0.3, 3000000.7)),
    "rotated": Georeference(UTM, (0.3, 0.2, 300000.0, 0.2, -0.3, 3000000.0)),
    "south-up": Georeference(UTM, (0.5, 0.0, 300000.0, 0.0, 0.5, 3000000.0)),
    "geographic": Georeference(LONLAT, (1 / 10800, 0.0, 85.1, 0.0, -1 / 9999, 27.7)),
    "flipped identity": Georeference(UTM, (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)),
    "transform only": Georeference(None, (0.5, 0.0, 300000.0, 0.0, -0.5, 3000000.0)),
    "crs only": Georeference(UTM),
    "gcps": Georeference(
        LONLAT, None, ((0, 0, 85, 27, 0), (0, 90.5, 86, 27.1, 0), (70, 0, 85.1, 26, 0), (70, 90, 86.1, 26.1, 3))
    ),
    "not in GeoTIFF keys": Georeference(
        CRS.from_wkt('LOCAL_CS["site",LOCAL_DATUM["unknown",32767],UNIT["metre",1]]').to_wkt(), (2.0, 0, 5, 0, -2.0, 7)
    ),
    "none": None,
}


def labels_like(shape: tuple[int, int], dtype: str = "uint8", seed: int = 0) -> NDArray[np.integer]:
    """Regions of labels 0 to 2 with holes of nodata."""
    rng = np.random.default_rng(seed)
    nodata = np.iinfo(dtype).max
    coarse = rng.choice([0, 1, 2, nodata], size=(shape[0] // 7 + 1, shape[1] // 7 + 1), p=[0.4, 0.3, 0.2, 0.1])
    return np.kron(coarse, np.ones((7, 7)))[: shape[0], : shape[1]].astype(dtype)


def assert_valid(path: Path) -> None:
    assert cog_validate(path, strict=True, quiet=True) == (True, [], [])


@pytest.mark.parametrize("name", PLACES)
def test_pixels_and_position_are_kept_to_the_last_bit(tmp_path: Path, name: str) -> None:
    labels = labels_like((700, 905))
    write_cog(label_map_of(labels, LEGEND, georeference=PLACES[name]), tmp_path / "labels.tif")
    read = read_cog(tmp_path / "labels.tif")
    np.testing.assert_array_equal(read.read(Box.of_shape(700, 905)), labels)
    place, found = PLACES[name] or Georeference(), read.georeference or Georeference()
    assert found.transform == place.transform
    assert found.gcps == place.gcps
    assert (found.crs and CRS.from_wkt(found.crs)) == (place.crs and CRS.from_wkt(place.crs))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["labels.qml", "labels.tif", "labels.tif.aux.xml"]


@pytest.mark.parametrize("shape", [(1, 1), (512, 512), (513, 514), (1, 3000), (2000, 2), (1300, 1100)], ids=str)
def test_is_a_valid_cog_whatever_the_size(tmp_path: Path, shape: tuple[int, int]) -> None:
    write_cog(label_map_of(labels_like(shape), LEGEND, georeference=PLACES["north-up"]), tmp_path / "a.tif")
    assert_valid(tmp_path / "a.tif")


def test_one_pixel_wide_has_no_overviews_that_would_be_as_wide(tmp_path: Path) -> None:
    write_cog(label_map_of(labels_like((1500, 1)), LEGEND, georeference=PLACES["north-up"]), tmp_path / "a.tif")
    valid, errors, _ = cog_validate(tmp_path / "a.tif", quiet=True)
    assert valid
    assert not errors


def test_gdal_reads_colours_names_and_nodata(tmp_path: Path) -> None:
    write_cog(label_map_of(labels_like((30, 40)), LEGEND, georeference=PLACES["rotated"]), tmp_path / "a.tif")
    with rasterio.open(tmp_path / "a.tif") as file:
        colors = file.colormap(1)
        assert [colors[value][:3] for value in range(3)] == list(LEGEND.palette)
        assert file.nodata == 255
        assert file.descriptions == ("land & cover",)
        assert file.tags(1)["CLASS_1"] == "roof <flat>"
        assert [Path(side).name for side in file.files] == ["a.tif", "a.tif.aux.xml"]
        # A VRT copy shows what GDAL itself (and so QGIS) understood of the side file.
        rasterio.shutil.copy(file, tmp_path / "a.vrt", driver="VRT")
    said = (tmp_path / "a.vrt").read_text()
    assert "<Category>roof &lt;flat&gt;</Category>" in said
    assert "<F>roof &lt;flat&gt;</F>" in said
    assert "<F>213</F>" in said


def gdal_counts(path: Path) -> list[float]:
    """Return the counts of the attribute table that GDAL finds, as a VRT copy shows them."""
    with rasterio.open(path) as file:
        rasterio.shutil.copy(file, path.with_suffix(".vrt"), driver="VRT")
    table = ElementTree.parse(path.with_suffix(".vrt")).find(".//GDALRasterAttributeTable")
    assert table is not None
    names = [field.findtext("Name") for field in table.iter("FieldDefn")]
    return [float(row.findall("F")[names.index("Count")].text or "") for row in table.iter("Row")]


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_the_attribute_table_counts_pixels(tmp_path: Path, dtype: str) -> None:
    labels = labels_like((700, 600), dtype)
    legend = replace(LEGEND, nodata=int(np.iinfo(dtype).max))
    write_cog(label_map_of(labels, legend, georeference=PLACES["north-up"]), tmp_path / "a.tif")
    assert gdal_counts(tmp_path / "a.tif") == [(labels == value).sum() for value in range(3)]


def test_overviews_are_majorities_without_nodata(tmp_path: Path) -> None:
    labels = np.random.default_rng(3).choice([0, 1, 2, 255], (1301, 1100)).astype(np.uint8)
    write_cog(label_map_of(labels, LEGEND, georeference=PLACES["south-up"]), tmp_path / "a.tif")
    for level in range(2):
        labels = majority(labels, 255)
        with rasterio.open(tmp_path / "a.tif", overview_level=level) as file:
            np.testing.assert_array_equal(file.read(1), labels)
    assert max(labels.shape) <= 512


def test_uint16_keeps_its_palette(tmp_path: Path) -> None:
    many = Legend(
        "many", tuple(f"class {k}" for k in range(300)), tuple((k % 256, k // 2, 7) for k in range(300)), 65535
    )
    labels = np.arange(600 * 700).reshape(600, 700) % 300
    write_cog(label_map_of(labels.astype(np.uint16), many, georeference=PLACES["north-up"]), tmp_path / "a.tif")
    assert_valid(tmp_path / "a.tif")
    read = read_cog(tmp_path / "a.tif")
    assert (read.dtype, read.legend) == (np.uint16, many)
    np.testing.assert_array_equal(read.read(Box.of_shape(600, 700)), labels)
    with rasterio.open(tmp_path / "a.tif") as file:
        assert file.colormap(1)[299] == (43, 149, 7, 255)
        assert file.nodata == 65535


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 1200), st.integers(1, 1200), st.integers(1, 900), st.integers(0, 99))
def test_any_size_and_block_gives_the_same_pixels(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, block: int, seed: int
) -> None:
    path, labels = tmp_path_factory.mktemp("cog") / "a.tif", labels_like((height, width), seed=seed)
    write_cog(label_map_of(labels, LEGEND, block=(block, block)), path)
    np.testing.assert_array_equal(read_cog(path).read(Box.of_shape(height, width)), labels)


def test_what_it_carries_comes_back(tmp_path: Path) -> None:
    facts = {"resolution": Resolution(0.5, 0.25, "um"), "origin": (100, 7), "scale": (2.0, 1.9999)}
    write_cog(label_map_of(labels_like((5, 9)), LEGEND, **facts), tmp_path / "a.tif")
    read = pickle.loads(pickle.dumps(read_cog(tmp_path / "a.tif")))
    assert {name: getattr(read, name) for name in facts} == facts
    assert read.legend == LEGEND
    assert read.georeference is None


def test_reads_of_many_threads_agree(tmp_path: Path) -> None:
    labels = labels_like((1500, 1500))
    write_cog(label_map_of(labels, LEGEND, georeference=PLACES["north-up"]), tmp_path / "a.tif")
    read, wrong = read_cog(tmp_path / "a.tif"), []

    def check(start: int) -> None:
        for y, x in itertools.product(range(start, 1100, 333), repeat=2):
            if not np.array_equal(read.read(Box(y, x, y + 300, x + 200)), labels[y : y + 300, x : x + 200]):
                wrong.append((y, x))

    threads = [threading.Thread(target=check, args=(start,)) for start in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_an_existing_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"mine")
    with pytest.raises(UsageError, match="exists"):
        write_cog(label_map_of(labels_like((5, 9)), LEGEND), tmp_path / "a.tif")
    assert (tmp_path / "a.tif").read_bytes() == b"mine"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_failing_read_leaves_nothing(tmp_path: Path) -> None:
    def read(box: Box) -> NDArray[np.integer]:
        if box.y0:
            raise InputError("chunk 0/1 is damaged")
        return np.zeros(box.shape, np.uint8)

    labels = LabelMap((2000, 600), np.dtype(np.uint8), LEGEND, read, (512, 512))
    with pytest.raises(InputError, match="damaged"):
        write_cog(labels, tmp_path / "a.tif")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file"):
        write_cog(label_map_of(labels_like((5, 9)), LEGEND), tmp_path / "not there" / "a.tif")


def test_a_full_disk_is_noticed_wherever_it_strikes(tmp_path: Path) -> None:
    check_full_disk("tilepipe.products.cog:write_cog", tmp_path / "a.tif", [0, 600, 20_000, 100_000, 200_000, 250_000])


def test_a_lost_transform_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tilepipe.products.tiff_levels.Affine", lambda *_: rasterio.Affine(1, 0, 5, 0, -1, 5))
    with pytest.raises(StorageError, match="transform"):
        write_cog(label_map_of(labels_like((5, 9)), LEGEND, georeference=PLACES["north-up"]), tmp_path / "a.tif")
    assert not list(tmp_path.iterdir())


def test_another_tiff_is_not_taken_for_a_label_map(tmp_path: Path) -> None:
    with rasterio.open(
        tmp_path / "a.tif",
        "w",
        driver="GTiff",
        width=9,
        height=5,
        count=1,
        dtype="uint8",
        **{"crs": UTM, "transform": rasterio.Affine(1, 0, 5, 0, -1, 5)},
    ):
        pass
    with pytest.raises(InputError, match="not a label map"):
        read_cog(tmp_path / "a.tif")
    (tmp_path / "b.tif").write_text("no image")
    with pytest.raises(InputError, match="cannot be opened"):
        read_cog(tmp_path / "b.tif")
    with pytest.raises(InputError, match="cannot be opened"):
        read_cog(tmp_path / "c.tif")


def brute_majority(four: tuple[int, ...]) -> int:
    votes = [label for label in four if label != 255]
    return min(set(votes), key=lambda label: (-votes.count(label), label)) if votes else 255


def test_majority_of_every_four_labels() -> None:
    fours = list(itertools.product([0, 1, 2, 3, 255], repeat=4))
    pixels = np.array(fours, np.uint8).reshape(-1, 2, 2).transpose(1, 0, 2).reshape(2, -1)
    assert majority(pixels, 255)[0].tolist() == [brute_majority(four) for four in fours]


def test_odd_sizes_round_up() -> None:
    assert halvings((1301, 3), 512) == [(1301, 3), (651, 2), (326, 1)]
    assert majority(np.array([[3, 2, 255]], np.uint8), 255).tolist() == [[2, 255]]


MEASURE = """
import resource, sys
from pathlib import Path
import numpy as np
from tilepipe.products.cog import write_cog
from tilepipe.products.label_map import LabelMap, Legend, label_map_of
legend = Legend("noise", tuple("abcde"), ((1, 1, 1),) * 5, 255)
def read(box):
    coarse = np.random.default_rng(box.y0 * 99991 + box.x0).integers(0, 5, (box.height // 6 + 1, box.width // 6 + 1))
    return np.repeat(np.repeat(coarse.astype(np.uint8), 6, 0), 6, 1)[: box.height, : box.width]
write_cog(label_map_of(np.zeros((5, 5), np.uint8), legend), Path(sys.argv[1]) / "small.tif")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
side = int(sys.argv[2])
write_cog(LabelMap((side, side), np.dtype(np.uint8), legend, read, (2048, 2048)), Path(sys.argv[1]) / "large.tif")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.parametrize("side", [2048, pytest.param(16384, marks=pytest.mark.long)])
def test_memory_is_bounded(tmp_path: Path, side: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path), str(side)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < MEMORY


@pytest.mark.parametrize("free", [0, 1 << 40, None])
def test_a_full_disk_is_called_so_whatever_gdal_says(
    free: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GDAL may say "Failed to write whole XML document"; what is free while its files are there tells."""

    def full(*_: object, **__: object) -> None:
        raise rasterio.errors.RasterioIOError("Failed to write whole XML document")

    def free_space(path: Path) -> int | None:
        assert list(tmp_path.glob(".labels.tif.*/levels/*.tif"))
        return free

    monkeypatch.setattr("rasterio.shutil.copy", full)
    monkeypatch.setattr("tilepipe.products.staging.free_space", free_space)
    with pytest.raises(StorageError) as error:
        write_cog(label_map_of(labels_like((50, 60)), LEGEND), tmp_path / "labels.tif")
    assert ("the disk is full" in str(error.value), "XML" in str(error.value)) == (free == 0, free != 0)
    assert "the same command goes on" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_labels_compressed_with_loss_afterwards_are_refused(tmp_path: Path) -> None:
    labels = labels_like((300, 400))
    write_cog(label_map_of(labels, LEGEND, georeference=PLACES["north-up"]), tmp_path / "a.tif")
    for error, lossy in ((0, False), (2, True)):
        path = tmp_path / f"{error}.tif"
        rasterio.shutil.copy(tmp_path / "a.tif", path, driver="GTiff", compress="LERC", MAX_Z_ERROR=error)
        with rasterio.open(path) as file:
            assert bool((file.read(1) != labels).any()) == lossy
        if lossy:
            with pytest.raises(InputError, match="compressed with loss after tilepipe wrote it"):
                read_cog(path)
        else:
            assert (read_cog(path).read(Box(0, 0, 300, 400)) == labels).all()
