"""open_source: finds the right source for a path, an array or a source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilepipe.arrays import Array
from tilepipe.errors import InputError, UsageError, public
from tilepipe.paths import is_remote, without_secrets
from tilepipe.sources.archive import VSI, split_archive
from tilepipe.sources.array import ArraySource
from tilepipe.sources.bands import bands_of, numbers_of, with_bands
from tilepipe.sources.base import Source
from tilepipe.sources.checks import given_resolution
from tilepipe.sources.dicom_folder import open_dicom_folder
from tilepipe.sources.foreign import Arrayed, is_array, no_image
from tilepipe.sources.geo_drivers import JPEG_2000, driver_named
from tilepipe.sources.geo_raster import RasterSource
from tilepipe.sources.geo_zip import ZippedTiff
from tilepipe.sources.geotiff import GeoTiffSource
from tilepipe.sources.kind_of_file import kind_asked, kind_of_path
from tilepipe.sources.mosaic_files import is_list_of_paths, is_pattern
from tilepipe.sources.ome_tiff import TiffSource
from tilepipe.sources.open_mosaic import open_index, open_mosaic, open_vrt
from tilepipe.sources.png_jpeg import PictureSource
from tilepipe.sources.remote import open_address, opener_of_address
from tilepipe.sources.slide import SlideSource
from tilepipe.sources.wrapped import unwrapped
from tilepipe.text import JSON

if TYPE_CHECKING:
    import dask.array as da

CHOICE = ("scene", "z", "t")
"""Options that pick one image of a file that holds several."""
ONE_OF = (*CHOICE, "driver")
"""Options that say how a file is read; most kinds of image do not know them."""
READS: dict[object, str] = {
    open_mosaic: "Mosaic",
    open_vrt: "VRT",
    open_index: "Mosaic",
    open_dicom_folder: "SlideSource",
    open_address: "RemoteTiff",
}
"""Name in messages of what opens an image, if it is no class."""
NOT_THERE = {"scene": "holds one image", "z": "has no planes along z", "t": "has no planes along t"}
"""What is said of an image whose kind does not know an option that picks one of several images."""


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
            - `scene`: which image of a file that holds several, from 0, or the name of a variable (netCDF, HDF5);
            - `z`, `t`: which plane of an OME-TIFF or a Zarr, from 0;
            - `resolution`: size of a pixel in metres, for rasters;
            - `mpp`: micrometres per pixel, for slides;
            - `allow`: folders in which a list of files may name files, besides its own folder;
            - `driver`: name of the GDAL driver that reads the file: "JP2OpenJPEG" (JPEG 2000, which is recognised
              without it), "HFA" (Erdas Imagine), "netCDF", "HDF5", "ENVI", "VRT" or "GTiff";
            - `allow_driver`: the same, but with "VRT" GDAL itself reads the VRT and every file that it names;
            - `allow_palette`: read colours as numbers;
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
    options = {name: value for name, value in options.items() if value is not None or name not in ONE_OF}
    arrays, several = is_array(what), is_list_of_paths(what)
    if not (arrays or several or isinstance(what, str | Path)):
        known = {"driver": getattr(what, "driver", None), **getattr(what, "selected", {})}
        if other := [name for name in ONE_OF if name in options and options[name] != known.get(name)]:
            raise UsageError(f"{', '.join(other)} pick an image of a file; give them where the source is opened")
        if not isinstance(what, Source):
            raise no_image(what)
        return what
    kind: Any = ArraySource
    # A pyramid of colours is a slide, unless its driver is named; opening it again needs the name too.
    as_geotiff = options.get("driver") is not None and driver_named(options["driver"]) == "GTiff"
    if several or is_pattern(what):
        kind = open_mosaic
    elif isinstance(what, str | Path):
        kind = _kind(what, options)
        options |= {"driver": JPEG_2000.name} if kind is RasterSource and "driver" not in options else {}
    if isinstance(scene := options.get("scene"), str) and (kind is not RasterSource or scene.strip().isdigit()):
        options["scene"] = _number(what, scene)
    if kind not in (GeoTiffSource, PictureSource, RasterSource, ZippedTiff):
        options.pop("allow_palette", None)  # other kinds of image have no palettes
    if kind not in (open_mosaic, open_vrt, open_index):
        options.pop("allow", None)  # other kinds of image name no files
    if "mpp" in options and kind not in (SlideSource, TiffSource, open_dicom_folder):
        options["resolution"] = given_resolution(options.pop("mpp"), "um")
    named = options.pop("bands") if _by_name(options.get("bands")) else None
    try:
        source: Source = kind(what, **options)
    except TypeError as error:
        # Another TypeError is a bug and no option of the user's.
        if "keyword argument" not in str(error):
            raise
        option = str(error).rpartition(" ")[2].strip("'")
        why = NOT_THERE.get(option, f"is read by {READS.get(kind, kind.__name__)}, which has no such option")
        called = "an array" if arrays else "a list of files" if several else without_secrets(str(what))
        raise UsageError(f"{called} {why}; leave `{option}` out") from error
    if as_geotiff and kind is not open_address:
        source.driver = "GTiff"  # type: ignore[attr-defined]
    return source if named is None else with_bands(source, numbers_of(source.name, named, bands_of(source)))


def _kind(what: str | Path, options: dict[str, Any]) -> Any:
    """Return what opens a path, a path through a zip, or an address."""
    inside = split_archive(what)
    if inside and (inside[1] or str(what).startswith(VSI)):
        if options.pop("driver", None) not in (None, "GTiff"):
            raise UsageError(f"{what} lies in a zip, of which GeoTIFFs alone are read; unzip it to name a driver")
        return ZippedTiff
    if is_remote(what):
        return opener_of_address(what)
    return kind_asked(what, options) or kind_of_path(str(what), Path(what))


def _number(what: object, scene: str) -> int:
    """Return the number of an image of a file that has no variables. Raises `UsageError` for another text."""
    if scene.strip().isdigit():
        return int(scene)
    raise UsageError(
        f"scene {scene!r} is no number; only netCDF and HDF5 have names of variables, and "
        f"{without_secrets(str(what))} is neither"
    )


def _by_name(bands: object) -> bool:
    """Return whether bands are given as text or by names, not by numbers alone."""
    return isinstance(bands, str) or (isinstance(bands, Iterable) and any(isinstance(band, str) for band in bands))


def opening(settings: Mapping[str, object]) -> dict[str, Any]:
    """Return the options among `settings` that say which image of a file to open, or which files."""
    return {name: settings[name] for name in (*ONE_OF, "allow") if name in settings}


def reopening(source: Source | None) -> JSON:
    """Return the driver and the allowed folders with which an image was opened, as options of `open_source`."""
    inside = unwrapped(source) if source else None
    allowed, driver = getattr(inside, "allowed", ()), getattr(inside, "driver", None)
    found: JSON = {"allow": [str(Path(folder).resolve()) for folder in allowed]} if allowed else {}
    return found | ({"driver": driver} if driver else {})


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
