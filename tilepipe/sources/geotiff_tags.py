"""Reads from an open raster's tags its bands, its kind of mask and the size of its pixels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from rasterio import DatasetReader
from rasterio.enums import ColorInterp, MaskFlags

from tilepipe.arrays import DType
from tilepipe.errors import InputError
from tilepipe.sources.bands import UNDEFINED, Band
from tilepipe.sources.base import Resolution
from tilepipe.sources.checks import check_dtype
from tilepipe.sources.checks import pick_bands as named_bands

LARGEST_PRINTED = 20.0
"""Largest pixel size of a microscope [micrometres]; larger pixels are for a print or a screen (300 dpi is 85)."""
IMAGEJ_UNITS = {"micron": 1.0, "um": 1.0, "µm": 1.0, "\\u00B5m": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4}
"""Micrometres in one unit, by ImageJ's word for the unit."""


def printed_resolution(tags: Mapping[str, str]) -> Resolution | None:
    """Return the pixel size that the resolution tags of a TIFF without a position state, as microscopes write them.

    None if the tags state no size, or a size above `LARGEST_PRINTED`, which is for a print or a screen.
    """
    # GDAL writes a meaning behind the number, as in '2 (pixels/inch)'. Without the tag, TIFF means inches.
    unit = {"2": 25400.0, "3": 10000.0}.get(tags.get("TIFFTAG_RESOLUTIONUNIT", "2")[:1])
    if tags.get("TIFFTAG_IMAGEDESCRIPTION", "").startswith("ImageJ"):
        # ImageJ names its unit in the description and not in the tag.
        said = re.search(r"^unit=(.*)$", tags["TIFFTAG_IMAGEDESCRIPTION"], re.MULTILINE)
        unit = IMAGEJ_UNITS.get(said.group(1).strip()) if said else None
    try:
        across, down = (float(tags[f"TIFFTAG_{axis}RESOLUTION"]) for axis in "XY")
    except (KeyError, ValueError):
        return None
    if unit is None or not (across > 0 and down > 0):
        return None
    y, x = unit / down, unit / across
    return Resolution(y, x, "um") if all(0.01 < size < LARGEST_PRINTED for size in (y, x)) else None


def pick_bands(name: str, dataset: DatasetReader, bands: Sequence[int] | None) -> list[int]:
    """Return band numbers from 1: the bands asked for, or all bands that are not alpha.

    Raises `UsageError` for a band that is not there.
    """
    if bands is None:
        found = [
            k for k, meaning in zip(dataset.indexes, dataset.colorinterp, strict=True) if meaning != ColorInterp.alpha
        ]
        # A file may hold alpha alone, and an image needs a band.
        return found or list(dataset.indexes)
    return list(named_bands(name, bands, dataset.count))


def bands_told(dataset: DatasetReader, told: Sequence[tuple[str, str]] | None) -> tuple[Band, ...]:
    """Return the names and colours of all bands; `told` is (name, common name) of each, for what the file leaves
    open."""
    return tuple(
        Band(description or name, common if common and colour.name in UNDEFINED else colour.name)
        for description, colour, (name, common) in zip(
            dataset.descriptions, dataset.colorinterp, told or [("", "")] * dataset.count, strict=True
        )
    )


def pixel_type(name: str, dtype: str, *, labels: bool) -> DType:
    """Return the type of pixels. Raises `InputError` if it is none that is read; labels are numbers of any type."""
    if labels and np.dtype(dtype).kind in "uif":
        return np.dtype(dtype)
    remedy = "Convert it: gdal_translate -ot Float32 in.tif out.tif, or rio convert --dtype float32 in.tif out.tif"
    return check_dtype(name, dtype, remedy)


def refuse_palette(name: str, dataset: DatasetReader) -> None:
    """Raise `InputError` if pixels are numbers of the colours of a palette, with what to type."""
    if ColorInterp.palette in dataset.colorinterp and not is_one_bit(dataset):
        raise InputError(
            f"{name} has a colour palette: its pixels are numbers of colours, not colours. "
            "Convert it: gdal_translate -expand rgb in.tif out.tif"
        )


def refuse_complex(name: str, dtypes: Sequence[str]) -> None:
    """Raise `InputError` if pixels are complex numbers, as those of radar images, with what to type."""
    if kind := next((kind for kind in dtypes if "complex" in kind), None):
        raise InputError(
            f"{name} holds complex pixels ({kind}), as radar images do, and real numbers are read. Write their "
            f"amplitude: gdal_translate DERIVED_SUBDATASET:AMPLITUDE:{name} out.tif, or their INTENSITY or LOGAMPLITUDE"
        )


def refuse_slide(name: str, dataset: DatasetReader, remedy: str) -> None:
    """Raise `InputError` for a slide or an OME-TIFF, which other libraries read, and those only from plain files."""
    rgb = dataset.count == 3 and dataset.dtypes[0] == "uint8"
    placed = dataset.crs or dataset.gcps[0] or not dataset.transform.is_identity
    told = dataset.tags().get("TIFFTAG_IMAGEDESCRIPTION", "")
    if "<OME " in told or told.startswith("Aperio") or (rgb and not placed and dataset.overviews(1)):
        raise InputError(f"{name} is a slide or an OME-TIFF, which is read as a file on this machine; {remedy}")


def is_one_bit(dataset: DatasetReader) -> bool:
    """Return whether the palette is the black and white that GDAL gives to every image of one bit.

    Such an image holds the values 0 and 1, and no indices of a palette.
    """
    if dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS") != "1":
        return False
    return {tuple(dataset.colormap(1)[value][:3]) for value in (0, 1)} == {(0, 0, 0), (255, 255, 255)}


def mask_kind(dataset: DatasetReader, bands: Sequence[int]) -> str:
    """Return the kind of mask that decides validity, in the order of GDAL's RFC 15.

    'mask' is the mask of the dataset or its alpha band. 'nodata' means that a pixel is valid unless all bands hold one
    whole number. 'bands' stands for GDAL's masks of the bands: only GDAL knows how it rounds and compares other nodata
    values. 'none' means that there is no mask.
    """
    flags = dataset.mask_flag_enums[bands[0] - 1]
    alpha = [k for k, meaning in zip(dataset.indexes, dataset.colorinterp, strict=True) if meaning == ColorInterp.alpha]
    if MaskFlags.alpha in flags and not set(alpha) & set(bands):
        return "mask"
    # GDAL flags an alpha band as per dataset too.
    if MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags:
        return "mask"
    values = {dataset.nodatavals[band - 1] for band in bands}
    if values == {None}:
        return "none"
    whole = None not in values and all(float(value).is_integer() for value in values)
    integers = all(np.dtype(kind).kind in "iu" for kind in dataset.dtypes)
    return "nodata" if len(values) == 1 and whole and integers else "bands"
