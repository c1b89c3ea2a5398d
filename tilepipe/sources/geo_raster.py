"""RasterSource: rasters of formats other than TIFF, by a GDAL driver that the user names."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from rasterio import DatasetReader

from tilepipe.errors import InputError, UsageError
from tilepipe.sources.bands import Band
from tilepipe.sources.base import Resolution
from tilepipe.sources.beside import check_sides
from tilepipe.sources.geo_drivers import (
    DRIVERS,
    ENVI,
    HDF5,
    HDF5_MAGIC,
    JPEG_2000,
    NETCDF,
    driver_named,
    header_of_envi,
)
from tilepipe.sources.geo_hdf import check_hdf, piece_bytes, variables_of
from tilepipe.sources.geotiff import GeoTiffSource
from tilepipe.sources.geotiff_gdal import gdal, open_dataset
from tilepipe.sources.handles import stamp
from tilepipe.text import setting

SHOWN = 20
"""Largest number of variables that a message lists."""
WAVELETS = 12
"""Memory for a value of JPEG 2000 while it is decoded [bytes]: 32 bits, the same for its wavelets, and a copy."""


class RasterSource(GeoTiffSource):
    """A raster of another format than TIFF as a source, read by the GDAL driver that is named.

    `driver` is 'JP2OpenJPEG' (JPEG 2000), 'HFA' (Erdas Imagine), 'netCDF', 'HDF5' or 'ENVI'. `scene` names the variable
    of a netCDF or HDF5 file; it must be given if there are several. Values are those that are stored: a scale and an
    offset that the file states are not applied. The other options are those of `GeoTiffSource`. Raises `InputError` if
    the file has another format or names files elsewhere, and `UsageError` for another driver.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        driver: str,
        bands: Sequence[int] | None = None,
        resolution: Resolution | float | None = None,
        allow_palette: bool = False,
        scene: int | str | None = None,
    ) -> None:
        self.driver = driver_named(driver)
        """Name of the GDAL driver that the user named."""
        self.variables: tuple[str, ...] = ()
        """Names of the variables of the file, if it holds several."""
        super().__init__(
            path,
            bands=bands,
            resolution=resolution,
            allow_driver=self.driver,
            allow_palette=allow_palette,
            scene=scene,
        )
        self._again: Callable[..., GeoTiffSource] = partial(
            RasterSource, path, driver=driver, resolution=resolution, scene=scene
        )

    def _check(self) -> None:
        """Refuse a file of another format, and one that names files elsewhere, before GDAL opens it."""
        self._hdf = _checked(self.name, self._stamp.path, self.driver)

    def _choose(self, scene: int | str | None) -> None:
        """Choose one variable of a file that holds several."""
        self.selected, self.notes = {}, ()
        if self.driver not in (NETCDF.name, HDF5.name):
            if scene not in (None, 0):
                raise UsageError(f"{self.name} holds one image, so scene={scene!r} is not there")
            return
        known = variables(self.name, self._stamp.path, self.driver)
        self.variables = tuple(known)
        if not known:
            raise InputError(f"{self.name} holds no variable with two axes, so there is no image in it")
        names = list(known)
        if scene is None and len(names) > 1:
            raise InputError(
                f"{self.name} holds {len(names)} variables: {_listed(known)}; name the one that is the image: "
                f"{setting(scene=names[0])}{_joined(known)}"
            )
        if isinstance(scene, int):
            scene = names[scene] if 0 <= scene < len(names) else str(scene)
        name = names[0] if scene is None else str(scene).strip("/") if self.driver == HDF5.name else str(scene)
        if name not in known:
            raise UsageError(f"{self.name} holds no variable {name!r}; it holds {_listed(known)}")
        if len(names) > 1:
            self.selected = {"scene": name}
            self._target, self._driver = known[name][0], DRIVERS[self.driver].inner or self.driver
        self._variable = name

    def _contents(self, dataset: DatasetReader) -> list[str]:
        """Return the files that hold pixels. Raises `InputError` if one of them lies in another folder."""
        found = super()._contents(dataset)
        path = self._stamp.path
        homes = {os.path.realpath(os.path.dirname(path)), os.path.dirname(os.path.realpath(path))}
        for file in dataset.files:
            if os.path.dirname(os.path.realpath(file)) not in homes:
                raise InputError(f"{self.name} names the file {file}; nothing outside the folder of an image is opened")
        return found or [path]

    def _named(self, dataset: DatasetReader) -> tuple[Band, ...]:
        """Return the names of the bands; those of a variable with more axes are named by their place along these."""
        return tuple(
            band if band.name else Band(_place(dataset.tags(number)), band.colour)
            for number, band in enumerate(super()._named(dataset), 1)
        )

    def _piece(self, dataset: DatasetReader, block_bytes: int) -> tuple[int, int]:
        """Return the size of a stored piece, decoded and as it is stored [bytes]."""
        if self.driver == JPEG_2000.name:
            tiles = tiles_of_jpeg2000(self._stamp.path)
            # A tile of the codestream is loaded whole, also if a part of it is decoded.
            return WAVELETS // self.dtype.itemsize * block_bytes, self._stamp.size // tiles
        if self._hdf:
            return max(block_bytes, piece_bytes(self.name, self._stamp.path, self._variable)), 0
        return block_bytes, 0

    def _lay_out(self, dataset: DatasetReader) -> None:
        super()._lay_out(dataset)
        # The library of HDF5 is used by one thread at a time.
        self._large = self._large or self.driver in (NETCDF.name, HDF5.name)


def _checked(name: str, path: str, driver: str) -> bool:
    """Return whether a file is HDF5. Raises `InputError` if it has not the format of `driver`, or names other files."""
    with open(path, "rb") as file:
        start = file.read(32)
    magic = DRIVERS[driver].magic
    if magic and not start.startswith(magic):
        raise InputError(f"{name} is not {DRIVERS[driver].title}, whatever its name says; leave `driver` out")
    if driver == ENVI.name and header_of_envi(Path(path)) is None:
        raise InputError(
            f"{name} has no header of ENVI beside it ({Path(path).with_suffix('.hdr').name}); name the file of pixels, "
            "and keep the header in its folder"
        )
    check_sides(path)
    if start.startswith(HDF5_MAGIC):
        check_hdf(name, path)
    return start.startswith(HDF5_MAGIC)


def variables(name: str, path: str, driver: str) -> dict[str, tuple[str, str]]:
    """Return each variable of a netCDF or HDF5 file by its name: GDAL's name, and size and type in words.

    Raises `InputError` if the file is damaged, of another format, or names other files.
    """
    if '"' in path:
        raise InputError(f"{name} has a quotation mark in its path, which GDAL cannot open; rename it")
    hdf = _checked(name, path, driver)
    with gdal(name, "opened"), open_dataset(path, driver) as dataset:
        said = dataset.tags(ns="SUBDATASETS")
        if not said and dataset.count:
            own = dataset.tags(1).get("NETCDF_VARNAME") or next(iter(variables_of(name, path) if hdf else ()), "image")
            size = f"{dataset.count}x{dataset.height}x{dataset.width}, {dataset.dtypes[0]}"
            return {own: (path, size)}
    found: dict[str, tuple[str, str]] = {}
    for key, target in said.items():
        if not key.endswith("_NAME"):
            continue
        variable = target[len(driver) + 1 :].removeprefix(f'"{path}":').removeprefix(f"{path}:").lstrip("/")
        words = re.match(r"\[(.*?)\].*\((.*)\)$", said.get(key.replace("_NAME", "_DESC"), ""))
        found[variable] = target, f"{words[1]}, {words[2]}" if words else ""
    return found


def variables_to_name(path: str, options: Mapping[str, object]) -> dict[str, str] | None:
    """Return size and type, in words, of each variable of a file of which one must be named; None if none must be."""
    driver = options.get("driver")
    if options.get("scene") is not None or str(driver).lower() not in (NETCDF.name.lower(), HDF5.name.lower()):
        return None
    known = variables(path, stamp(path).path, driver_named(str(driver)))
    return {name: size for name, (_, size) in known.items()} if len(known) > 1 else None


def _listed(known: dict[str, tuple[str, str]]) -> str:
    shown = [f"{name} ({size})" if size else name for name, (_, size) in known.items()]
    return ", ".join(shown[:SHOWN]) + (f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else "")


def _joined(known: dict[str, tuple[str, str]]) -> str:
    """Return what to type if variables of one size are the bands of one image; '' if their sizes differ."""
    if len({size for _, size in known.values()}) > 1:
        return ""
    named = " ".join(shlex.quote(target) for target, _ in list(known.values())[:SHOWN])
    more = " ..." if len(known) > SHOWN else ""
    return (
        f". If they are the bands of one image, join them: gdalbuildvrt -separate all.vrt {named}{more} "
        "&& gdal_translate all.vrt out.tif"
    )


def _place(tags: dict[str, str]) -> str:
    """Return the place of a band along the axes before y and x, such as time=3; '' if there is none."""
    axes = {name.removeprefix("NETCDF_DIM_"): value for name, value in tags.items() if name.startswith("NETCDF_DIM_")}
    return " ".join(f"{name}={value}" for name, value in axes.items())


def tiles_of_jpeg2000(path: str) -> int:
    """Return the number of tiles of a JPEG 2000 codestream, by its SIZ marker; 1 if it is not found."""
    with open(path, "rb") as file:
        start = file.read(1 << 20)
    at = start.find(b"\xff\x4f\xff\x51")
    if at < 0 or len(start) < at + 40:
        return 1
    width, height, x, y, tile_width, tile_height, tile_x, tile_y = (
        int.from_bytes(start[k : k + 4], "big") for k in range(at + 8, at + 40, 4)
    )
    if not (tile_width and tile_height and width > x and height > y):
        return 1
    return max(1, -(-(width - tile_x) // tile_width) * -(-(height - tile_y) // tile_height))
