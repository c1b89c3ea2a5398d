"""Opens an image on a server: a Zarr, if a part of its address says so, or else a GeoTIFF, whatever its name is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tilepipe.errors import InputError
from tilepipe.sources.address import address_of
from tilepipe.sources.base import Resolution, Source
from tilepipe.sources.beside import TIFF_MAGIC
from tilepipe.text import setting


def opener_of_address(what: str | Path) -> Callable[..., Source]:
    """Return what opens the image at an address. A Zarr is known by a name that ends in .zarr, or by a / at the end."""
    key = str(what).split("?")[0] if "://" in str(what) else ""
    if (
        not any(part.endswith((".zarr", ".zarray", ".zgroup", "zarr.json")) for part in key.split("/"))
        and key[-1:] != "/"
    ):
        return open_address
    from tilepipe.sources.zarr_remote import RemoteZarr  # the library takes as long to import as all others here

    return RemoteZarr


def open_address(
    what: str | Path,
    *,
    bands: Sequence[int] | None = None,
    resolution: Resolution | float | None = None,
    driver: str | None = None,
    allow_palette: bool = False,
) -> Source:
    """Open the image at an address that the user names: https://, s3://, gs:// or az://.

    Raises `InputError` with what to type if the server does not send it, and `UsageError` for an address that is none.
    """
    # What asks servers takes 0.1 s to import, and most images are files.
    from tilepipe.sources.geo_remote import RemoteTiff
    from tilepipe.sources.remote_file import open_remote

    address = address_of(str(what))
    if driver not in (None, "GTiff"):
        raise InputError(f"{address} is on a server, where only GeoTIFFs are read, not {setting(driver=driver)}")
    remote, start = open_remote(address)
    if not start.startswith(TIFF_MAGIC):
        page = "a page of HTML, as a login or an error" if start.lstrip()[:1] == b"<" else "no GeoTIFF"
        raise InputError(f"{address} is {page}; only GeoTIFFs and Zarrs are read from a server; {address.download}")
    return RemoteTiff(remote, bands=bands, resolution=resolution, allow_palette=allow_palette)
