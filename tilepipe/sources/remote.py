"""Opens an image on a server: a GeoTIFF, whatever its name is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tilepipe.errors import InputError
from tilepipe.sources.address import address_of
from tilepipe.sources.base import Resolution, Source
from tilepipe.sources.beside import TIFF_MAGIC
from tilepipe.sources.geo_remote import RemoteTiff
from tilepipe.sources.remote_file import open_remote
from tilepipe.text import setting


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
    address = address_of(str(what))
    if driver not in (None, "GTiff"):
        raise InputError(f"{address} is on a server, where only GeoTIFFs are read, not {setting(driver=driver)}")
    if any(part.endswith((".zarr", ".zarray", ".zgroup", "zarr.json")) for part in address.key.split("/")):
        raise InputError(
            f"{address} is a Zarr, of which folders on this machine are read; download it first, or open it with zarr "
            "in Python and give the array, see docs/inputs.md"
        )
    remote, start = open_remote(address)
    if not start.startswith(TIFF_MAGIC):
        page = "a page of HTML, as a login or an error" if start.lstrip()[:1] == b"<" else "no GeoTIFF"
        raise InputError(f"{address} is {page}; only GeoTIFFs are read from a server; download it first")
    return RemoteTiff(remote, bands=bands, resolution=resolution, allow_palette=allow_palette)
