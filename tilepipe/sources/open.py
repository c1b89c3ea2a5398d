"""open_source: finds the right source for a path, an array or a source."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tilepipe.arrays import Array
from tilepipe.errors import InputError, UsageError, public
from tilepipe.paths import output_of_run, refuse_special
from tilepipe.sources.array import ArraySource
from tilepipe.sources.bands import bands_of, numbers_of, with_bands
from tilepipe.sources.base import Source
from tilepipe.sources.beside import TIFF_MAGIC
from tilepipe.sources.checks import given_resolution
from tilepipe.sources.chunks import is_zarr
from tilepipe.sources.foreign import Arrayed, is_array, no_image
from tilepipe.sources.geotiff import GeoTiffSource
from tilepipe.sources.mosaic_files import holds_parts, is_list_of_paths, is_pattern
from tilepipe.sources.ome_tiff import TiffSource, is_ome_tiff
from tilepipe.sources.open_mosaic import open_index, open_mosaic, open_vrt, opener_of
from tilepipe.sources.png_jpeg import MAGIC as PICTURE_MAGIC
from tilepipe.sources.png_jpeg import PictureSource
from tilepipe.sources.slide import SlideSource
from tilepipe.sources.slide_file import slide_format
from tilepipe.sources.wrapped import unwrapped
from tilepipe.text import missing

if TYPE_CHECKING:
    import dask.array as da

JPEG_2000 = (b"\x00\x00\x00\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")
"""First bytes of JPEG 2000: of a JP2 file, and of a codestream alone."""
CHOICE = ("scene", "z", "t")
"""Options that pick one image of a file that holds several."""
READS: dict[object, str] = {open_mosaic: "Mosaic", open_vrt: "VRT", open_index: "Mosaic"}
"""Name in messages of what opens an image, if it is no class."""


@public
def open_source(
    what: str | Path | Sequence[str | Path] | Source | Array | da.Array | Arrayed, **options: Any
) -> Source:
    """Open an image and return it as a `Source`. Only what is needed to describe the image is read.

    Args:
        what: A path, an array of shape (bands, height, width) or (height, width), or a source, which is returned as it
            is. Arrays are those of numpy, dask, torch, zarr or xarray. A folder of GeoTIFFs, a pattern such as
            ``"tiles/*.tif"``, a text file of paths and a Python list of paths are one image, if the files lie on one
            grid.
        **options: Options of the kind of image:

            - `bands`: numbers from 1, or names ("R,G,B");
            - `scene`: which image of a file that holds several, from 0;
            - `z`, `t`: which plane of an OME-TIFF or a Zarr, from 0;
            - `resolution`: size of a pixel in metres, for rasters;
            - `mpp`: micrometres per pixel, for slides;
            - `allow`: folders in which a list of files may name files, besides its own folder;
            - `allow_driver`: name of the GDAL driver to use, such as "VRT"; `allow_palette`: read colours as numbers;
            - `valid`, `name`: which pixels of an array hold image data, (height, width) bool; what messages call it.

    Returns:
        A source with pixels of shape (bands, height, width) and type uint8, uint16, int16 or float32. Its `notes` tell
        the choices that were made for the caller.

    Raises:
        InputError: There is no image at the path, or it cannot be read.
        UsageError: An option does not fit this kind of image.

    Example:
        >>> import tilepipe as tp
        >>> image = tp.open_source("pipelines/sample/Amazon_24_20.tif")
        >>> image.shape, image.dtype
        ((3, 512, 512), dtype('uint8'))
        >>> image.read(tp.Box(0, 0, 100, 200)).shape
        (3, 100, 200)
    """
    # None is as good as not given, and most kinds of image do not know these options.
    options = {name: value for name, value in options.items() if value is not None or name not in CHOICE}
    arrays, several = is_array(what), is_list_of_paths(what)
    if not (arrays or several or isinstance(what, str | Path)):
        known = getattr(what, "selected", {})
        if other := [name for name in CHOICE if name in options and options[name] != known.get(name)]:
            raise UsageError(f"{', '.join(other)} pick an image of a file; give them where the source is opened")
        if not isinstance(what, Source):
            raise no_image(what)
        return what
    kind: Any = ArraySource
    if several or is_pattern(what):
        kind = open_mosaic
    elif isinstance(what, str | Path):
        kind = GeoTiffSource if "allow_driver" in options else _kind(str(what), Path(what))
    if kind not in (GeoTiffSource, PictureSource):
        options.pop("allow_palette", None)  # other kinds of image have no palettes
    if kind not in READS:
        options.pop("allow", None)  # other kinds of image name no files
    if "mpp" in options and kind not in (SlideSource, TiffSource):
        options["resolution"] = given_resolution(options.pop("mpp"), "um")
    named = options.pop("bands") if _by_name(options.get("bands")) else None
    try:
        source: Source = kind(what, **options)
    except TypeError as error:
        # Another TypeError is a bug and no option of the user's.
        if "keyword argument" not in str(error):
            raise
        raise UsageError(
            f"{READS.get(kind, kind.__name__)}, which reads {'arrays' if arrays else what}, does not take this option: "
            f"{error}"
        ) from error
    return source if named is None else with_bands(source, numbers_of(source.name, named, bands_of(source)))


def _by_name(bands: object) -> bool:
    """Return whether bands are given as text or by names, not by numbers alone."""
    return isinstance(bands, str) or (isinstance(bands, Iterable) and any(isinstance(band, str) for band in bands))


def opening(settings: Mapping[str, object]) -> dict[str, Any]:
    """Return the options among `settings` that say which image of a file to open, or which files."""
    return {name: settings[name] for name in (*CHOICE, "allow") if name in settings}


def reopening(source: Source | None) -> dict[str, list[str]]:
    """Return the folders that were allowed when a mosaic was opened, as an option of `open_source`; {} if none was."""
    allowed = getattr(unwrapped(source), "allowed", ()) if source else ()
    return {"allow": [str(Path(folder).resolve()) for folder in allowed]} if allowed else {}


def of_labels(source: Source) -> Source:
    """Return a source of labels. Raises `InputError` if its file holds several images, or keeps no exact values."""
    if getattr(source, "lossy", False):
        raise InputError(
            f"{source.name} is compressed with loss (JPEG, LERC with MAX_Z_ERROR), which changes the numbers of "
            "classes where they meet; give the labels as they were before, in PNG or TIFF. A mask of two classes can "
            f"be cut again: gdal_calc.py -A {source.name} --calc 'A>127' --type Byte --outfile mask.tif"
        )
    if notes := getattr(source, "notes", ()):
        raise InputError(
            f"{notes[0].split(';')[0]}; labels are one image: "
            "gdal_translate GTIFF_DIR:1:in.tif out.tif writes the first"
        )
    return source


def image_files(source: Source) -> list[Path]:
    """Return the files and folders that a source reads, if it reads any; nothing may be written over them."""
    known = getattr(source, "files", None)
    if known is not None:
        return [Path(file) for file in known]
    return [Path(source.name)] if source.name and Path(source.name).exists() else []


def place_of(source: Source) -> Path | None:
    """Return the path that stands for an image on disk, which need not exist; None for arrays and lists of files."""
    inside = unwrapped(source)
    if hasattr(inside, "place"):
        place: Path | None = inside.place
        return place
    return None if inside.name == "array" else Path(inside.name)


def _kind(name: str, path: Path) -> Callable[..., Source]:
    """Return what opens a path, by the file's content. Raises `InputError` if it is no image."""
    if "://" in name or name.startswith("/vsi"):
        raise InputError(f"{name} is not a file on this machine; download it first")
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
    if start.startswith(PICTURE_MAGIC):
        return PictureSource
    if several := opener_of(path, start):
        return several
    if start.startswith(JPEG_2000):
        raise InputError(
            f"{name} is JPEG 2000, which is not read; convert it: "
            "gdal_translate -co TILED=YES -co COMPRESS=DEFLATE in.jp2 out.tif"
        )
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
    raise InputError(f"{name} is a folder and no Zarr image; name a file in it, for DICOM any file of the slide")


NO_IMAGES = {
    **dict.fromkeys((".yaml", ".yml"), "it is a file of settings, for tilepipe batch run, train or compare"),
    **dict.fromkeys(
        (".geojson", ".json", ".gpkg", ".shp"), "it holds no pixels but shapes; `region` and `mask` take GeoJSON"
    ),
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
    return f"is not an image that is read: no TIFF, slide, Zarr, PNG or JPEG; {said}"


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
