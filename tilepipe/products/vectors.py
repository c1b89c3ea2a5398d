"""A label map becomes a table of polygons: one feature for each 4-connected region of a class, with its holes.

    id                      1, 2, ... in the order in which regions end, from the top of the map
    class, name             number and name of the class
    area_m2, perim_m        sizes on the WGS 84 ellipsoid (`_um2`, `_um` for slides, `_px` if the size of a pixel is
                            not known); borders of holes count for the perimeter
    margin_avg, margin_min  mean and least margin of the region's pixels, if the margin layer is there
    xmin, ymin, xmax, ymax  box of the geometry

Names have at most ten characters, as a Shapefile holds no more. Coordinates are in the raster's own or in another
reference system. Images without a position have full-resolution pixels of the source, as in GeoJSON. `vector_files`
writes the table.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from rasterio.crs import CRS

from tilepipe.errors import UsageError
from tilepipe.products.cleanup import cleaned
from tilepipe.products.label_map import LabelMap
from tilepipe.products.outline import Floats, Outline, signed_area
from tilepipe.products.placing import STEP, Place, carried, is_placed, native_place, with_corners_every
from tilepipe.products.ruler import Ruler
from tilepipe.products.vector_options import VectorOptions, target_crs
from tilepipe.text import setting

if TYPE_CHECKING:
    import pyarrow

BATCH = 4096
"""Number of features that are placed, measured and handed over together."""
BOX = ("xmin", "ymin", "xmax", "ymax")
"""Names of the columns that hold the box of a geometry."""
GEOMETRY = "geometry"
"""Name of the column that holds the geometry as well-known binary."""
WKB_POLYGON = 3


@dataclass(frozen=True)
class Table:
    """The polygons of one label map, as the options ask for them."""

    labels: LabelMap
    options: VectorOptions
    margin: LabelMap | None
    """Margin layer on the grid of the labels; None if there is none."""
    ruler: Ruler
    crs: CRS | None
    """Reference system of the coordinates."""
    own: CRS | None
    """Reference system of the map, if coordinates are carried from it to `crs`."""
    place: Place
    """Function from pixel corners to the map's own coordinates."""

    @classmethod
    def of(cls, labels: LabelMap, options: VectorOptions, margin: LabelMap | None) -> Table:
        """Return the table of a label map. Raises `UsageError` if the map cannot be carried to the reference system."""
        known = labels.georeference
        own = CRS.from_wkt(known.crs) if known and known.crs and is_placed(labels) else None
        crs = target_crs(options.crs) if options.crs else own
        if crs is not None and own is None:
            raise UsageError(
                f"{setting(crs=options.crs)}: the image has no reference system to come from; leave `crs` out"
            )
        moved = own if crs != own else None
        return cls(labels, options, margin, Ruler.of(labels), crs, moved, native_place(labels))

    @property
    def schema(self) -> pyarrow.Schema:
        """Names and types of the columns."""
        import pyarrow as pa

        unit = self.ruler.unit
        numbers = {f"area_{unit if unit == 'px' else f'{unit}2'}": pa.float64(), f"perim_{unit}": pa.float64()}
        if self.margin is not None:
            numbers |= {"margin_avg": pa.float64(), "margin_min": pa.float64()}
        columns = {"id": pa.int64(), "class": pa.int32(), "name": pa.string(), **numbers}
        return pa.schema({**columns, **dict.fromkeys(BOX, pa.float64()), GEOMETRY: pa.binary()})

    def batches(self) -> Iterator[pyarrow.RecordBatch]:
        """Yield the features, `BATCH` at a time. Raises `UsageError` for corners that have no place in `crs`."""
        import pyarrow as pa

        schema, found, done = self.schema, cleaned(self.labels, self.options, self.margin), 0
        names = np.array(self.labels.legend.classes, dtype=object)
        while some := list(islice(found, BATCH)):
            classes = np.array([one.label for one in some])
            numbers = np.arange(done + 1, done + 1 + len(some))
            columns = [numbers, classes, names[classes], *self.ruler.measure([one.rings for one in some])]
            if self.margin is not None:
                columns += self._margins(some)
            placed = self._placed(some)
            boxes = np.array([(*rings[0].min(0), *rings[0].max(0)) for rings in placed])
            columns += [*boxes.T, np.array([wkb(rings) for rings in placed], dtype=object)]
            # With `from_pandas` nan becomes null.
            arrays = [pa.array(column, of, from_pandas=True) for column, of in zip(columns, schema.types, strict=True)]
            yield pa.record_batch(arrays, schema=schema)
            done += len(some)

    def _margins(self, some: list[Outline]) -> list[Floats]:
        """Return means and least values of the margin; regions without a margin have nan, which becomes null."""
        assert self.margin is not None
        assert self.margin.legend.measure is not None
        known = [one.certainty for one in some if one.certainty is not None]
        count = np.array([of.count for of in known])
        count = np.where(count > 0, count, np.nan)
        step = self.margin.legend.measure.step
        mean = step * np.array([of.total for of in known]) / count
        return [mean, np.where(np.isnan(count), np.nan, step * np.array([of.least for of in known]))]

    def _placed(self, some: list[Outline]) -> list[list[Floats]]:
        """Return the rings of outlines in the file's coordinates, outer ones counter-clockwise and holes clockwise."""
        rings = [ring for one in some for ring in one.rings]
        if self.own is not None or self._curved:
            rings = [with_corners_every(STEP, ring) for ring in rings]
        points = self.place(np.concatenate(rings))
        if self.own is not None:
            points = carried(points, self.own, self.crs)
        pieces = iter(np.split(points, np.cumsum([len(ring) for ring in rings])[:-1]))
        found = [[_oriented(next(pieces), outer=k == 0) for k in range(len(one.rings))] for one in some]
        if self.own is not None and self.crs is not None and self.crs.is_geographic:
            self._refuse_split(found)
        return found

    @property
    def _curved(self) -> bool:
        """Whether straight lines between pixels are curves in the map's own coordinates."""
        known = self.labels.georeference
        return known is not None and known.transform is None and bool(known.gcps)

    def _refuse_split(self, placed: Iterable[list[Floats]]) -> None:
        # An edge longer than half of the earth has jumped over the 180th meridian.
        if any(np.abs(np.diff(rings[0][:, 0])).max() > 180 for rings in placed):
            raise UsageError(
                "some regions cross the 180th meridian, which a table in longitude and latitude would tear apart; "
                "write GeoJSON, which is cut there, or give another `crs`"
            )


def _oriented(ring: Floats, *, outer: bool) -> Floats:
    return ring if (signed_area(ring) > 0) == outer else ring[::-1]


def wkb(rings: list[Floats]) -> bytes:
    """Return a polygon of closed rings as well-known binary."""
    # The first byte of well-known binary says that the numbers are little-endian.
    parts = [struct.pack("<BII", 1, WKB_POLYGON, len(rings))]
    for ring in rings:
        parts += [struct.pack("<I", len(ring)), np.ascontiguousarray(ring, "<f8").tobytes()]
    return b"".join(parts)
