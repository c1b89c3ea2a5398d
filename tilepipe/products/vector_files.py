"""Polygons are written to GeoPackage, FlatGeobuf and Shapefile by GDAL (pyogrio), and to GeoParquet by pyarrow.

Features stream from the tracer to the file in batches, so memory does not grow with their number. A Shapefile is
written as one zip archive, which GDAL, QGIS and geopandas can open: its files are there together or not at all.
"""

from __future__ import annotations

import json
import shutil
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rasterio.crs import CRS

from tilepipe.errors import StorageError
from tilepipe.products.label_map import LabelMap
from tilepipe.products.material import Material
from tilepipe.products.qgis_style import table_style, write_style
from tilepipe.products.staging import not_written, staged
from tilepipe.products.vector_options import PLAIN, VectorOptions
from tilepipe.products.vectors import BOX, GEOMETRY, Table
from tilepipe.text import JSON, clean_line

if TYPE_CHECKING:
    import pyarrow

ARCHIVE = ".shp.zip"
GEOPACKAGE = ".gpkg"
DRIVERS = {GEOPACKAGE: "GPKG", ".fgb": "FlatGeobuf", ARCHIVE: "ESRI Shapefile"}
"""GDAL's drivers by ending."""
PARQUET = ".parquet"
LAYER = "labels"
"""Name of the layer in files that have layers."""
STYLES = "layer_styles"
"""Name of the table of a GeoPackage that holds styles for QGIS."""
ROW_GROUP = 16
"""Number of batches in a row group of GeoParquet."""
DATE = "2000-01-01T00:00:00.000Z"
"""Date in a GeoPackage in place of the clock's, so that the same labels give the same bytes."""


def write_vectors(labels: LabelMap, path: Path, options: VectorOptions = PLAIN, margin: LabelMap | None = None) -> None:
    """Write the regions of each class as features to the new file `path`, in the format of its ending, and their style.

    Nodata is left out, and so is class 0 if it is called 'background'. `margin` is the margin layer on the grid of the
    labels. Raises `UsageError` if `path` exists or pixels have no place in the reference system, and `StorageError` if
    the disk is full; `path` does not come to exist then.
    """
    table = Table.of(labels, options, margin)
    batches = _Counted(table.batches())
    with staged(path) as part:
        try:
            if part.name.lower().endswith(PARQUET):
                _write_parquet(part, table, batches)
            else:
                _write_gdal(part, table, batches)
            # GDAL does not report every loss on a full disk, so the features are counted.
            found = count_features(part)
        except Exception as error:
            if batches.error is not None:
                raise batches.error from None
            raise not_written(path, error) from error
        if found != batches.count:
            raise StorageError(f"{path.name} holds {found} of {batches.count} features; the disk may be full or broken")
        if not part.name.lower().endswith(GEOPACKAGE):
            write_style(labels, part)


def write_vectors_of(material: Material, path: Path) -> None:
    """Write the regions of the labels, with the margin of each if that layer is there; see `write_vectors`."""
    write_vectors(material.map, path, material.options, material.maps.get("margin"))


class _Counted:
    """Counts batches as they pass, and keeps an error in making one, because libraries do not pass it on."""

    def __init__(self, batches: Iterator[pyarrow.RecordBatch]) -> None:
        self.count = 0
        self.error: Exception | None = None
        self._batches = batches

    def __iter__(self) -> Iterator[pyarrow.RecordBatch]:
        try:
            for batch in self._batches:
                self.count += batch.num_rows
                yield batch
        except Exception as error:
            self.error = error
            raise


def _write_gdal(path: Path, table: Table, batches: Iterable[pyarrow.RecordBatch]) -> None:
    import pyarrow as pa
    import pyogrio

    driver = next(name for ending, name in DRIVERS.items() if path.name.lower().endswith(ending))
    # A .dbf file holds the day on which it was written.
    options = {"DBF_DATE_LAST_UPDATE": DATE[:10]} if driver == DRIVERS[ARCHIVE] else {}
    target = _unpacked(path) if driver == DRIVERS[ARCHIVE] else path
    stream = pa.RecordBatchReader.from_batches(table.schema, batches)
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": DATE})
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "'crs' was not provided")
            pyogrio.write_arrow(
                stream, target, layer=target.stem if options else LAYER, driver=driver, geometry_name=GEOMETRY,
                geometry_type="Polygon", crs=table.crs.to_wkt() if table.crs else None, encoding="UTF-8",
                layer_options=options,
            )  # fmt: skip
            if driver == DRIVERS[GEOPACKAGE]:
                pyogrio.write_arrow(_styles(table), target, layer=STYLES, driver=driver, append=True)
    finally:
        # The setting holds for the whole process, so it is taken back.
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})
    if target != path:
        _pack(target.parent, path)


def _styles(table: Table) -> pyarrow.Table:
    """Return the table in which QGIS looks for the style of a layer of a GeoPackage."""
    import pyarrow as pa

    legend = table.labels.legend
    row: JSON = {
        **{"f_table_catalog": "", "f_table_schema": "", "f_table_name": LAYER, "f_geometry_column": "geom"},
        **{"styleName": clean_line(legend.name), "styleQML": table_style(legend), "styleSLD": "", "useAsDefault": True},
        **{"description": "names and colours of the classes", "owner": "", "ui": ""},
        "update_time": datetime.fromisoformat(DATE),
    }
    return pa.Table.from_pylist([row])


def _unpacked(path: Path) -> Path:
    """Return the path of a Shapefile in a new folder beside the archive `path`, into which it is packed later."""
    folder = path.with_name("shapefile")
    folder.mkdir()
    return folder / f"{path.name[: -len(ARCHIVE)]}.shp"


def _pack(folder: Path, path: Path) -> None:
    """Move the files of a folder into the new zip archive `path`, without the clock's time."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.iterdir()):
            entry = zipfile.ZipInfo(file.name, (2000, 1, 1, 0, 0, 0))
            entry.compress_type, entry.file_size = zipfile.ZIP_DEFLATED, file.stat().st_size
            with file.open("rb") as whole, archive.open(entry, "w") as packed:
                shutil.copyfileobj(whole, packed, 1 << 20)
    shutil.rmtree(folder)


def _write_parquet(path: Path, table: Table, batches: Iterable[pyarrow.RecordBatch]) -> None:
    """Write GeoParquet 1.1 with the geometry as well-known binary and its box as the specification's struct."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    plain = [field for field in table.schema if field.name not in (*BOX, GEOMETRY)]
    box = pa.struct([(name, pa.float64()) for name in BOX])
    schema = pa.schema([*plain, ("bbox", box), table.schema.field(GEOMETRY)])
    extent = np.array([np.inf, np.inf, -np.inf, -np.inf])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        waiting = iter(batches)
        while some := list(islice(waiting, ROW_GROUP)):
            group = pa.Table.from_batches(some).combine_chunks()
            sides = [group[name].combine_chunks() for name in BOX]
            # Readers leave out whole row groups by this box.
            boxes = pa.StructArray.from_arrays(sides, fields=list(box))
            columns = [*(group[field.name] for field in plain), boxes, group[GEOMETRY]]
            writer.write_table(pa.table(columns, schema=schema), row_group_size=group.num_rows)
            low, high = np.min(sides[:2], axis=1), np.max(sides[2:], axis=1)
            extent = np.concatenate([np.minimum(extent[:2], low), np.maximum(extent[2:], high)])
        writer.add_key_value_metadata({"geo": json.dumps(_geo(table.crs, extent))})


def _geo(crs: CRS | None, extent: Any) -> JSON:
    """Return the metadata of GeoParquet 1.1."""
    column: JSON = {
        "encoding": "WKB",
        "geometry_types": ["Polygon"],
        "crs": crs.to_dict(projjson=True) if crs else None,
        "orientation": "counterclockwise",
        "covering": {"bbox": {name: ["bbox", name] for name in BOX}},
    }
    if np.isfinite(extent).all():
        column["bbox"] = extent.tolist()
    return {"version": "1.1.0", "primary_column": GEOMETRY, "columns": {GEOMETRY: column}}


def count_features(path: Path) -> int:
    """Return how many features a table of polygons holds. Raises what its library raises for a damaged file."""
    if path.name.lower().endswith(PARQUET):
        import pyarrow.parquet as pq

        return int(pq.read_metadata(path).num_rows)
    import pyogrio

    # Unless it is forced, pyogrio counts only if that is quick.
    return int(pyogrio.read_info(path, layer=0, force_feature_count=True)["features"])
