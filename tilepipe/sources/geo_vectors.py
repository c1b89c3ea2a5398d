"""Reads polygons with their attributes from vector files as GIS programs write them.

GeoPackage, Shapefile (also zipped) and FlatGeobuf are read by GDAL through pyogrio, and GeoParquet by pyarrow. What a
file is, is seen from its ending and its first bytes, which must agree.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from rasterio.crs import CRS
from rasterio.errors import CRSError

from tilepipe.errors import InputError, UsageError
from tilepipe.paths import refuse_special
from tilepipe.sources.geo_crs import known_crs
from tilepipe.sources.geojson import LON_LAT, Features, features_of, read_geojson
from tilepipe.text import JSON, missing, setting

GEOJSON = (".geojson", ".json")
PARQUET = (".parquet", ".geoparquet")
ARCHIVE = ".shp.zip"
MAGIC = {".gpkg": b"SQLite format 3", ".shp": b"\x00\x00\x27\x0a", ".fgb": b"fgb", ARCHIVE: b"PK\x03\x04"}
"""First bytes of the files that GDAL reads, by ending."""
PARTS = (".shp", ".dbf", ".shx", ".prj", ".cpg")
"""Endings of the files that are one Shapefile."""
AREAS = ("Polygon", "Surface", "Unknown", "GeometryCollection", "Curve Polygon", "CurvePolygon")
"""Words in the geometry type of a layer that may hold areas."""
MOST_PARTS, MOST_BYTES = 64, 4 << 30
"""Largest number of files in a zipped Shapefile, and the largest size of polygons unpacked [bytes]."""


class SeveralLayersError(InputError):
    """A file has several layers of polygons, and none was named."""

    def __init__(self, path: Path, names: list[str]) -> None:
        """Take the names of the layers."""
        self.first, self.layers = names[0], f"{path} has {len(names)} layers of polygons ({', '.join(names)})"
        super().__init__(f"{self.layers}; give one: {setting(layer=names[0])}")


def is_vector(path: Path) -> bool:
    """Return whether a path is that of a vector file, by its ending."""
    return ending_of(path) in (*GEOJSON, *PARQUET, *MAGIC)


def ending_of(path: Path) -> str:
    """Return the ending that tells the format of a vector file, in small letters: .gpkg, .shp.zip, ..."""
    return ARCHIVE if path.name.lower().endswith(ARCHIVE) else path.suffix.lower()


def read_vectors(path: str | Path, layer: str | None = None) -> Features:
    """Return the polygons of a vector file; `layer` names one of several layers.

    Raises `InputError` if the file is damaged or holds no such layer, or several and none is named; `UsageError` if a
    package is missing.
    """
    path = Path(path)
    ending = ending_of(path)
    if layer is not None and ending not in MAGIC:
        raise InputError(f"{path} has no layers; leave out layer: {layer}")
    if ending not in (*MAGIC, *PARQUET):  # other formats are refused with the command that makes GeoJSON of them
        return read_geojson(path)
    refuse_special(path)
    if not path.exists():
        raise InputError(missing(path))
    return _of_parquet(path) if ending in PARQUET else _of_gdal(path, ending, layer)


def vector_files(path: Path) -> list[Path]:
    """Return all files that hold the content of a vector file: the parts of a Shapefile, else the file itself."""
    if ending_of(path) != ".shp":
        return [path]
    beside = (path.with_suffix(case) for part in PARTS for case in (part, part.upper()))
    return sorted({path, *(file for file in beside if file.exists())})


def _of_gdal(path: Path, ending: str, layer: str | None) -> Features:
    pyogrio, shapely = _package("pyogrio", path), _package("shapely", path)
    with path.open("rb") as file:
        if not file.read(16).startswith(MAGIC[ending]):
            raise InputError(f"{path} is damaged or something else: it does not begin as {ending} files do")
    if ending == ARCHIVE:
        _check_archive(path)
    try:
        name = _layer(path, [(str(name), kind) for name, kind in pyogrio.list_layers(path)], layer)
        facts, _, geometries, columns = pyogrio.raw.read(path, layer=name, force_2d=True, datetime_as_string=True)
        if geometries is None:
            raise InputError(f"{path}: layer {name} is a table without geometry, so it holds no polygon")
        shapes = shapely.to_geojson(shapely.from_wkb(geometries))
    except (RuntimeError, ValueError, shapely.errors.ShapelyError) as error:
        raise InputError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None
    table = dict(zip(facts["fields"], columns, strict=True))
    return features_of(str(path), _rows(shapes, table), _placed(facts["crs"]), geojson=False)


def _layer(path: Path, layers: list[tuple[str, str | None]], asked: str | None) -> str:
    """Return the layer to read: the one asked for, or the only one that may hold areas."""
    names = [name for name, kind in layers if kind and any(word in kind for word in AREAS)]
    listed = ", ".join(name for name, _ in layers)
    if asked is not None:
        if asked not in dict(layers):
            raise InputError(f"{path} has no layer {asked!r}; its layers are {listed}")
        return asked
    if len(names) > 1:
        raise SeveralLayersError(path, names)
    if not names:
        raise InputError(f"{path} has no layer of polygons; its layers are {listed or 'none'}")
    return names[0]


def _check_archive(path: Path) -> None:
    """Raise `InputError` unless a zip file holds one Shapefile of bounded size."""
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except zipfile.BadZipFile as error:
        raise InputError(f"{path} is damaged: {error}") from None
    shapes = [part.filename for part in parts if part.filename.lower().endswith(".shp")]
    if len(shapes) != 1 or len(parts) > MOST_PARTS or sum(part.file_size for part in parts) > MOST_BYTES:
        raise InputError(
            f"{path} holds {len(parts)} files, {len(shapes)} of them .shp; a zipped Shapefile is one .shp with its "
            "parts, of at most 4 GiB. Unpack it and name the .shp"
        )


def _of_parquet(path: Path) -> Features:
    pyarrow, shapely = _package("pyarrow", path), _package("shapely", path)
    from pyarrow import parquet

    try:
        whole = parquet.read_metadata(path)
        if sum(whole.row_group(k).total_byte_size for k in range(whole.num_row_groups)) > MOST_BYTES:
            raise InputError(f"{path} holds more than 4 GiB; write the polygons that are meant to a file of their own")
        metadata = whole.schema.to_arrow_schema().metadata or {}
        told = json.loads(metadata.get(b"geo", b"null"))
        if told is None:
            raise InputError(f"{path} is no GeoParquet: it has no metadata called geo; write it with geopandas or GDAL")
        main = told["primary_column"]
        column = told["columns"][main]
        if column["encoding"] != "WKB":
            raise InputError(f"{path} holds geometry as {column['encoding']}; write it as WKB, which is the default")
        table = parquet.read_table(path)
        shapes = shapely.to_geojson(shapely.from_wkb(np.array(table[main].to_pylist(), dtype=object)))
        others = {name: table[name].to_pylist() for name in table.column_names if name != main}
    except (pyarrow.ArrowException, shapely.errors.ShapelyError, OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read as GeoParquet: {str(error).splitlines()[0]}") from None
    # By the specification a missing CRS is longitude and latitude, and only null is an unknown one.
    return features_of(str(path), _rows(shapes, others), _crs(path, column.get("crs", LON_LAT)), geojson=False)


def _crs(path: Path, said: object) -> str | None:
    """Return a CRS of GeoParquet, given as PROJJSON or as a text, as a name or WKT; None if none is given."""
    if said is None:
        return None
    if isinstance(said, str):
        known = known_crs(said)
    else:
        named = said.get("id") if isinstance(said, dict) else None
        if isinstance(named, dict) and (named.get("authority"), named.get("code")) == ("OGC", "CRS84"):
            return LON_LAT
        try:
            known = CRS.from_dict(said).to_wkt() if isinstance(said, dict) else None
        except (CRSError, ValueError, TypeError):
            known = None
    if known is None:
        raise InputError(f"{path}: its CRS {str(said)[:80]!r} is not known; write it as PROJJSON, as geopandas does")
    return known


def _placed(crs: str | None) -> str | None:
    """Return the CRS of a layer; None for one that places nothing on the earth, which stands for no CRS at all."""
    if crs is None:
        return None
    found = CRS.from_user_input(crs)
    return crs if found.is_geographic or found.is_projected else None


def _rows(shapes: Any, columns: Mapping[str, Any]) -> Iterator[tuple[object, JSON]]:
    """Yield (geometry as GeoJSON, attributes) of each feature."""
    for k, shape in enumerate(shapes):
        values = {name: column[k] for name, column in columns.items()}
        yield (
            None if shape is None else json.loads(shape),
            {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()},
        )


def _package(name: str, path: Path) -> ModuleType:
    """Return a package of the extra `vectors`. Raises `UsageError` if it is not installed."""
    try:
        if name == "pyogrio":
            import pyogrio
            import pyogrio.raw

            return pyogrio  # type: ignore[no-any-return]
        if name == "pyarrow":
            import pyarrow

            return pyarrow  # type: ignore[no-any-return]
        import shapely

        return shapely  # type: ignore[no-any-return]
    except ImportError:
        raise UsageError(
            f"{path} is read with {name}, which is not installed; run: pip install 'tilepipe[vectors]'"
        ) from None
