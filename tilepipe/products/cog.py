"""A label map is written as a Cloud Optimized GeoTIFF that opens in QGIS with colours, class names and position.

An uncertainty layer is written in the same way, with its scale instead of colours and classes.

Block-aligned tiled GeoTIFFs are written first, one per level, then GDAL's COG driver copies them
(https://gdal.org/drivers/raster/cog.html). We make the overviews because GDAL needs memory for the width of the map.
`cog_tags` writes everything beside the pixels.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import rasterio
import rasterio.shutil
from rasterio.transform import Affine

from tilepipe.arrays import Labels
from tilepipe.box import Box
from tilepipe.errors import InputError, StorageError
from tilepipe.products.cog_tags import side_file
from tilepipe.products.label_map import LabelMap
from tilepipe.products.qgis_style import write_style
from tilepipe.products.staging import UNREADABLE, facts_of_labels, labels_from, reason, staged
from tilepipe.products.tiff_levels import (
    GDAL_ERRORS,
    TAG,
    THREADS,
    TIFF_BLOCK,
    Levels,
    compare,
    crs_of,
    gdal_for_products,
    read_box,
    write_levels,
)
from tilepipe.sources.base import Georeference
from tilepipe.sources.georeference import georeference_of
from tilepipe.sources.lossy import bytes_of, is_lossy
from tilepipe.text import JSON, json_of

MEMORY = 128 * 2**20
"""Most memory that `write_cog` needs beyond the label map itself, in bytes, `CACHE` included. We measured 87 MB for
uint8 and 106 MB for uint16; the size of the map does not matter."""
COG_OPTIONS = {
    # How large a compressed file becomes is not known before, and a TIFF that is no BigTIFF ends at 4 GiB.
    **{"COMPRESS": "DEFLATE", "BLOCKSIZE": TIFF_BLOCK, "BIGTIFF": "IF_SAFER", "NUM_THREADS": THREADS},
    # GDAL must take the overviews that are there and make none of its own.
    **{"OVERVIEWS": "FORCE_USE_EXISTING"},
}


def write_cog(labels: LabelMap, path: Path) -> None:
    """Write `labels` as a COG at the new path `path`, with `<path>.aux.xml` for GDAL and a style for QGIS beside it.

    The file has uint8 or uint16 pixels, DEFLATE, 512 x 512 tiles, overviews by majority (of a layer: by average) that
    skip nodata, a palette (of a layer: scale and statistics), nodata, and the CRS, transform or ground control points
    of `labels.georeference`. It is read back and compared. Writing needs disk room for about three times the file, and
    less than `MEMORY` bytes of memory. Raises `StorageError` if the disk is full or the position cannot be kept; `path`
    does not come to exist then. Raises `UsageError` if `path` exists already.
    """
    write_bands((labels,), path, facts_of_labels(labels))


def write_bands(maps: Sequence[LabelMap], path: Path, facts: JSON) -> None:
    """Write maps on one grid as the bands of a COG, as `write_cog` does; `facts` go into its tag."""
    labels = maps[0]
    with staged(path, *GDAL_ERRORS) as part, gdal_for_products():
        scratch = part.with_name("levels")
        levels = write_levels(maps, scratch, facts)
        rasterio.shutil.copy(_pyramid(levels), part, driver="COG", strict=True, **COG_OPTIONS)
        # `staged` moves everything that lies in its folder beside the product, so nothing else may be left there.
        shutil.rmtree(scratch)
        if text := side_file(labels.legend, _unkept(labels, part), levels.counts[0]):
            part.with_name(f"{part.name}.aux.xml").write_text(text, encoding="utf-8")
        if labels.legend.measure is None:
            write_style(labels, part)
        _compare(labels, part, levels.sums)


def read_cog(path: Path) -> LabelMap:
    """Open a COG written by `write_cog` as a LabelMap. Raises `InputError` if the file is no such COG."""
    return open_cog(path)[0]


def open_cog(path: Path) -> tuple[LabelMap, JSON]:
    """Return the first band of a COG written by `write_bands`, and the facts in its tag. Raises `InputError`."""
    try:
        with gdal_for_products(), rasterio.open(path, driver="GTiff") as file:
            said = json_of(file.tags().get(TAG, "null"))
            if said is None:
                raise InputError(f"{path} is a TIFF but not a label map of tilepipe: it has no {TAG} tag")
            if is_lossy(file, partial(bytes_of, str(path))):
                raise InputError(
                    f"{path} was compressed with loss after tilepipe wrote it, so its values are no longer the labels; "
                    "give the labels as they were before"
                )
            shape, place, block = (file.height, file.width), georeference_of(file), (TIFF_BLOCK * 2, TIFF_BLOCK * 2)
            return labels_from(said, shape, file.dtypes[0], partial(read_box, str(path)), block, place), said
    except (*GDAL_ERRORS, *UNREADABLE) as error:
        raise InputError(
            f"{path} cannot be opened as a label map: {reason(error)}; give the GeoTIFF or OME-Zarr of a run, "
            "or its work directory"
        ) from error


def cog_overviews(path: Path) -> dict[tuple[int, int], Callable[[Box], Labels]]:
    """Return a function that reads a box of it for each overview of a COG, by the overview's shape (height, width).

    Raises `InputError` if the file cannot be read.
    """
    found: dict[tuple[int, int], Callable[[Box], Labels]] = {}
    try:
        with gdal_for_products(), rasterio.open(path, driver="GTiff") as file:
            count = len(file.overviews(1))
        for level in range(count):
            with gdal_for_products(), rasterio.open(path, driver="GTiff", overview_level=level) as file:
                found[file.height, file.width] = partial(read_box, str(path), overview_level=level)
    except GDAL_ERRORS as error:
        raise InputError(f"{path} cannot be read: {reason(error)}") from error
    return found


def _pyramid(levels: Levels) -> Path:
    """Return a VRT of all levels, whose overviews the COG driver copies."""
    flat, *coarser = levels.paths
    pyramid = flat.with_name("pyramid.vrt")
    rasterio.shutil.copy(flat, pyramid, driver="VRT")
    end = "</VRTRasterBand>"
    # rasterio cannot name the overviews of a VRT, so they are put into its text.
    *bands, rest = pyramid.read_text(encoding="utf-8").split(end)
    for band, text in enumerate(bands, start=1):
        bands[band - 1] = text + "".join(
            f"<Overview><SourceFilename relativeToVRT='1'>{path.name}</SourceFilename>"
            f"<SourceBand>{band}</SourceBand></Overview>"
            for path in coarser
        )
    pyramid.write_text(end.join([*bands, rest]), encoding="utf-8")
    return pyramid


def _found(path: Path) -> Georeference:
    with rasterio.open(path, driver="GTiff") as file:
        return georeference_of(file) or Georeference()


def _unkept(labels: LabelMap, path: Path) -> str:
    """Return the WKT of the coordinate reference system if the TIFF does not keep it (engineering grids), else ''."""
    wanted = labels.georeference or Georeference()
    return wanted.crs if wanted.crs and crs_of(_found(path)) != crs_of(wanted) else ""


def _compare(labels: LabelMap, path: Path, sums: list[int]) -> None:
    """Raise `StorageError` unless the file holds the pixels and the position: GDAL reports neither loss by itself."""
    wanted, found = labels.georeference or Georeference(), _found(path)
    identity = tuple(Affine.identity()[:6])
    if (found.transform or identity) != (wanted.transform or identity):
        raise StorageError(f"{path.name}: the transform {wanted.transform} is not kept, {found.transform} is")
    if wanted.transform is None and found.gcps != wanted.gcps:
        raise StorageError(f"{path.name}: {len(wanted.gcps)} ground control points are not kept as they are")
    if found.crs != wanted.crs and crs_of(found) != crs_of(wanted):
        raise StorageError(f"{path.name}: a GeoTIFF does not keep the coordinate reference system {wanted.crs}")
    compare(labels, path, sums)
