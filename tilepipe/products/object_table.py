"""Objects of a label map are written as a table, one row for each object: CSV, and Parquet through pyarrow.

id, component           number of the object, and of its component (the `id` of the component among polygons)
class, name             number and name of the class
x, y                    centroid: in the raster's own coordinates, else in full-resolution pixels
area_m2, perim_m        sizes on the WGS 84 ellipsoid (`_um2`, `_um` for slides, `_px` if the pixel size is unknown)
diameter_m              diameter of the circle with the same area
eccentricity, solidity  eccentricity of the ellipse with the same second moments; area over the convex hull's area
mean_1, mean_2, ...     mean of each band of the image over the object's pixels, if the image is at hand
margin_avg              mean of the margin, if that layer is there
xmin, ymin, xmax, ymax  box of the object, in the coordinates of the centroid
unsplit                 1 for a component that is too large to be split; the column exists if objects are split
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tilepipe.products.csv_file import csv_lines
from tilepipe.products.label_map import LABELS
from tilepipe.products.material import Material
from tilepipe.products.objects import MARGIN, MapObject, objects
from tilepipe.products.placing import native_place
from tilepipe.products.ruler import Ruler
from tilepipe.products.staging import not_written, staged

if TYPE_CHECKING:
    import pyarrow

BATCH = 4096
"""Number of objects that are placed and written together."""
TEXTS, WHOLE = ("name",), ("id", "component", "class", "unsplit")
"""Columns of text and of whole numbers; all others hold numbers."""
DIGITS = 7
"""Number of digits of a number in a CSV file; coordinates have more digits, see `PLACES`."""
PLACES = 4
"""Number of decimals of a coordinate in pixels, metres or feet; degrees have four more decimals."""

Row = dict[str, int | float | str | None]


def columns(material: Material) -> list[str]:
    """Return the names of the columns."""
    unit = Ruler.of(material.maps[LABELS]).unit
    bands = material.image.shape[0] if material.image is not None else 0
    return [
        *("id", "component", "class", "name", "x", "y"),
        *(f"area_{unit}" if unit == "px" else f"area_{unit}2", f"perim_{unit}", f"diameter_{unit}"),
        *("eccentricity", "solidity"),
        *(f"mean_{band}" for band in range(1, bands + 1)),
        *(["margin_avg"] if MARGIN in material.maps else []),
        *("xmin", "ymin", "xmax", "ymax"),
        *(["unsplit"] if material.options.split else []),
    ]


def rows(material: Material) -> Iterator[Row]:
    """Yield one row for each object, with a value for each column."""
    labels, names = material.maps[LABELS], columns(material)
    place, found = native_place(labels), objects(material)
    while some := list(islice(found, BATCH)):
        centres = place(np.array([(one.shape.x, one.shape.y) for one in some]))
        # On a rotated raster the box of an object is not that of its two corners, so its whole border is placed.
        outer = [one.outline.rings[0] for one in some]
        starts = np.cumsum([0, *(len(ring) for ring in outer[:-1])])
        corners = place(np.concatenate(outer))
        low, high = np.minimum.reduceat(corners, starts), np.maximum.reduceat(corners, starts)
        for one, centre, box in zip(some, centres.tolist(), np.hstack([low, high]).tolist(), strict=True):
            name = labels.legend.classes[one.outline.label]
            yield dict(zip(names, _values(one, name, material, centre, box), strict=True))


def diameter(area: float) -> float:
    """Return the diameter of the circle with this area, in the unit whose square is the area's."""
    return math.sqrt(4 * area / math.pi)


def _values(
    one: MapObject, name: str, material: Material, centre: list[float], box: list[float]
) -> Iterator[int | float | str | None]:
    yield from (one.number, one.component, one.outline.label)
    yield name
    yield from centre
    yield from (one.area, one.perimeter, diameter(one.area), one.shape.eccentricity, one.shape.solidity)
    yield from one.means
    if MARGIN in material.maps:
        yield one.margin
    yield from box
    if material.options.split:
        yield int(one.unsplit)


def write_objects_csv(material: Material, path: Path) -> None:
    """Write the objects of the labels as a CSV file at the new path `path`, one row for each object.

    Raises `StorageError` if the disk is full, `UsageError` if `path` exists.
    """
    known = material.maps[LABELS].georeference
    degrees = known is not None and known.crs is not None and _is_geographic(known.crs)
    # A degree is about 100 km long, so it takes more decimals to place a point as well as in metres.
    names, places = columns(material), PLACES + 4 * degrees
    coordinates = {"x", "y", "xmin", "ymin", "xmax", "ymax"}

    def text(name: str, value: int | float | str | None) -> object:
        if not isinstance(value, float):
            return value
        return f"{value:.{places}f}".rstrip("0").rstrip(".") if name in coordinates else f"{value:.{DIGITS}g}"

    with staged(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        shown = ({name: text(name, value) for name, value in row.items()} for row in rows(material))
        file.writelines(csv_lines(names, shown))


def _is_geographic(crs: str) -> bool:
    from rasterio.crs import CRS

    return bool(CRS.from_wkt(crs).is_geographic)


def write_objects_parquet(material: Material, path: Path) -> None:
    """Write the objects of the labels as a Parquet file at the new path `path`, one row for each object.

    Raises `StorageError` if the disk is full, `UsageError` if `path` exists.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema, found = _schema(material), rows(material)
    with staged(path) as part:
        try:
            with pq.ParquetWriter(part, schema, compression="zstd") as writer:
                while some := list(islice(found, BATCH)):
                    # Without the schema, a column that is empty in one batch would get another type.
                    writer.write_table(pa.Table.from_pylist(some, schema))
        except (OSError, pa.ArrowException) as error:
            raise not_written(path, error) from error


def _schema(material: Material) -> pyarrow.Schema:
    import pyarrow as pa

    kinds = {**dict.fromkeys(TEXTS, pa.string()), **dict.fromkeys(WHOLE, pa.int64())}
    return pa.schema([(name, kinds.get(name, pa.float64())) for name in columns(material)])


def parse_parquet(path: Path) -> None:
    """Read a Parquet file from end to end. Raises what pyarrow raises for a damaged file."""
    import pyarrow.parquet as pq

    for _ in pq.ParquetFile(path).iter_batches():
        pass
