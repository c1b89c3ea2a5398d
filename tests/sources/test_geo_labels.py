"""Polygons of every vector format, and COCO JSON, become the pixels that rasterio burns or that the mask had."""

from __future__ import annotations

import json
import struct
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio.raw
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.features import rasterize
from rasterio.transform import from_origin
from rasterio.warp import transform_geom

from tilepipe.box import Box
from tilepipe.errors import InputError, UsageError
from tilepipe.sources.array import ArraySource
from tilepipe.sources.base import Georeference
from tilepipe.sources.geo_coco import unpacked
from tilepipe.sources.geo_labels import ClassRules, polygons
from tilepipe.sources.geo_vectors import read_vectors, vector_files

HEIGHT, WIDTH = 48, 64
WHOLE = Box(0, 0, HEIGHT, WIDTH)
CLASSES = ("field", "house", "road")
TRANSFORM = from_origin(300000, 3000000, 0.5, 0.5)
UTM = CRS.from_epsg(32645).to_wkt()
SHAPES = [
    shapely.box(300002.1, 2999980, 300012.3, 2999996).difference(shapely.box(300004, 2999984, 300008, 2999990)),
    shapely.MultiPolygon([shapely.box(300020, 2999990, 300026, 2999998), shapely.Point(300025, 2999982).buffer(4)]),
]
KINDS = ["house", "road"]


def place(crs: str | None = UTM, transform: Any = TRANSFORM) -> ArraySource:
    """An image of 48 x 64 pixels of half a metre."""
    known = Georeference(crs, tuple(transform)[:6]) if transform else None
    return ArraySource(np.zeros((3, HEIGHT, WIDTH), np.uint8), georeference=known, name="i.tif")


def burnt(values: tuple[int, int] = (1, 2)) -> NDArray[Any]:
    return rasterize(list(zip(SHAPES, values, strict=True)), (HEIGHT, WIDTH), transform=TRANSFORM).astype(int)


def table(path: Path, crs: str | None = "EPSG:32645", **columns: list[Any]) -> Path:
    """Write both shapes with the columns; the ending says the format."""
    columns = columns or {"kind": KINDS}
    shapes: list[Any] = SHAPES
    if crs not in (None, "EPSG:32645"):
        shapes = [
            shapely.from_geojson(json.dumps(transform_geom("EPSG:32645", crs, s.__geo_interface__))) for s in shapes
        ]
    if path.suffix == ".parquet":
        return parquet(path, shapes, crs, columns)
    driver = {".gpkg": "GPKG", ".shp": "ESRI Shapefile", ".fgb": "FlatGeobuf", ".zip": "ESRI Shapefile"}[path.suffix]
    target = path.with_name("zipped.shp") if path.suffix == ".zip" else path
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pyogrio.raw.write(
            target, np.array([shapely.to_wkb(s) for s in shapes], object), crs=crs, driver=driver, encoding="UTF-8",
            field_data=[np.array(v, object if isinstance(v[0], str) else None) for v in columns.values()],
            fields=list(columns), geometry_type="Unknown" if driver != "ESRI Shapefile" else "Polygon",
        )  # fmt: skip
    if target != path:
        with zipfile.ZipFile(path, "w") as archive:
            for part in path.parent.glob("zipped.*"):
                archive.write(part, part.name)
                part.unlink()
    return path


def parquet(path: Path, shapes: list[Any], crs: str | None, columns: dict[str, list[Any]], **geo: Any) -> Path:
    import pyarrow as pa
    from pyarrow import parquet as pq

    column = {"encoding": "WKB", "geometry_types": []} | geo
    if crs != "OGC:CRS84":  # longitude and latitude are what a missing CRS means
        column["crs"] = CRS.from_user_input(crs).to_dict(projjson=True) if crs else None
    told = {"version": "1.1.0", "primary_column": "geom", "columns": {"geom": column}}
    data = pa.table({**columns, "geom": [shapely.to_wkb(s) for s in shapes]})
    pq.write_table(data.replace_schema_metadata({"geo": json.dumps(told)}), path)
    return path


ENDINGS = [".gpkg", ".shp", ".shp.zip", ".fgb", ".parquet"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_format_is_burnt_as_rasterio_burns_it(tmp_path: Path, ending: str) -> None:
    path = table(tmp_path / f"é{ending}")
    labels = polygons(path, place(), ClassRules(CLASSES, attribute="kind"))
    np.testing.assert_array_equal(labels(WHOLE), burnt())
    part = Box(7, 11, 40, 50)
    np.testing.assert_array_equal(labels(part), burnt()[part.slices_in(WHOLE)])


@pytest.mark.parametrize("crs", ["EPSG:3857", "OGC:CRS84", "EPSG:32644", "EPSG:4326"])
@pytest.mark.parametrize("ending", [".gpkg", ".parquet"])
def test_any_crs_is_carried_to_the_image(tmp_path: Path, ending: str, crs: str) -> None:
    labels = polygons(table(tmp_path / f"p{ending}", crs), place(), ClassRules(CLASSES, attribute="kind"))
    # A corner that lies within a rounding error of a pixel's centre may fall to either side.
    assert (labels(WHOLE) != burnt()).sum() <= 2


@pytest.mark.parametrize("ending", ENDINGS)
def test_without_a_crs_nothing_is_guessed(tmp_path: Path, ending: str) -> None:
    path = table(tmp_path / f"p{ending}", None)
    with pytest.raises(InputError, match=rf"{path.name} names no CRS.*ogr2ogr -a_srs EPSG:32645 with_crs"):
        polygons(path, place(), ClassRules(CLASSES, attribute="kind"))
    # An image that has none either: the numbers are of the same kind.
    found = polygons(path, place(None), ClassRules(CLASSES, attribute="kind"))
    np.testing.assert_array_equal(found(WHOLE), burnt())
    with pytest.raises(InputError, match=r"i\.tif has no CRS.*write the file without a CRS"):
        polygons(table(tmp_path / f"q{ending}"), place(None), ClassRules(CLASSES, attribute="kind"))


@pytest.mark.parametrize(
    ("column", "rules", "values"),
    [
        (["house", "road"], {}, (1, 2)),
        ([1, 2], {}, (1, 2)),
        ([2.0, 1.0], {}, (2, 1)),
        (["2", "1"], {}, (2, 1)),
        ([10, 20], {"values": {10: 2, 20: 1}}, (2, 1)),
        ([10, 20], {"values": {10: 2}, "other": 0}, (2, 0)),
        (["house", "barn"], {"other": 2}, (1, 2)),
    ],
)
def test_the_class_is_a_name_or_a_number(
    tmp_path: Path, column: list[Any], rules: Any, values: tuple[int, int]
) -> None:
    path = table(tmp_path / "p.gpkg", code=column)
    np.testing.assert_array_equal(polygons(path, place(), ClassRules(CLASSES, "code", **rules))(WHOLE), burnt(values))


def test_an_ignored_number_is_left_out(tmp_path: Path) -> None:
    found = polygons(table(tmp_path / "p.gpkg", code=[1, 9]), place(), ClassRules(CLASSES, "code", ignore=(9,)))
    np.testing.assert_array_equal(found(WHOLE), np.where(burnt() == 2, -1, burnt()))


@pytest.mark.parametrize(
    ("column", "rules", "words"),
    [
        (["house", "barn"], {}, r"kind of polygons is 'barn', which is none of field, house, road; add it to classes"),
        (["house", None], {}, r"1 of 2 polygons have no kind; give them one of field, house, road, or .* IS NOT NULL"),
        ([1, 7], {}, r"is '7', which is none of"),
        ([1.5, 1.0], {}, r"is '1\.5', which is none of"),
        ([10, 20], {"values": {10: 1}}, r"is '20', which is none of"),
    ],
)
def test_unknown_values_are_named(tmp_path: Path, column: list[Any], rules: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        polygons(table(tmp_path / "p.gpkg", kind=column), place(), ClassRules(CLASSES, "kind", **rules))


def test_a_missing_attribute_is_refused_with_those_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no polygon has the attribute 'klass'; there are area, kind"):
        polygons(table(tmp_path / "p.gpkg", kind=KINDS, area=[1, 2]), place(), ClassRules(CLASSES, "klass"))


def test_without_an_attribute_polygons_are_of_class_1_or_as_tilepipe_names_them(tmp_path: Path) -> None:
    found = polygons(table(tmp_path / "p.gpkg"), place(), ClassRules(CLASSES))
    np.testing.assert_array_equal(found(WHOLE), burnt((1, 1)))
    own = table(tmp_path / "own.gpkg", **{"class": [1, 2], "name": KINDS})
    np.testing.assert_array_equal(polygons(own, place(), ClassRules(CLASSES))(WHOLE), burnt())


def test_one_of_several_layers_is_named_or_asked_for(tmp_path: Path) -> None:
    path = table(tmp_path / "p.gpkg")
    wkb = np.array([shapely.to_wkb(shapely.Point(3e5, 3e6))], object)
    common: Any = {"field_data": [], "fields": [], "crs": "EPSG:32645", "driver": "GPKG", "append": True}
    pyogrio.raw.write(path, wkb, layer="trees", geometry_type="Point", **common)
    assert len(read_vectors(path).polygons) == 2, "points are no areas, so this layer is not meant"
    pyogrio.raw.write(path, np.array([shapely.to_wkb(SHAPES[0])], object), layer="b", geometry_type="Polygon", **common)
    with pytest.raises(InputError, match=r"p\.gpkg has 2 layers of polygons \(p, b\); give one: `layer='p'`"):
        read_vectors(path)
    assert len(read_vectors(path, "b").polygons) == 1
    with pytest.raises(InputError, match=r"has no layer 'c'; its layers are p, trees, b"):
        read_vectors(path, "c")
    with pytest.raises(InputError, match=r"holds 1 Point and no polygon"):
        read_vectors(path, "trees")
    with pytest.raises(InputError, match="has no layers; leave out layer"):
        read_vectors(table(tmp_path / "p.parquet"), "p")


def test_curves_are_straightened(tmp_path: Path) -> None:
    """A circle as PostGIS and cadastral data have it: a CurvePolygon of one CircularString."""
    points = [(300010, 2999990), (300015, 2999995), (300020, 2999990), (300015, 2999985), (300010, 2999990)]
    arc = struct.pack("<BII", 1, 8, len(points)) + b"".join(struct.pack("<dd", *point) for point in points)
    wkb = np.array([struct.pack("<BII", 1, 10, 1) + arc], object)
    pyogrio.raw.write(
        tmp_path / "c.gpkg", wkb, field_data=[], fields=[], crs="EPSG:32645", geometry_type="Unknown", driver="GPKG"
    )
    disc = rasterize([shapely.Point(300015, 2999990).buffer(5, 64)], (HEIGHT, WIDTH), transform=TRANSFORM)
    found = polygons(tmp_path / "c.gpkg", place(), ClassRules(CLASSES))(WHOLE)
    assert found.sum() > 300
    assert (found != disc).sum() <= 4


@pytest.mark.parametrize("ending", ENDINGS)
def test_damaged_files_are_refused(tmp_path: Path, ending: str) -> None:
    whole = table(tmp_path / f"p{ending}").read_bytes()
    for number, content in enumerate((b"", b"hello", whole[: len(whole) // 3])):
        path = tmp_path / f"{number}{ending}"
        path.write_bytes(content)
        with pytest.raises(InputError, match=path.name):
            read_vectors(path)
    with pytest.raises(InputError, match="does not exist"):
        read_vectors(tmp_path / f"none{ending}")


def test_geoparquet_that_is_another_table_is_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet as pq

    pq.write_table(pa.table({"a": [1]}), tmp_path / "plain.parquet")
    with pytest.raises(InputError, match="is no GeoParquet"):
        read_vectors(tmp_path / "plain.parquet")
    path = parquet(tmp_path / "arrow.parquet", SHAPES, None, {"kind": KINDS}, encoding="multipolygon")
    with pytest.raises(InputError, match="holds geometry as multipolygon; write it as WKB"):
        read_vectors(path)


@pytest.mark.parametrize(("package", "ending"), [("pyogrio", ".gpkg"), ("shapely", ".fgb"), ("pyarrow", ".parquet")])
def test_a_missing_package_is_named_with_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, ending: str
) -> None:
    path = table(tmp_path / f"p{ending}")
    monkeypatch.setitem(sys.modules, package, None)
    words = rf"is read with {package}, which is not installed; run: pip install 'tilepipe\[vectors\]'"
    with pytest.raises(UsageError, match=words):
        read_vectors(path)


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    path = table(tmp_path / "p.gpkg")
    rules = ClassRules(CLASSES, "kind")
    assert (polygons(path, place(), rules)(WHOLE) == burnt()).all()
    path.unlink()
    table(path, kind=["road", "house"])
    assert (polygons(path, place(), rules)(WHOLE) == burnt((2, 1))).all()


def test_a_shapefile_is_all_its_parts_and_a_zip_holds_one(tmp_path: Path) -> None:
    path = table(tmp_path / "p.shp")
    assert {file.suffix for file in vector_files(path)} >= {".shp", ".dbf", ".shx", ".prj"}
    with zipfile.ZipFile(tmp_path / "two.shp.zip", "w") as archive:
        archive.write(path, "a.shp")
        archive.write(path, "b.shp")
    with pytest.raises(InputError, match=r"2 of them \.shp"):
        read_vectors(tmp_path / "two.shp.zip")


# COCO


def packed(counts: list[int]) -> str:
    """Pack run lengths as pycocotools does (maskApi.c, rleToString)."""
    text = ""
    for k, count in enumerate(counts):
        x, more = (count - counts[k - 2] if k > 2 else count), True
        while more:
            c, x = x & 0x1F, x >> 5
            more = x != -1 if c & 0x10 else x != 0
            text += chr((c | 0x20 if more else c) + 48)
    return text


def runs(mask: NDArray[Any]) -> list[int]:
    """Count runs down the columns, the first one of background."""
    counts, last = [0], False
    for value in mask.T.ravel():
        if bool(value) != last:
            counts.append(0)
            last = not last
        counts[-1] += 1
    return counts


def coco(path: Path, *segmentations: Any, **changed: Any) -> Path:
    """Write one annotation a segmentation, of the categories house and road in turn; ids are not in order."""
    image = {"id": 5, "file_name": "set/i.tif", "height": HEIGHT, "width": WIDTH}
    document = {
        "images": [image, {"id": 7, "file_name": "o.tif"}],
        "categories": [{"id": 30, "name": "house"}, {"id": 2, "name": "road"}],
        "annotations": [
            {"id": k, "image_id": 5, "category_id": (30, 2)[k % 2], "segmentation": s}
            for k, s in enumerate(segmentations)
        ] + [{"id": 99, "image_id": 7, "category_id": 2, "segmentation": [[0, 0, 60, 0, 60, 40]]}],
    }  # fmt: skip
    path.write_text(json.dumps(document | changed))
    return path


@given(st.binary(min_size=24, max_size=24), st.booleans())
def test_a_mask_comes_back_pixel_for_pixel(tmp_path_factory: Any, bits: bytes, text: bool) -> None:
    cells = np.unpackbits(np.frombuffer(bits, np.uint8)).reshape(12, 16)
    mask = cells.repeat(4, 0).repeat(4, 1)
    counts = runs(mask)
    assert counts == runs(mask)
    path = coco(
        tmp_path_factory.mktemp("c") / "c.json",
        {"size": [HEIGHT, WIDTH], "counts": packed(counts) if text else counts},
    )
    np.testing.assert_array_equal(polygons(path, place(), ClassRules(CLASSES))(WHOLE), mask.astype(int))


DISCS = {
    "Pb09m04M2N2N2N2O0O2O0000000000000001N101N2N2N2N3Lj?": (20, 25, 12),
    "`_18P11O1O1O1O00000000000000": (3, 46, 9),
    ":n0:00000000000001O00001O00001O1O001O1O001O1O1O1O2N1O2N1O3M3MPh0": (39, 0, 30),
}


def test_packed_masks_of_pycocotools_are_read() -> None:
    """The texts are what pycocotools 2.0.11 encodes for discs on 40 x 50 pixels."""
    y, x = np.mgrid[:40, :50]
    for text, mask in DISCS.items():
        found, y0, x0 = unpacked(Path("c.json"), text, (40, 50))
        whole = np.zeros((40, 50), bool)
        whole[y0 : y0 + found.shape[0], x0 : x0 + found.shape[1]] = found
        cy, cx, r = mask
        np.testing.assert_array_equal(whole, (y - cy) ** 2 + (x - cx) ** 2 < r**2)


def test_polygons_lie_over_each_other_in_order_and_parts_are_joined(tmp_path: Path) -> None:
    square, other = [4, 4, 20, 4, 20, 20, 4, 20], [30, 4, 40, 4, 40, 14, 30, 14]
    mask = np.zeros((HEIGHT, WIDTH), int)
    mask[10:30, 10:40] = 1
    path = coco(tmp_path / "c.json", [square, other], {"size": [HEIGHT, WIDTH], "counts": runs(mask)})
    wanted = np.zeros((HEIGHT, WIDTH), int)
    wanted[4:20, 4:20] = wanted[4:14, 30:40] = 1
    wanted[10:30, 10:40] = 2
    for image in (place(), place(None, None)):  # pixels are pixels, wherever the image lies
        np.testing.assert_array_equal(polygons(path, image, ClassRules(CLASSES))(WHOLE), wanted)


@pytest.mark.parametrize(
    ("segmentation", "changed", "words"),
    [
        ([], {}, r"annotation 0 has a box and no outline"),
        ([[1, 2, 3]], {}, r"a polygon of 3 numbers"),
        ({"size": [40, 40], "counts": [1600]}, {}, r"is a mask of \[40, 40\] pixels on \[48, 64\]"),
        ({"size": [HEIGHT, WIDTH], "counts": [5]}, {}, r"has runs of 5 pixels in sum"),
        ({"size": [HEIGHT, WIDTH], "counts": "~~"}, {}, r"holds '~', which no packed mask has"),
        ([[0, 0, 9, 0, 9, 9]], {"images": [{"id": 5, "file_name": "i.tif", "height": 9, "width": 9}]}, "says that"),
        ([[0, 0, 9, 0, 9, 9]], {"images": [{"id": 5, "file_name": "a.tif"}]}, r"names 0 images i\.tif .*a\.tif"),
        ([[0, 0, 9, 0, 9, 9]], {"categories": [{"id": 30, "name": "barn"}]}, r"'barn', which is none of field, house"),
        ([[0, 0, 9, 0, 9, 9]], {"categories": [{"id": 1, "name": "barn"}]}, r"is damaged COCO JSON: KeyError 30"),
    ],
)  # fmt: skip
def test_wrong_coco_is_refused(tmp_path: Path, segmentation: Any, changed: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        polygons(coco(tmp_path / "c.json", segmentation, **changed), place(), ClassRules(CLASSES))


Write = Callable[..., Path]


class Slide(ArraySource):
    """A slide with bounds: QuPath counts from (10, 20)."""

    frame = (10, 20)


def test_qupaths_annotations_lie_in_its_frame_and_tables_on_the_canvas(tmp_path: Path) -> None:
    ring = [[5, 5], [15, 5], [15, 15], [5, 15], [5, 5]]
    feature = {
        "type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": "annotation", "classification": {"name": "road", "color": [1, 2, 3]}},
    }  # fmt: skip
    (tmp_path / "q.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    slide = Slide(np.zeros((3, HEIGHT, WIDTH), np.uint8), name="s.svs")
    wanted = np.zeros((HEIGHT, WIDTH), int)
    wanted[15:25, 25:35] = 2
    np.testing.assert_array_equal(polygons(tmp_path / "q.geojson", slide, ClassRules(CLASSES))(WHOLE), wanted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pyogrio.raw.write(
            tmp_path / "t.gpkg", np.array([shapely.to_wkb(shapely.Polygon(ring))], object), field_data=[], fields=[],
            crs=None, geometry_type="Polygon", driver="GPKG",
        )  # fmt: skip
    canvas = np.zeros((HEIGHT, WIDTH), int)
    canvas[5:15, 5:15] = 1
    np.testing.assert_array_equal(polygons(tmp_path / "t.gpkg", slide, ClassRules(CLASSES))(WHOLE), canvas)
