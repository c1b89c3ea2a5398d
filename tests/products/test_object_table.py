"""Tables of objects: read back by others, in coordinates of the map, and safe in a spreadsheet."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from rasterio.crs import CRS
from skimage.measure import label, regionprops_table

from tilepipe.products.label_map import LabelMap, Legend, Measure, label_map_of
from tilepipe.products.material import Material
from tilepipe.products.object_table import write_objects_csv, write_objects_parquet
from tilepipe.products.vector_options import VectorOptions
from tilepipe.sources.array import ArraySource
from tilepipe.sources.base import Georeference, Resolution

LEGEND = Legend("cells", ("background", "=cell", "other"), ((9, 9, 9), (213, 94, 0), (0, 158, 115)), 255)
LABELS = np.kron(np.random.default_rng(2).choice([0, 0, 0, 1, 2], size=(20, 26)), np.ones((3, 3))).astype(np.uint8)
PIXELS = np.random.default_rng(3).integers(0, 256, (2, *LABELS.shape), dtype=np.uint8)
CODES = np.random.default_rng(4).integers(0, 255, LABELS.shape).astype(np.uint8)
UTM = Georeference(CRS.from_epsg(32645).to_wkt(), (0.5, 0.0, 300000.0, 0.0, -0.5, 3000000.0))


def material(labels: LabelMap, **options: Any) -> Material:
    around = [(0, 0), *((start, 0) for start in labels.origin)]
    margin = label_map_of(CODES, Legend("margin", (), (), 255, Measure(1 / 254, "difference")))
    return Material.of(
        {"labels": labels, "margin": margin}, ArraySource(np.pad(PIXELS, around)), options=VectorOptions(**options)
    )


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_csv_file_is_scikit_images_table(tmp_path: Path) -> None:
    labels = label_map_of(LABELS, LEGEND, resolution=Resolution(0.5, 0.5, "um"), origin=(100, 200))
    write_objects_csv(material(labels), tmp_path / "a.objects.csv")
    found = rows(tmp_path / "a.objects.csv")
    numbers = label(LABELS, background=0, connectivity=1)
    wanted = regionprops_table(
        numbers, np.moveaxis(PIXELS, 0, -1),
        properties=("centroid", "area", "equivalent_diameter_area", "eccentricity", "intensity_mean", "bbox"),
    )  # fmt: skip
    assert len(found) == len(wanted["area"]) > 50
    order = np.lexsort((wanted["centroid-1"].round(3), wanted["centroid-0"].round(3)))
    mine = sorted(found, key=lambda row: (round(float(row["y"]), 3), round(float(row["x"]), 3)))
    for name, column, scale, shift in (
        ("y", "centroid-0", 1, 100.5), ("x", "centroid-1", 1, 200.5), ("area_um2", "area", 0.25, 0),
        ("diameter_um", "equivalent_diameter_area", 0.5, 0), ("eccentricity", "eccentricity", 1, 0),
        ("mean_1", "intensity_mean-0", 1, 0), ("mean_2", "intensity_mean-1", 1, 0), ("ymin", "bbox-0", 1, 100),
        ("xmax", "bbox-3", 1, 200),
    ):  # fmt: skip
        ours = np.array([float(row[name]) for row in mine])
        np.testing.assert_allclose(ours, wanted[column][order] * scale + shift, atol=1e-4, err_msg=name)
    margins = [CODES[numbers == k].mean() / 254 for k in np.unique(numbers)[1:]]
    assert sorted(float(row["margin_avg"]) for row in found) == pytest.approx(sorted(margins), abs=1e-6)


def test_a_name_that_a_spreadsheet_would_compute_has_an_apostrophe(tmp_path: Path) -> None:
    write_objects_csv(material(label_map_of(LABELS, LEGEND)), tmp_path / "a.objects.csv")
    assert {row["name"] for row in rows(tmp_path / "a.objects.csv")} == {"'=cell", "other"}
    assert "area_px" in rows(tmp_path / "a.objects.csv")[0]


def test_parquet_holds_what_the_csv_file_does(tmp_path: Path) -> None:
    labels = label_map_of(LABELS, LEGEND, resolution=Resolution(0.5, 0.5), georeference=UTM)
    write_objects_csv(material(labels, split=True), tmp_path / "a.objects.csv")
    write_objects_parquet(material(labels, split=True), tmp_path / "a.objects.parquet")
    found, table = rows(tmp_path / "a.objects.csv"), pyarrow.parquet.read_table(tmp_path / "a.objects.parquet")
    assert table.column_names == list(found[0])
    for name in table.column_names:
        column = table[name].to_pylist()
        if name == "name":
            assert [f"'{text}" if text.startswith("=") else text for text in column] == [row[name] for row in found]
        else:
            np.testing.assert_allclose(np.array([float(row[name]) for row in found]), column, rtol=1e-5, atol=1e-4)


def test_coordinates_are_those_of_the_map(tmp_path: Path) -> None:
    labels = np.zeros((40, 60), np.uint8)
    labels[10:14, 20:30] = 1
    write_objects_csv(
        Material.of({"labels": label_map_of(labels, LEGEND, resolution=Resolution(0.5, 0.5), georeference=UTM)}),
        tmp_path / "a.objects.csv",
    )
    (row,) = rows(tmp_path / "a.objects.csv")
    assert (row["x"], row["y"]) == ("300012.5", "2999994")
    assert [row[name] for name in ("xmin", "ymin", "xmax", "ymax")] == ["300010", "2999993", "300015", "2999995"]
    assert float(row["area_m2"]) == pytest.approx(10, rel=0.01)
    assert "mean_1" not in row


def test_without_objects_there_is_a_header(tmp_path: Path) -> None:
    empty = label_map_of(np.zeros_like(LABELS), LEGEND)
    write_objects_csv(material(empty), tmp_path / "a.objects.csv")
    write_objects_parquet(material(empty), tmp_path / "a.objects.parquet")
    assert rows(tmp_path / "a.objects.csv") == []
    assert pyarrow.parquet.read_table(tmp_path / "a.objects.parquet").num_rows == 0
