"""TiffSource: reads OME-TIFF. tifffile finds the pages of the image and its levels, and GDAL decodes each page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import tifffile
from numpy.typing import NDArray

from tilepipe.arrays import DType, Pixels
from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.sources.bands import Band
from tilepipe.sources.base import Georeference, Resolution, Source
from tilepipe.sources.checks import given_resolution, pick, pick_bands, pick_scene
from tilepipe.sources.geotiff import GeoTiffSource
from tilepipe.sources.geotiff_page import TiffPage
from tilepipe.sources.handles import stamp
from tilepipe.text import JSON

MICROMETRES = {"Å": 1e-4, "nm": 1e-3, "µm": 1.0, "um": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6, "in": 25400.0}
"""Micrometres in one unit of PhysicalSizeX and PhysicalSizeY; the default unit is µm (OME schema 2016-06)."""


def is_ome_tiff(path: str | Path) -> bool:
    """Return whether a TIFF file carries OME-XML."""
    try:
        with tifffile.TiffFile(path) as file:
            return bool(file.is_ome)
    except (tifffile.TiffFileError, OSError, ValueError, IndexError, KeyError):
        return False


class Planes:
    """Pages of a TIFF file that make up one level of an image, as a source; the bands are in page order.

    Raises `InputError` if the pages differ in size or type.
    """

    def __init__(self, name: str, pages: Sequence[GeoTiffSource], resolution: Resolution | None) -> None:
        self.name = name
        self.pages = tuple(pages)
        self.resolution = resolution
        if len({(page.shape[1:], page.dtype) for page in pages}) != 1:
            raise InputError(f"{name} has channels of different sizes or types; they cannot be read as one image")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(bands, height, width)."""
        return sum(page.shape[0] for page in self.pages), *self.pages[0].shape[1:]

    @property
    def dtype(self) -> DType:
        """Type of the pixels."""
        return self.pages[0].dtype

    @property
    def lossy(self) -> bool:
        """Whether the pixels may differ from the written values."""
        return any(page.lossy for page in self.pages)

    @property
    def cache_bytes(self) -> int:
        """Memory that the reader keeps in a process beyond the pixels it returns [bytes]."""
        return max(page.cache_bytes for page in self.pages)

    @property
    def georeference(self) -> Georeference | None:
        """None: the image has no position on the earth."""
        return None

    def read(self, box: Box) -> Pixels:
        """Return the pixels of `box`, (bands, box.height, box.width), reflected outside the image."""
        return np.concatenate([page.read(box) for page in self.pages])

    def valid(self, box: Box) -> NDArray[np.bool_] | None:
        """Return True where all channels hold image data, (box.height, box.width); None if all pixels do."""
        masks = [mask for mask in (page.valid(box) for page in self.pages) if mask is not None]
        return np.logical_and.reduce(masks) if masks else None

    @property
    def complete(self) -> bool:
        """Whether every pixel is known to hold image data."""
        return all(page.complete for page in self.pages)

    def coarser(self, height: int, width: int) -> Source:
        """Return this source."""
        return self

    def identity(self) -> JSON:
        """Return the first page's identity and the offsets of the pages."""
        return {**self.pages[0].identity(), "pages": [page.directory for page in self.pages]}


class TiffSource(Planes):
    """An OME-TIFF image as a source, with its pyramid (SubIFDs or series levels).

    `bands` picks channels by number from 1. `scene` picks one of several images from 0; by default the largest is read,
    and `notes` says so. `z` and `t` pick planes from 0, and must be given if there are several planes. `mpp` overrides
    micrometres per pixel, one number or (y, x). Raises `InputError` if the file's pages do not make an image that can
    be read, or lie in other files.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        bands: Sequence[int] | None = None,
        scene: int | None = None,
        z: int | None = None,
        t: int | None = None,
        mpp: float | tuple[float, float] | Resolution | None = None,
    ) -> None:
        known = stamp(path)
        made = _layout(str(path), known.path, scene, {"Z": z, "T": t})
        planes, sizes, self.notes = made.planes, made.sizes, made.notes
        self.selected = {
            name: value for name, value in (("scene", made.scene), ("z", z), ("t", t)) if value is not None
        }
        found = given_resolution(mpp, "um") or made.resolution
        picked = pick_bands(str(path), bands, len(planes[0]))
        self.levels: list[Planes] = []
        for level, (height, width) in zip(planes, sizes, strict=True):
            pages = [TiffPage(path, level[band - 1]) for band in picked]
            scale = found and Resolution(found.y * sizes[0][0] / height, found.x * sizes[0][1] / width, found.unit)
            self.levels.append(Planes(str(path), pages, scale))
        super().__init__(str(path), self.levels[0].pages, found)
        self.file_bands = tuple(Band(made.channels[band - 1]) for band in picked)
        # Colours lie within a page, whose samples are bands; its alpha is none of them.
        if self.shape[0] != len(picked):
            self.file_bands = tuple(page.file_bands[k - 1] for page in self.pages for k in page.numbers)

    def coarser(self, height: int, width: int) -> Source:
        """Return the smallest level with at least `height` x `width` pixels; this source if that is the first level."""
        fit = [level for level in self.levels if level.shape[1] >= height and level.shape[2] >= width]
        return fit[-1] if fit and fit[-1] is not self.levels[0] else self


@dataclass(frozen=True)
class Layout:
    """The places of the pixels of one image of a file."""

    planes: list[list[int]]
    """File offsets of the pages of the channels, for each level."""
    sizes: list[tuple[int, int]]
    """Size (height, width) of each level [pixels]."""
    resolution: Resolution | None
    """Pixel size of the first level."""
    scene: int | None
    """Number of the image in the file, from 0; None if there is only one image."""
    channels: tuple[str, ...]
    """Name of each channel, '' if it has none."""
    notes: tuple[str, ...]
    """Sentences about the choice of the image."""


def _layout(name: str, path: str, scene: int | None, picks: Mapping[str, int | None]) -> Layout:
    try:
        # The other files of a set that the OME-XML names are left closed: nothing outside an image is opened.
        with tifffile.TiffFile(path, _multifile=False) as file:
            images = [one for one in file.series if {"height", "width"} <= set(one.sizes)]
            titles = [(str(one.name), one.sizes["height"], one.sizes["width"]) for one in images]
            number, notes = pick_scene(name, scene, titles) if images else (0, ())
            series = images[number]
            offsets = [_channels(name, level, picks) for level in series.levels]
            sizes = [(level.sizes["height"], level.sizes["width"]) for level in series.levels]
            xml, place = file.ome_metadata or "", (file.series.index(series), len(file.series))
            channels = channel_names(xml, *place, count=len(offsets[0]))
            return Layout(
                offsets, sizes, physical_size(xml, *place), number if len(images) > 1 else None, channels, notes
            )
    except (tifffile.TiffFileError, OSError, ValueError, IndexError, KeyError) as error:
        raise InputError(f"{name} cannot be opened as OME-TIFF: {error}. It may be truncated or damaged.") from error


def _channels(name: str, level: tifffile.TiffPageSeries, picks: Mapping[str, int | None]) -> list[int]:
    """Return the offsets of the pages of the channels of one plane. Raises `InputError` if a page is missing."""
    lead = level.axes[: level.axes.index("Y")].replace("S", "")  # samples lie within a page
    if not set(lead) <= set("TCZ"):
        raise InputError(f"{name} has axes {level.axes}; Y, X and S with C, Z, T are read")
    shape = [level.shape[level.axes.index(axis)] for axis in lead]
    pages = [page.offset if page is not None else None for page in level.pages]
    # tifffile lists a page that is missing, or lies in another file, as None.
    if len(pages) != int(np.prod(shape)) or None in pages:
        raise InputError(
            f"{name} has {len(pages)} pages where its OME-XML lists {int(np.prod(shape))}; some are missing"
        )
    grid = np.array(pages, dtype=np.int64).reshape(shape)
    index: list[int | slice] = []
    for axis, size in zip(lead, shape, strict=True):
        index.append(slice(None) if axis == "C" else pick(name, axis.lower(), picks[axis], size))
    return [int(offset) for offset in np.atleast_1d(grid[tuple(index)])]


def _pixels(xml: str, image: int, images: int) -> ElementTree.Element:
    """Return the element of the pixels of one of the `images` in OME-XML. Raises `LookupError` or `ParseError`."""
    # Any namespace: each version of the OME schema has its own.
    found = list(ElementTree.fromstring(xml).iterfind("{*}Image/{*}Pixels"))
    if images > 1 and len(found) != images:
        raise LookupError("some images lie in other files, so the order of the rest is not known")
    return found[image]


def channel_names(xml: str, image: int = 0, images: int = 1, *, count: int) -> tuple[str, ...]:
    """Return the names of the `count` channels of one of the `images` in OME-XML; '' for those without one."""
    try:
        found = [channel.get("Name", "").strip() for channel in _pixels(xml, image, images).iterfind("{*}Channel")]
    except (ElementTree.ParseError, LookupError):
        found = []
    return tuple(found) if len(found) == count else ("",) * count


def physical_size(xml: str, image: int = 0, images: int = 1) -> Resolution | None:
    """Return the pixel size of one of the `images` in OME-XML; None if height or width is missing or no number."""
    try:
        said = _pixels(xml, image, images).attrib
        y, x = (
            float(said[f"PhysicalSize{axis}"]) * MICROMETRES[said.get(f"PhysicalSize{axis}Unit", "µm")] for axis in "YX"
        )
    except (ElementTree.ParseError, LookupError, ValueError):
        return None
    return Resolution(y, x, "um") if 0 < y < math.inf and 0 < x < math.inf else None
