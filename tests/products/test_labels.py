"""Labels as numpy, dask and xarray see them."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.examples import drawn
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.crs import CRS

from tilepipe.box import Box
from tilepipe.errors import InputError, UsageError
from tilepipe.products.formats import OF_PROBABILITIES, PRODUCTS
from tilepipe.products.label_map import LabelMap, Legend, label_map_of
from tilepipe.products.labels import Labels, open_label_file, parses
from tilepipe.products.material import Material
from tilepipe.sources.array import ArraySource
from tilepipe.sources.base import Georeference

LEGEND = Legend("cover", ("background", "built up", "wood"), ((217, 217, 217), (213, 94, 0), (0, 158, 115)), 255)
UTM = CRS.from_epsg(32645).to_wkt()
NORTH_UP = Georeference(UTM, (0.5, 0.0, 300000.0, 0.0, -0.25, 3000000.0))
PIXELS = np.random.default_rng(0).choice([0, 1, 2, 255], (70, 90)).astype(np.uint8)


class Counting:
    """Reads from an array and remembers which boxes."""

    def __init__(self) -> None:
        self.boxes: list[Box] = []

    def __call__(self, box: Box) -> NDArray[Any]:
        self.boxes.append(box)
        return PIXELS[box.slices_in(Box.of_shape(*PIXELS.shape))]


def counted() -> tuple[Labels, list[Box]]:
    read = Counting()
    return Labels(LabelMap(PIXELS.shape, PIXELS.dtype, LEGEND, read, (32, 64), NORTH_UP)), read.boxes


index = st.one_of(st.integers(-70, 69), st.slices(70))


@settings(deadline=None)
@given(index, index)
def test_indexing_is_numpys(rows: int | slice, columns: int | slice) -> None:
    labels = Labels(label_map_of(PIXELS, LEGEND))
    np.testing.assert_array_equal(labels[rows, columns], PIXELS[rows, columns])
    np.testing.assert_array_equal(labels[rows], PIXELS[rows])


def test_only_what_is_asked_for_is_read() -> None:
    labels, boxes = counted()
    labels[10:20, 5]
    assert boxes == [Box(10, 5, 20, 6)]
    np.testing.assert_array_equal(np.asarray(labels), PIXELS)


def test_dask_is_lazy_and_reads_each_block_once() -> None:
    labels, boxes = counted()
    lazy = labels.dask
    assert (lazy.shape, lazy.dtype, lazy.chunks) == ((70, 90), np.uint8, ((32, 32, 6), (64, 26)))
    assert not boxes
    np.testing.assert_array_equal(lazy.compute(scheduler="threads"), PIXELS)
    assert sorted(boxes) == [
        Box(y, x, min(y + 32, 70), min(x + 64, 90)) for y in range(0, 70, 32) for x in range(0, 90, 64)
    ]
    boxes.clear()
    np.testing.assert_array_equal(lazy[3:9, 70:80:2].compute(scheduler="sync"), PIXELS[3:9, 70:80:2])
    assert sum(box.area for box in boxes) <= 32 * 64


def test_xarray_has_coordinates_classes_and_crs() -> None:
    pytest.importorskip("xarray")
    labels, boxes = counted()
    array = labels.to_xarray()
    assert not boxes
    assert (array.dims, array.name) == (("y", "x"), "cover")
    assert array.x.values[[0, -1]].tolist() == [300000.25, 300044.75]
    assert array.y.values[[0, -1]].tolist() == [2999999.875, 2999982.625]
    assert array.attrs["flag_values"].tolist() == [0, 1, 2]
    assert array.attrs["flag_meanings"] == "background built_up wood"
    assert array.attrs["flag_colors"] == "#d9d9d9 #d55e00 #009e73"
    assert array.attrs["_FillValue"] == 255
    assert CRS.from_wkt(array[array.attrs["grid_mapping"]].attrs["crs_wkt"]) == CRS.from_epsg(32645)
    assert array.spatial_ref.attrs["GeoTransform"].split() == ["300000.0", "0.5", "0.0", "3000000.0", "0.0", "-0.25"]
    np.testing.assert_array_equal(array.sel(x=slice(300010, 300020)).values, PIXELS[:, 20:40])


def test_coordinates_of_slides_and_of_rotated_rasters() -> None:
    pytest.importorskip("xarray")
    slide = Labels(label_map_of(PIXELS, LEGEND, origin=(100, 7), scale=(2.0, 4.0))).to_xarray()
    assert slide.y.values[:2].tolist() == [101.0, 103.0]
    assert slide.x.values[:2].tolist() == [9.0, 13.0]
    turned = Georeference(UTM, (0.3, 0.2, 300000.0, 0.2, -0.3, 3000000.0))
    assert set(Labels(label_map_of(PIXELS, LEGEND, georeference=turned)).to_xarray().coords) == {"spatial_ref"}


def test_without_xarray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def fail(name: str, *rest: Any) -> Any:
        if name == "xarray":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", fail)
    with pytest.raises(UsageError, match=r"pip install 'tilepipe\[xarray\]'"):
        Labels(label_map_of(PIXELS, LEGEND)).to_xarray()


@pytest.mark.parametrize("name", ["a.tif", "a.ome.zarr"])
def test_written_and_opened_again(tmp_path: Path, name: str) -> None:
    labels = Labels(label_map_of(PIXELS, LEGEND, georeference=NORTH_UP))
    (labels.to_cog if name == "a.tif" else labels.to_ome_zarr)(tmp_path / name)
    again = Labels(open_label_file(tmp_path / name))
    np.testing.assert_array_equal(again.dask.compute(), PIXELS)
    assert (again.legend, again.classes, again.shape, again.dtype) == (LEGEND, LEGEND.classes, (70, 90), np.uint8)
    if name == "a.tif":
        assert again.transform == NORTH_UP.transform
        assert CRS.from_wkt(again.crs) == CRS.from_wkt(UTM)
    again.to_geojson(tmp_path / "a.geojson")
    assert (tmp_path / "a.geojson").stat().st_size > 1000


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        open_label_file(tmp_path / "labels.tif")


def test_a_file_that_holds_no_labels_is_refused_with_what_to_give(tmp_path: Path) -> None:
    (tmp_path / "roofs.gpkg").write_bytes(b"SQLite format 3\0")
    with pytest.raises(InputError, match="give the GeoTIFF or OME-Zarr of a run, or its work directory"):
        open_label_file(tmp_path / "roofs.gpkg")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a folder with each product alone in it, by the product's name."""
    image = ArraySource(np.random.default_rng(0).integers(0, 255, (3, *PIXELS.shape), dtype=np.uint8))
    material = Material.of({"labels": label_map_of(PIXELS, LEGEND, georeference=NORTH_UP)}, image)
    # These products need more than labels and an image: files of a mosaic, probabilities, a slide in DICOM, a run.
    others = {"files", "dicom-seg", *OF_PROBABILITIES}
    others |= {name for name, product in PRODUCTS.items() if product.needs_run}
    folders = {name: tmp_path_factory.mktemp(name) for name in PRODUCTS.keys() - others}
    for name, folder in folders.items():
        PRODUCTS[name].write(material, folder / f"a{PRODUCTS[name].suffix}")
    return folders


@drawn(8)
@given(st.data())
def test_a_damaged_product_is_never_an_error(written: dict[str, Path], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(written)))
    path = written[name] / f"a{PRODUCTS[name].suffix}"
    assert parses(path)
    file = data.draw(st.sampled_from(sorted(file for file in written[name].rglob("*") if file.is_file())))
    content = file.read_bytes()
    start = data.draw(st.integers(0, len(content)))
    stop = data.draw(st.integers(start, len(content)))
    file.write_bytes(content[:start] + data.draw(st.binary(max_size=20)) + content[stop:])
    try:
        assert parses(path) in (True, False)
    finally:
        file.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b'value,class\n0,"wood'),
        ("a.csv", b'value,class\n0,"wo"od\n'),
        ("a.png", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rI\x00DR"),
        ("a.fgb", b""),
        ("a.shp.zip", b"PK"),
        ("a.geojson", b"[" * 100_000),
    ],
)
def test_what_libraries_say_of_damage_in_ways_of_their_own(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert not parses(tmp_path / name)


def test_numpy_takes_labels_as_an_array_and_comparisons_are_lazy() -> None:
    labels, boxes = counted()
    lazy = labels == 1
    assert type(lazy).__module__.startswith("dask.")
    assert not boxes
    assert np.array_equal(np.asarray(lazy), PIXELS == 1)
    assert np.array_equal(np.asarray(labels != 1), PIXELS != 1)
    assert np.array_equal(np.asarray(labels % 2 + 1), PIXELS % 2 + 1)
    assert np.array_equal(labels[PIXELS == 2], PIXELS[PIXELS == 2])
    assert np.sum(labels) == PIXELS.sum()
    assert np.array_equal(np.unique(labels), [0, 1, 2, 255])
    assert len({labels, labels}) == 1
    with pytest.raises(AttributeError, match=r"lie on disk and have no sum: read them first"):
        labels.sum()  # type: ignore[operator]
    assert repr(labels) == "<Labels cover: 70 x 90 px uint8, classes background, built up, wood>"


def test_masks_of_any_library_choose_pixels_and_others_are_refused() -> None:
    labels, _ = counted()
    for mask in (PIXELS == 2, labels == 2, (labels == 2).compute()):
        assert np.array_equal(labels[mask], PIXELS[PIXELS == 2])
    with pytest.raises(UsageError, match=r"a mask of shape \(3, 3\) does not fit Labels of \(70, 90\)"):
        labels[np.ones((3, 3), bool)]
    assert np.array_equal(labels[PIXELS[:, 0] == 2], PIXELS[PIXELS[:, 0] == 2])


def test_what_has_no_meaning_for_labels_is_refused_in_a_sentence() -> None:
    labels, _ = counted()
    with pytest.raises(UsageError, match="neither true nor false"):
        bool(labels)
    with pytest.raises(UsageError, match="read only"):
        labels[0, 0] = 1  # type: ignore[index]
    with pytest.raises(UsageError, match=r"compare with the number of the class: labels.classes.index\('wood'\)"):
        labels == "wood"  # noqa: B015
    assert (len(labels), 2 in labels, 7 in labels) == (70, True, False)


def test_a_notebook_shows_labels_with_their_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, boxes = counted()
    shown = labels._repr_html_()
    assert "data:image/jpeg" in shown
    assert shown.count("built up") == 1
    assert "#d55e00" in shown
    boxes.clear()
    monkeypatch.setattr("tilepipe.products.report.notebook.LARGE", 1000)
    assert "built up" in labels._repr_html_()
    assert not boxes, "very large labels are not read"
