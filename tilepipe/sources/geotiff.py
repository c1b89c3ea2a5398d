"""GeoTiffSource: GeoTIFF, COG and plain TIFF through rasterio, one handle per thread and file."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio import DatasetReader

from tilepipe.arrays import DType, Pixels
from tilepipe.box import Box
from tilepipe.sources.acquired import raster_time
from tilepipe.sources.bands import Band
from tilepipe.sources.base import Georeference, Resolution, Source, all_finite, read_reflected
from tilepipe.sources.beside import check_beside, check_links, side_files
from tilepipe.sources.checks import given_resolution, pick_scene, usable
from tilepipe.sources.georeference import georeference_of, ground_resolution
from tilepipe.sources.geotiff_gdal import gdal
from tilepipe.sources.geotiff_layout import layout_of, pages_of
from tilepipe.sources.geotiff_read import Decoded
from tilepipe.sources.geotiff_tags import (
    bands_told,
    mask_kind,
    pick_bands,
    pixel_type,
    printed_resolution,
    refuse_complex,
    refuse_palette,
)
from tilepipe.sources.handles import Stamp, content_sha256, stamp
from tilepipe.sources.lossy import bytes_of, is_lossy
from tilepipe.sources.stac_bands import stac_bands
from tilepipe.text import JSON


class GeoTiffSource(Decoded):
    """A TIFF file as a source, at full resolution; its overviews are not used, averages are made from its pixels.

    `bands` picks bands by number from 1 (default: all but alpha). An alpha band, an internal or .msk mask, nodata and
    non-finite floats decide `valid`. `resolution` overrides the pixel size [metres]. `allow_driver` opens the file with
    another GDAL driver, for instance "VRT"; use it only for files you trust, as such files may name others.
    `allow_palette` is for label rasters: indices of a palette are read as they are, and numbers of any type are read.
    `scene` picks one of several images (pages that are no overviews) from 0; by default the largest is read, and
    `notes` says so. Pixels of one bit are 0 and 1, as they are stored.
    Raises `InputError` for files that are missing, truncated, no TIFF, of another dtype, or stored in too large pieces.
    """

    directory: int | None = None
    """Byte offset of the one page that is read; None if the file is opened as a whole."""
    printed = False
    """Whether the pixel size comes from the resolution tags, which many programs fill for a printer."""

    def __init__(
        self,
        path: str | Path,
        *,
        bands: Sequence[int] | None = None,
        resolution: Resolution | float | None = None,
        allow_driver: str = "GTiff",
        allow_palette: bool = False,
        scene: int | str | None = None,
    ) -> None:
        self.name = str(path)
        self._stamp = self._stamped(path)
        self._driver = allow_driver
        self._again: Callable[..., GeoTiffSource] = partial(
            GeoTiffSource, path, resolution=resolution, allow_driver=allow_driver, scene=scene
        )
        # By its offset, since GDAL gives no numbers to the levels in SubIFDs.
        page = "" if self.directory is None else f"GTIFF_DIR:off:{self.directory}:"
        self._target = page + self._target_of(self._stamp.path)
        self._check()
        self._choose(scene)
        with gdal(self.name, "opened"), self._opened(self._target) as dataset:
            check_links(self.name, dataset)
            self._describe(dataset, bands, allow_palette)
            self.lossy = is_lossy(dataset, self._stored)
            self.georeference: Georeference | None = georeference_of(dataset)
            self.resolution = given_resolution(resolution, "m") or ground_resolution(self.georeference, *self.shape[1:])
            if self.resolution is None and self.georeference is None:
                self.resolution = printed_resolution(dataset.tags())
                self.printed = self.resolution is not None
            self.acquired = raster_time(self._stamp.path, dataset.tags(ns="IMAGERY"))
            """When the image was taken; see `acquired_of`."""

    def _stamped(self, path: str | Path) -> Stamp:
        """Return the state of the file; with its path, it is the key of open files and of decoded rows."""
        return stamp(path)

    def _target_of(self, path: str) -> str:
        """Return GDAL's name of the file at `path`."""
        return path

    def _stored(self, offset: int, size: int) -> bytes:
        """Return bytes of the file."""
        return bytes_of(self._stamp.path, offset, size)

    def _check(self) -> None:
        """Refuse a file that names files elsewhere, before GDAL opens anything."""
        if self._driver == "GTiff":
            # A file beside the image may name overviews elsewhere, and GDAL would open them, over the network with the
            # user's keys too.
            check_beside(self._stamp.path)

    def _choose(self, scene: int | str | None) -> None:
        """Choose one image of a file that holds several."""
        self.selected: dict[str, int | str] = {}
        self.notes: tuple[str, ...] = ()
        if self.directory is not None or self._driver != "GTiff":
            return
        pages, sizes = pages_of(self.name, self._target, self._opened)
        number, self.notes = pick_scene(self.name, scene, sizes)
        if len(sizes) > 1:
            self.selected = {"scene": number}
        if number:
            self._target = pages[number]

    def _describe(self, dataset: DatasetReader, bands: Sequence[int] | None, allow_palette: bool) -> None:
        """Take over shape, dtype, layout and the kind of mask from the open file, or refuse it."""
        self._bands = pick_bands(self.name, dataset, bands)
        if not allow_palette:
            refuse_palette(self.name, dataset)
        self.scales = tuple((dataset.scales[band - 1], dataset.offsets[band - 1]) for band in self._bands)
        """Scale and offset of each band that is read, as the file states them; they are not applied."""
        refuse_complex(self.name, dataset.dtypes)
        self.dtype: DType = pixel_type(self.name, dataset.dtypes[0], labels=allow_palette)
        self.shape = (len(self._bands), int(dataset.height), int(dataset.width))
        self._mask = mask_kind(dataset, self._bands)
        self.file_bands = self._named(dataset)
        self._nodatas = [dataset.nodatavals[band - 1] for band in self._bands]
        self._files = self._contents(dataset)
        self._lay_out(dataset)

    def _named(self, dataset: DatasetReader) -> tuple[Band, ...]:
        """Return the file's names and colours of its bands; missing ones are taken from a STAC item beside the file."""
        return bands_told(dataset, stac_bands(self._stamp.path, dataset.count))

    def _contents(self, dataset: DatasetReader) -> list[str]:
        """Return the files whose bytes hold pixels or masks; of side files only the values that are read count."""
        # A TIFF's own list of files is not asked for: GDAL would open the overviews that the metadata names.
        if self._driver == "GTiff":
            mask = f"{self._stamp.path}.msk"
            return [self._stamp.path, *([mask] if self._mask == "mask" and os.path.exists(mask) else [])]
        return sorted(file for file in dataset.files if not file.endswith((".ovr", ".aux.xml")))

    def _lay_out(self, dataset: DatasetReader) -> None:
        """Decide how to read from how the pixels are stored; refuse what cannot be read in bounded memory."""
        layout = layout_of(self.name, dataset, self.shape, self.dtype, self._piece)
        self.striped, self._band_rows, self._large = layout.striped, layout.band_rows, layout.large
        self.cache_bytes = layout.cache_bytes
        """Memory that the reader keeps in a process, over all threads, beyond the pixels it returns [bytes]."""

    def _piece(self, dataset: DatasetReader, block_bytes: int) -> tuple[int, int]:
        """Return the size of a stored piece, decoded and as it is stored [bytes]; `block_bytes` is that of a block."""
        # GDAL may show one huge compressed strip as rows, and still load it whole.
        compressed = dataset.compression is not None
        return block_bytes, int(dataset.get_tag_item("BLOCK_SIZE_0_0", "TIFF", 1) or 0) if compressed else 0

    @property
    def numbers(self) -> tuple[int, ...]:
        """Numbers of the bands that are read, from 1 in `file_bands`."""
        return tuple(self._bands)

    def picking(self, numbers: Sequence[int]) -> GeoTiffSource:
        """Return the same file with other bands, by number from 1."""
        return self._again(bands=numbers)

    def at(self, known: Stamp) -> GeoTiffSource:
        """Return the pixels of another file whose header says the same as the header of this file, but for the place.

        The caller knows this. The file is not opened here.
        """
        if known == self._stamp:
            return self
        other = copy(self)
        other.name = other._target = known.path
        other._stamp, other._files, other.georeference, other.acquired = known, [known.path], None, ""
        return other

    @property
    def files(self) -> list[Path]:
        """Paths of the file and of the files beside it that GDAL reads."""
        return [*(Path(file) for file in self._files), *side_files(self._stamp.path)]

    def read(self, box: Box) -> Pixels:
        """Return the pixels of `box`, (bands, box.height, box.width), reflected outside the image.

        Raises `InputError`, which names file and box, if the pixels cannot be decoded.
        """
        return read_reflected(box, *self.shape[1:], lambda inside: self._read("pixels", inside))

    def valid(self, box: Box) -> NDArray[np.bool_] | None:
        """Return True where a pixel holds image data, or None when all do."""
        inside = box & Box.of_shape(*self.shape[1:])
        mask: NDArray[np.bool_] | None = None
        if inside is not None and self._mask == "nodata":
            # This is the rule of GDAL's dataset mask: a pixel holds no data only if all its bands hold the nodata
            # value, since in a single band it may be an ordinary value.
            mask = (self._read("pixels", inside) != self._nodatas[0]).any(axis=0)
        elif inside is not None and self._mask != "none":
            mask = self._read(self._mask, inside) > 0
        if inside is not None and self.dtype.kind == "f":
            finite = all_finite(self._read("pixels", inside))
            mask = finite if mask is None else mask & finite
        return usable(mask, box, *self.shape[1:])

    @property
    def complete(self) -> bool:
        """Whether every pixel is known to hold image data."""
        return self._mask == "none" and self.dtype.kind != "f"

    @property
    def nodata(self) -> float | None:
        """Value that stands for no image data; None if the file has no such value, or uses a mask or alpha."""
        return self._nodatas[0] if self._mask == "nodata" else None

    def coarser(self, height: int, width: int) -> Source:
        """Return this source: nobody knows how overviews were made, so they are not used."""
        return self

    def identity(self) -> JSON:
        """Return hashes of the files that hold pixels and masks, and the values that files beside them give."""
        return {
            "reader": self._driver,
            "sha256": [content_sha256(stamp(file)) for file in self._files],
            "directory": self.directory,
            "scene": self.selected.get("scene"),
            "georeference": self.georeference and asdict(self.georeference),
            **self.stated(),
        }

    def stated(self) -> JSON:
        """Return what the header says that decides pixels and their validity, but for the place."""
        return {
            "shape": list(self.shape),
            "dtype": self.dtype.name,
            "bands": list(self._bands),
            # As text, since JSON has no NaN.
            "nodata": [None if value is None else repr(value) for value in self._nodatas],
            "mask": self._mask,
        }

    @property
    def nodatas(self) -> tuple[float | None, ...]:
        """Nodata value of each band that is read; None for a band without one."""
        return tuple(self._nodatas)

    def with_nodata(self, value: float) -> GeoTiffSource:
        """Return a file without a mask whose pixels hold no data if all bands hold `value`."""
        other = copy(self)
        other._mask, other._nodatas = "nodata", [value] * len(self._bands)
        other._again = partial(_again_with_nodata, self._again, value)
        return other

    def mask_sha256(self) -> list[str]:
        """Return the hash of the file beside this one that holds its mask, if there is one."""
        return [content_sha256(stamp(file)) for file in self._files[1:]]


def _again_with_nodata(again: Callable[..., GeoTiffSource], value: float, bands: Sequence[int]) -> GeoTiffSource:
    """Return a file with other bands and a given nodata value; a function of a module can be pickled."""
    return again(bands=bands).with_nodata(value)
