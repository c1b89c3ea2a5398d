"""Tables of polygons against rasterio's rasterize, shapely and pyproj: what is written is the label map, measured."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pyproj import Geod, Transformer
from rasterio.crs import CRS
from rasterio.features import rasterize
from rasterio.transform import Affine

from tilepipe.box import Box
from tilepipe.errors import UsageError
from tilepipe.products import cleanup
from tilepipe.products.label_map import LabelMap, Legend, Measure, label_map_of
from tilepipe.products.vector_files import write_vectors
from tilepipe.products.vector_options import VectorOptions
from tilepipe.sources.base import Georeference, Resolution
from tilepipe.sources.georeference import ground_resolution

COLORS = ((9, 9, 9), (213, 94, 0), (0, 158, 115))
LEGEND = Legend("cover", ("water", "wood", "straße"), COLORS, 255)
BUILDINGS = Legend("buildings", ("background", "building"), COLORS[:2], 255)
MARGIN = Legend("margin", (), (), 255, Measure(1 / 254, "how sure"))
UTM = Georeference(CRS.from_epsg(32645).to_wkt(), (0.5, 0.0, 300000.25, 0.0, -0.5, 3000000.75))
MERCATOR = Georeference(CRS.from_epsg(3857).to_wkt(), (0.1493, 0.0, 9520400.0, 0.0, -0.1493, 3202900.0))
DEGREES = Georeference(CRS.from_epsg(4326).to_wkt(), (1e-4, 0.0, -60.0, 0.0, -1e-4, -3.0))
PLACES = {"utm": UTM, "mercator": MERCATOR, "degrees": DEGREES}
ENDINGS = (".gpkg", ".fgb", ".shp.zip", ".parquet")


def random_labels(height: int, width: int, seed: int = 0, size: int = 3) -> NDArray[np.uint8]:
    """Regions of labels 0 to 2 with nodata, with holes, islands and corners that touch."""
    coarse = np.random.default_rng(seed).choice(
        [0, 1, 2, 255], p=[0.5, 0.3, 0.1, 0.1], size=(height // size + 1, width // size + 1)
    )
    return np.kron(coarse, np.ones((size, size)))[:height, :width].astype(np.uint8)


def map_of(labels: NDArray[np.uint8], place: Georeference | None = UTM, legend: Legend = LEGEND) -> LabelMap:
    return label_map_of(labels, legend, georeference=place, resolution=ground_resolution(place, *labels.shape))


def table(path: Path) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
    """Return columns by name, and geometries: read by pyarrow or by GDAL, which know nothing of tilepipe."""
    if path.suffix == ".parquet":
        found = pq.read_table(path)
        columns = {name: found[name].to_numpy() for name in found.column_names if name not in ("bbox", "geometry")}
        columns |= {
            field.name: found["bbox"].combine_chunks().field(field.name).to_numpy()
            for field in found.schema.field("bbox").type
        }
        return columns, shapely.from_wkb(found["geometry"].to_pylist())
    meta, _, geometry, fields = pyogrio.raw.read(path, layer=0)
    return dict(zip(meta["fields"], fields, strict=True)), shapely.from_wkb(geometry)


def burnt(shapes: NDArray[Any], values: NDArray[Any], shape: tuple[int, int], place: Georeference | None) -> Any:
    to_map = Affine(*place.transform) if place and place.transform else Affine.identity()
    pairs = list(zip(shapes, values.tolist(), strict=True))
    return rasterize(pairs, shape, fill=255, transform=to_map, dtype="uint8") if pairs else np.full(shape, 255, "uint8")


@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(1, 3), st.integers(0, 999), st.sampled_from([5, 16, 1024]),
    st.sampled_from(ENDINGS),
)  # fmt: skip
def test_burnt_back_they_are_the_labels(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, size: int, seed: int, block: int, ending: str
) -> None:
    path, labels = tmp_path_factory.mktemp("v") / f"a{ending}", random_labels(height, width, seed, size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cleanup.cleaned, "__defaults__", (None, block))
        write_vectors(map_of(labels), path)
    columns, shapes = table(path)
    assert shapely.is_valid(shapes).all()
    np.testing.assert_array_equal(burnt(shapes, columns["class"], labels.shape, UTM), labels)


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("ending", ENDINGS)
def test_every_format_says_the_same(tmp_path: Path, ending: str, name: str) -> None:
    labels, path = random_labels(60, 90), tmp_path / f"a{ending}"
    write_vectors(map_of(labels, PLACES[name]), path)
    columns, shapes = table(path)
    np.testing.assert_array_equal(burnt(shapes, columns["class"], labels.shape, PLACES[name]), labels)
    assert sorted(columns["id"]) == list(range(1, len(shapes) + 1))
    assert [LEGEND.classes[k] for k in columns["class"]] == list(columns["name"])
    np.testing.assert_allclose(
        np.column_stack([columns[k] for k in ("xmin", "ymin", "xmax", "ymax")]), shapely.bounds(shapes)
    )
    assert {len(shapely.get_rings(shape)) > 1 for shape in shapes} == {True, False}
    if ending != ".parquet":
        assert CRS.from_user_input(pyogrio.read_info(path, layer=0)["crs"]) == CRS.from_wkt(PLACES[name].crs)


@pytest.mark.parametrize("name", PLACES)
def test_areas_and_perimeters_are_those_of_the_ellipsoid(tmp_path: Path, name: str) -> None:
    write_vectors(map_of(random_labels(40, 300, size=7), PLACES[name]), tmp_path / "a.gpkg")
    columns, shapes = table(tmp_path / "a.gpkg")
    to_lonlat = Transformer.from_crs(PLACES[name].crs, 4326, always_xy=True)
    step = abs(PLACES[name].transform[0]) * 4
    dense = shapely.transform(shapely.segmentize(shapes, step), lambda p: np.column_stack(to_lonlat.transform(*p.T)))
    geod = Geod(ellps="WGS84")
    area = [geod.geometry_area_perimeter(shapely.orient_polygons(shape))[0] for shape in dense]
    length = [sum(geod.geometry_length(ring) for ring in shapely.get_rings(shape)) for shape in dense]
    np.testing.assert_allclose(columns["area_m2"], area, rtol=1e-6)
    np.testing.assert_allclose(columns["perim_m"], length, rtol=1e-7)


@pytest.mark.parametrize(
    ("resolution", "unit", "pixel"), [(None, "px", 1.0), (Resolution(0.5, 0.25, "um"), "um", 0.125)]
)
def test_slides_are_measured_in_micrometres_and_the_rest_in_pixels(
    tmp_path: Path, resolution: Resolution | None, unit: str, pixel: float
) -> None:
    labels = np.zeros((20, 30), np.uint8)
    labels[2:12, 3:23] = 1
    labels[5:7, 5:10] = 0
    write_vectors(label_map_of(labels, BUILDINGS, resolution=resolution, origin=(100, 200)), tmp_path / "a.gpkg")
    columns, shapes = table(tmp_path / "a.gpkg")
    y, x = (resolution.y, resolution.x) if resolution else (1, 1)
    assert columns[f"area_{unit}" + "2" * bool(resolution)].tolist() == [(200 - 10) * pixel]
    assert columns[f"perim_{unit}"].tolist() == [2 * (10 * y + 20 * x) + 2 * (2 * y + 5 * x)]
    assert shapely.bounds(shapes).tolist() == [[203, 102, 223, 112]]
    assert (
        pyogrio.read_info(tmp_path / "a.gpkg", layer=0)["crs"] is None
        or "ndefined" in pyogrio.read_info(tmp_path / "a.gpkg", layer=0)["crs"]
    )


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 999), st.sampled_from([4, 9, 1024]))
def test_margins_are_those_of_the_pixels(tmp_path_factory: pytest.TempPathFactory, seed: int, block: int) -> None:
    path, labels = tmp_path_factory.mktemp("v") / "a.gpkg", random_labels(30, 33, seed)
    codes = np.random.default_rng(seed).integers(0, 256, labels.shape).astype(np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cleanup.cleaned, "__defaults__", (None, block))
        write_vectors(map_of(labels), path, margin=label_map_of(codes, MARGIN))
    columns, shapes = table(path)
    numbers = rasterize(
        list(zip(shapes, columns["id"].tolist(), strict=True)),
        labels.shape,
        transform=Affine(*UTM.transform),
        dtype="int32",
    )
    for k, mean, least in zip(columns["id"], columns["margin_avg"], columns["margin_min"], strict=True):
        inside = codes[(numbers == k) & (codes != 255)] / 254
        wanted = (inside.mean(), inside.min()) if len(inside) else (np.nan, np.nan)
        np.testing.assert_allclose((mean, least), wanted)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_map_without_regions_is_an_empty_table(tmp_path: Path, ending: str) -> None:
    write_vectors(map_of(np.zeros((5, 6), np.uint8), legend=BUILDINGS), tmp_path / f"a{ending}")
    columns, shapes = table(tmp_path / f"a{ending}")
    assert len(shapes) == 0
    assert {"id", "class", "name", "area_m2", "perim_m", "xmin"} <= set(columns)


@pytest.mark.parametrize("ending", ENDINGS)
def test_same_map_same_bytes(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write_vectors(map_of(random_labels(30, 30)), tmp_path / folder / f"a{ending}")
    one, two = ((tmp_path / folder / f"a{ending}").read_bytes() for folder in ("one", "two"))
    assert one == two
    assert b"2000-01-01T00:00:00.000Z" in one or ending != ".gpkg", "the clock is left out"


def test_in_another_reference_system(tmp_path: Path) -> None:
    labels = random_labels(50, 400, size=9)
    write_vectors(map_of(labels, MERCATOR), tmp_path / "own.gpkg")
    write_vectors(map_of(labels, MERCATOR), tmp_path / "a.gpkg", VectorOptions(crs="EPSG:32645"))
    (own, shapes), (columns, moved) = table(tmp_path / "own.gpkg"), table(tmp_path / "a.gpkg")
    back = Transformer.from_crs(32645, 3857, always_xy=True)
    again = shapely.transform(moved, lambda p: np.column_stack(back.transform(*p.T)))
    np.testing.assert_array_equal(burnt(again, columns["class"], labels.shape, MERCATOR), labels)
    np.testing.assert_array_equal(columns["area_m2"], own["area_m2"])
    assert shapely.hausdorff_distance(again, shapes).max() < 1e-3
    assert CRS.from_user_input(pyogrio.read_info(tmp_path / "a.gpkg", layer=0)["crs"]) == CRS.from_epsg(32645)


def test_reference_systems_that_cannot_be(tmp_path: Path) -> None:
    whole = np.ones((50, 100), np.uint8)
    pacific = Georeference(CRS.from_epsg(32660).to_wkt(), (1000.0, 0, 800000.0, 0, -1000.0, 1000.0))
    with pytest.raises(UsageError, match="180th meridian"):
        write_vectors(map_of(whole, pacific), tmp_path / "a.gpkg", VectorOptions(crs="EPSG:4326"))
    with pytest.raises(UsageError, match="no reference system to come from"):
        write_vectors(map_of(whole, None), tmp_path / "a.gpkg", VectorOptions(crs="EPSG:4326"))
    with pytest.raises(UsageError, match="no coordinate reference system"):
        write_vectors(map_of(whole), tmp_path / "a.gpkg", VectorOptions(crs="EPSG:0"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_goes_wrong_while_it_is_traced_is_said_as_it_is(tmp_path: Path, ending: str) -> None:
    def read(box: Box) -> Any:
        raise UsageError("this very sentence")

    broken = LabelMap((10, 10), np.dtype("uint8"), LEGEND, read, (5, 5))
    with pytest.raises(UsageError, match="this very sentence"):
        write_vectors(broken, tmp_path / f"a{ending}")
    assert not list(tmp_path.iterdir())


def test_an_existing_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.gpkg").write_text("mine")
    with pytest.raises(UsageError, match="exists"):
        write_vectors(map_of(random_labels(5, 5)), tmp_path / "a.gpkg")
    assert (tmp_path / "a.gpkg").read_text() == "mine"


def test_geoparquet_says_what_version_1_1_of_its_specification_asks(tmp_path: Path) -> None:
    write_vectors(map_of(random_labels(30, 30)), tmp_path / "a.parquet")
    geo = json.loads(pq.read_metadata(tmp_path / "a.parquet").metadata[b"geo"])
    column = geo["columns"][geo["primary_column"]]
    assert (geo["version"], column["encoding"], column["geometry_types"]) == ("1.1.0", "WKB", ["Polygon"])
    assert CRS.from_user_input(json.dumps(column["crs"])) == CRS.from_epsg(32645)
    shapes = table(tmp_path / "a.parquet")[1]
    np.testing.assert_allclose(column["bbox"], shapely.total_bounds(shapes))
    assert column["covering"]["bbox"] == {name: ["bbox", name] for name in ("xmin", "ymin", "xmax", "ymax")}
    assert shapely.is_ccw(shapely.get_exterior_ring(shapes)).all()
    write_vectors(map_of(random_labels(30, 30), None), tmp_path / "b.parquet")
    assert json.loads(pq.read_metadata(tmp_path / "b.parquet").metadata[b"geo"])["columns"]["geometry"]["crs"] is None


def test_a_geopackage_has_an_index_and_a_shapefile_its_files(tmp_path: Path) -> None:
    for ending in (".gpkg", ".shp.zip"):
        write_vectors(map_of(random_labels(30, 30)), tmp_path / f"in.labels{ending}")
    with sqlite3.connect(tmp_path / "in.labels.gpkg") as file:
        assert file.execute("SELECT extension_name FROM gpkg_extensions").fetchall() == [("gpkg_rtree_index",)]
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    with zipfile.ZipFile(tmp_path / "in.labels.shp.zip") as archive:
        assert {Path(name).suffix for name in archive.namelist()} == {".shp", ".shx", ".dbf", ".prj", ".cpg"}
        assert {Path(name).stem for name in archive.namelist()} == {"in.labels"}
    assert {path.name for path in tmp_path.iterdir()} == {"in.labels.gpkg", "in.labels.shp.zip", "in.labels.qml"}


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from tilepipe.errors import StorageError
from tilepipe.products.label_map import Legend, label_map_of
from tilepipe.products.vector_files import write_vectors
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
legend = Legend("noise", tuple("abc"), ((1, 1, 1), (2, 2, 2), (3, 3, 3)), 255)
labels = label_map_of(np.random.default_rng(0).integers(0, 3, (128, 128), dtype=np.uint8), legend)
for ending in (".gpkg", ".fgb", ".shp.zip", ".parquet"):
    for limit in (0, 600, 20000, 100000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            write_vectors(labels, Path(sys.argv[1]) / f"a{ending}")
        except StorageError as error:
            print(ending, limit, error)
        else:
            sys.exit(f"{ending} {limit} was not noticed")
"""


@pytest.mark.long
def test_a_full_disk_is_noticed_wherever_it_strikes(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 16
    assert not list(tmp_path.iterdir())
