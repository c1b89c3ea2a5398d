"""Lists the GDAL drivers, besides that of GeoTIFF, by which rasters are read: the user names one, nothing is guessed.

JPEG 2000 alone is recognised by its first bytes: it is one image, and names no other file. Files of the other formats
may name files or hold several images, and their decoders are large, so a name such as image.tif must not lead to them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tilepipe.errors import InputError, UsageError
from tilepipe.sources.geo_rasterio import rasterio
from tilepipe.text import did_you_mean, setting

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
"""First bytes of HDF5, and so of netCDF-4."""


@dataclass(frozen=True)
class Driver:
    """A GDAL driver that may be asked for."""

    name: str
    """Name of the driver."""
    title: str
    """Name of the format in messages."""
    magic: tuple[bytes, ...] = ()
    """First bytes of its files; () if they have none."""
    inner: str = ""
    """Driver that opens one of several images of a file, if it is another one."""


JPEG_2000 = Driver("JP2OpenJPEG", "JPEG 2000", (b"\x00\x00\x00\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"))
HFA = Driver("HFA", "Erdas Imagine", (b"EHFA_HEADER_TAG",))
NETCDF = Driver("netCDF", "netCDF", (b"CDF\x01", b"CDF\x02", b"CDF\x05", HDF5_MAGIC))
HDF5 = Driver("HDF5", "HDF5", (HDF5_MAGIC,), "HDF5Image")
ENVI = Driver("ENVI", "ENVI")
DRIVERS = {driver.name: driver for driver in (JPEG_2000, HFA, NETCDF, HDF5, ENVI)}
"""The drivers that may be asked for, besides GTiff and VRT, by name."""
NAMES = ("GTiff", "VRT", *DRIVERS)
"""All names that `driver` takes."""


def driver_named(name: str) -> str:
    """Return the name of a driver as GDAL writes it. Raises `UsageError` if it is not allowed, or not in this GDAL."""
    found = next((known for known in NAMES if known.lower() == name.strip().lower()), None)
    if found is None:
        raise UsageError(f"`driver` {did_you_mean(name, NAMES)}")
    if found != "VRT" and found not in built_in():
        there = ", ".join(known for known in NAMES if known == "VRT" or known in built_in())
        raise UsageError(
            f"this build of GDAL ({rasterio.__gdal_version__}) has no driver {found}; it has {there}. A GDAL "
            f"that has it comes with: conda install -c conda-forge rasterio libgdal-{found.lower()}"
        )
    return found


def built_in() -> frozenset[str]:
    """Return the names of all drivers of this build of GDAL."""
    with rasterio.Env() as env:
        return frozenset(env.drivers())


def refuse_unasked(path: Path, start: bytes) -> None:
    """Raise `InputError` with what to type if a file that begins with `start` needs a driver that nobody named."""
    if start.startswith(HFA.magic):
        raise _asks(path, HFA)
    if start.startswith(HDF5_MAGIC):
        raise _asks(path, NETCDF if path.suffix.lower() in (".nc", ".nc4", ".cdf") else HDF5)
    if start.startswith(NETCDF.magic):
        raise _asks(path, NETCDF)
    if path.suffix.lower() != ".hdr" and header_of_envi(path) is not None:
        raise _asks(path, ENVI)


def _asks(path: Path, driver: Driver) -> InputError:
    return InputError(
        f"{path} is {driver.title}, which is read only if its driver is named: {setting(driver=driver.name)}"
    )


def header_of_envi(path: Path) -> Path | None:
    """Return the text file beside `path` that describes it as ENVI; None if there is none."""
    for header in (path.with_suffix(".hdr"), Path(f"{path}.hdr")):
        if header.is_file():
            with header.open("rb") as file:
                if file.read(4) == b"ENVI":
                    return header
    return None
