"""Finds what opens a path: by the driver that the user names, or else by the content of the file, never by its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tilepipe.errors import InputError
from tilepipe.paths import output_of_run, refuse_special
from tilepipe.sources.archive import MAGIC as ZIP_MAGIC
from tilepipe.sources.base import Source
from tilepipe.sources.beside import TIFF_MAGIC
from tilepipe.sources.chunks import is_zarr
from tilepipe.sources.dicom_folder import holds_dicom, open_dicom_folder
from tilepipe.sources.geo_drivers import DRIVERS, JPEG_2000, driver_named, refuse_unasked
from tilepipe.sources.geo_raster import RasterSource
from tilepipe.sources.geo_zip import ZippedTiff
from tilepipe.sources.geotiff import GeoTiffSource
from tilepipe.sources.mosaic_files import holds_parts
from tilepipe.sources.ome_tiff import TiffSource, is_ome_tiff
from tilepipe.sources.open_mosaic import open_mosaic, open_vrt, opener_of
from tilepipe.sources.png_jpeg import MAGIC as PICTURE_MAGIC
from tilepipe.sources.png_jpeg import PictureSource
from tilepipe.sources.slide import SlideSource
from tilepipe.sources.slide_file import CZI, OF_CZI, slide_format
from tilepipe.text import missing, setting


def kind_asked(what: str | Path, options: dict[str, Any]) -> Callable[..., Source] | None:
    """Return what opens a file by the driver among `options`; None if no driver is named.

    `options` then hold `driver`, if what opens the file takes it.
    """
    asked = options.pop("driver", None)
    if asked is None and options.get("allow_driver") in DRIVERS:
        asked = options.pop("allow_driver")
    if asked is None:
        # Any other driver is GDAL's own affair, in Python only.
        return GeoTiffSource if "allow_driver" in options else None
    name = driver_named(asked)
    if not Path(what).exists():
        raise InputError(missing(what))
    if Path(what).is_dir():
        raise InputError(f"{what} is a folder, and {setting(driver=name)} opens a file; name a file in it")
    if name == "GTiff":
        return GeoTiffSource
    if name == "VRT":
        return open_vrt
    options["driver"] = name
    return RasterSource


def kind_of_path(name: str, path: Path) -> Callable[..., Source]:
    """Return what opens a path, by the file's content. Raises `InputError` if it is no image."""
    if not path.exists():
        raise InputError(missing(name))
    refuse_special(path)
    if path.is_dir():
        return _folder_kind(name, path)
    try:
        with path.open("rb") as file:
            start = file.read(256)
    except OSError as error:
        raise InputError(f"{name} cannot be opened: {error.strerror or error}") from error
    if start.startswith(TIFF_MAGIC):
        return _tiff_kind(path)
    if slide_format(path):  # before pictures: a MIRAX file begins like a JPEG
        return SlideSource
    if start.startswith(CZI):
        raise InputError(f"{name} is a Zeiss CZI that cannot be opened{OF_CZI}")
    if start.startswith(PICTURE_MAGIC):
        return PictureSource
    if several := opener_of(path, start):
        return several
    if start.startswith((*JPEG_2000.magic, *ZIP_MAGIC)):
        return ZippedTiff if start.startswith(ZIP_MAGIC) else RasterSource
    refuse_unasked(path, start)
    raise InputError(f"{name} {_what_else(start, path.suffix.lower())}")


def _folder_kind(name: str, path: Path) -> Callable[..., Source]:
    """Return what opens a folder. Raises `InputError` if it holds no image."""
    if is_zarr(path):
        from tilepipe.sources.zarr import ZarrSource  # the library takes as long to import as all others here

        return ZarrSource
    if output := output_of_run(path):
        raise InputError(
            f"{name} is the work directory of a run and no image; name the image of the run, or its labels {output}"
        )
    if (path / "model.json").exists():
        raise InputError(f"{name} is a model and no image; give: tilepipe segment IMAGE -m {name}")
    if holds_parts(path):
        return open_mosaic
    if holds_dicom(path):
        return open_dicom_folder
    raise InputError(
        f"{name} is a folder and no Zarr image, and holds neither GeoTIFFs nor a slide in DICOM; name a file in it"
    )


NO_IMAGES = {
    **dict.fromkeys((".yaml", ".yml"), "it is a file of settings, for tilepipe batch run, train or compare"),
    **dict.fromkeys(
        (".geojson", ".json", ".gpkg", ".shp", ".fgb", ".parquet"),
        "it holds no pixels but shapes, which `region` and `mask` take",
    ),
    ".hdr": f"it is the header of an ENVI image; name the file of pixels beside it, with {setting(driver='ENVI')}",
    ".npy": "it is an array; from Python: tp.segment(numpy.load(file), model, output)",
    ".onnx": "it is a model; give it as `model`",
}
"""Descriptions of files that people sometimes take for images, by their ending."""


def _what_else(start: bytes, suffix: str) -> str:
    """Return in words what a file is that begins with `start` and is no image."""
    if start.lstrip()[:1] == b"<":
        return "holds HTML or XML and no image, as failed downloads do; download the image again"
    if not start:
        return "is empty and so not an image; copy or download the image again"
    said = NO_IMAGES.get(suffix, "gdal_translate in.xyz out.tif converts what GDAL can read")
    return f"is not an image that is read: no TIFF, slide, Zarr, PNG, JPEG or JPEG 2000; {said}"


def _tiff_kind(path: Path) -> type:
    """Return the class of source for a TIFF file: for slide scanners' own formats, for OME-TIFF, or else for GeoTIFF.

    Plain pyramids of 8 bit RGB without a position on the earth are slides too.
    """
    vendor = slide_format(path)
    if vendor not in (None, "generic-tiff"):
        return SlideSource
    if is_ome_tiff(path):
        return TiffSource
    if vendor is None:
        return GeoTiffSource
    raster = GeoTiffSource(path)
    rgb = raster.shape[0] == 3 and raster.dtype == np.uint8 and raster.georeference is None
    return SlideSource if rgb and len(SlideSource(path).levels) > 1 else GeoTiffSource
