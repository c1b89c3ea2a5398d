"""Archive: what a zip file holds, checked before anything in it is read; nothing is unpacked to the disk.

A zip may claim a million members, name files outside itself, hold links, or unpack to far more than its own size.
"""

from __future__ import annotations

import os
import re
import stat
import zipfile
from pathlib import Path

from tilepipe.errors import InputError
from tilepipe.paths import refuse_special

ZIP = ".zip"
MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
"""First bytes of a zip, and of one without members."""
VSI = "/vsizip/"
"""Name of zip files in GDAL's paths."""
RASTERS = (".tif", ".tiff")
"""Endings of the members that are read, in lower or upper case."""
MOST_MEMBERS = 10_000
LARGEST_INDEX = 16 << 20
"""Largest size of the list of members [bytes]."""
LARGEST = 1 << 40
"""Largest size of all members, unpacked [bytes]."""
LARGEST_RATIO = 200
"""Largest size of a member, as a multiple of its size in the zip; images rarely reach 100."""
SMALL = 1 << 20
"""Size of a member from which its ratio counts [bytes]."""
SHOWN = 8
_END, _END_64 = b"PK\x05\x06", b"PK\x06\x06"


def split_archive(what: str | Path) -> tuple[Path, str] | None:
    """Return the zip file and the member that a path names, '' for none; None if the path goes through no zip."""
    text = re.sub(r"^/vsizip/\{(.*?)\}/?", r"\1/", str(what)) if str(what).startswith(VSI + "{") else str(what)
    path = Path(text.removeprefix(VSI).rstrip("/"))
    for above in (path, *path.parents):
        if above.suffix.lower() == ZIP and above.is_file():
            inside = path.relative_to(above).as_posix()
            return above, "" if inside == "." else inside
    return None


def members_of(archive: Path) -> dict[str, zipfile.ZipInfo]:
    """Return the members of a zip that are files, by name. Raises `InputError` if one of them is hostile or too large.

    Only the list of members is read.
    """
    refuse_special(archive)
    try:
        _refuse_long_list(archive)
        with zipfile.ZipFile(archive) as opened:
            infos = opened.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise InputError(f"{archive} is a damaged zip: {error}") from None
    found: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        _refuse_hostile(archive, info)
        if info.filename in found:
            raise InputError(f"{archive} holds {info.filename[:80]!r} twice, so nobody knows which is meant; unzip it")
        if not info.is_dir():
            found[info.filename] = info
    unpacked, packed = sum(info.file_size for info in infos), sum(info.compress_size for info in infos)
    if unpacked > LARGEST:
        raise InputError(f"{archive} unpacks to {unpacked >> 30} GiB; at most {LARGEST >> 30} GiB are read")
    if packed > os.path.getsize(archive):
        raise InputError(f"{archive} has members that lie over each other, as zip bombs do; nothing in it is read")
    return found


def raster_in(archive: Path, members: dict[str, zipfile.ZipInfo], inside: str) -> str:
    """Return the member that is the image. Raises `InputError` with what to type if there is none, or several."""
    rasters = sorted(name for name in members if name.lower().endswith(RASTERS))
    listed = ", ".join(rasters[:SHOWN]) + (f" and {len(rasters) - SHOWN} more" if len(rasters) > SHOWN else "")
    if inside in members:
        if inside not in rasters:
            raise InputError(f"{archive} is read for GeoTIFFs ({', '.join(RASTERS)}) alone; unzip it to read {inside}")
        return inside
    if inside:
        raise InputError(f"{archive} holds no {inside}" + (f"; it holds {listed}" if rasters else ""))
    if not rasters:
        raise InputError(
            f"{archive} holds no GeoTIFF ({', '.join(RASTERS)}) among its {len(members)} files; unzip it to read others"
        )
    if len(rasters) > 1:
        raise InputError(
            f"{archive} holds {len(rasters)} GeoTIFFs: {listed}; name one: {archive}/{rasters[0]}. If they are parts "
            "of one image, unzip them and name the folder"
        )
    return rasters[0]


def _refuse_long_list(archive: Path) -> None:
    """Raise `InputError` if the list of members is too long to be read, as the end of the zip says."""
    with archive.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - (66 << 10)))
        end = file.read()
    at, wide = end.rfind(_END), end.rfind(_END_64)
    count, length = (int.from_bytes(end[at + k : at + k + n], "little") for k, n in ((10, 2), (12, 4)))
    if at >= 0 and wide >= 0:
        count, length = (int.from_bytes(end[wide + k : wide + k + 8], "little") for k in (32, 40))
    if at >= 0 and (count > MOST_MEMBERS or length > LARGEST_INDEX):
        raise InputError(
            f"{archive} holds {count} files in a list of {length >> 10} KiB; at most {MOST_MEMBERS} files and "
            f"{LARGEST_INDEX >> 10} KiB are read. Unzip it"
        )


def _refuse_hostile(archive: Path, info: zipfile.ZipInfo) -> None:
    """Raise `InputError` for a member that names a place outside the zip, is a link, or is packed beyond reason."""
    name = info.filename
    begin = f"{archive} holds {name[:80]!r}"
    if name.startswith("/") or ".." in name.split("/") or re.search(r"[\\:\x00-\x1f]", name):
        raise InputError(f"{begin}, a name that leads out of the zip; nothing in it is read")
    if (kind := stat.S_IFMT(info.external_attr >> 16)) not in (0, stat.S_IFREG, stat.S_IFDIR):
        what = "a link" if kind == stat.S_IFLNK else "no ordinary file"
        raise InputError(f"{begin}, which is {what}; nothing in the zip is read")
    if info.flag_bits & 1:
        raise InputError(f"{begin}, which is encrypted; unzip it with its password")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(f"{begin}, which is packed by method {info.compress_type}; stored and deflated ones are read")
    if info.file_size > max(SMALL, LARGEST_RATIO * info.compress_size):
        raise InputError(
            f"{begin}, which unpacks from {info.compress_size} to {info.file_size} bytes, more than {LARGEST_RATIO} "
            "times its size, as zip bombs do; unzip it yourself if you trust it"
        )
