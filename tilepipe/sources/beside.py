"""Checks files beside a TIFF that GDAL reads by itself, and links in them: no file of another folder is opened."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from tilepipe.errors import InputError
from tilepipe.paths import refuse_special

TIFF_MAGIC = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
AFTER = (".aux.xml", ".msk", ".ovr", ".msk.ovr", ".msk.aux.xml", ".ovr.aux.xml", ".aux", ".rpb")
"""Endings that GDAL appends to the whole name."""
INSTEAD = (".aux", ".tfw", ".tifw", ".tiffw", ".wld", ".prj", ".rpb", ".imd", ".pvl", ".tab")
"""Endings that GDAL puts in place of the image's own ending, in lower and upper case."""
LARGEST_TEXT = 64 << 20
"""Largest size of a side file that is looked through [bytes]; a larger file is refused."""
OVERVIEW_LINKS = {"OVERVIEWS": "OVERVIEW_FILE", "ProxyOverviewRequest": "FILENAME"}
"""Metadata whose value names a file. GDAL opens any such file when it is asked for overviews or a dataset's files."""
_LINKS = {
    ".xml": re.compile(rb"OVERVIEW_FILE|<\s*SourceFilename|<\s*SourceDataset|VRTDataset", re.IGNORECASE),
    ".aux": re.compile(rb"/vsi[a-z0-9_]+/", re.IGNORECASE),
}
"""Patterns by which side files name other files, by ending of the side file."""
_OWN = re.compile(rb"OVERVIEW_FILE['\"]\s*>\s*:::BASE:::[^/\\<]+<", re.IGNORECASE)
"""Pattern of the link that gdaladdo itself writes for a file of the same folder."""


def side_files(path: str) -> list[Path]:
    """Return the files beside `path` that GDAL looks for by name and that exist."""
    # A link to nowhere counts too: its target may come later.
    return [Path(name) for name in side_names(path) if os.path.lexists(name)]


def side_names(path: str) -> list[str]:
    """Return the names of all files beside `path` that GDAL looks for."""
    stem = os.path.splitext(path)[0]
    names = [path + end for end in AFTER]
    names += [stem + case for end in INSTEAD for case in (end, end.upper())]
    return names + [stem + "_" + end for end in ("RPC.TXT", "rpc.txt", "metadata")]


def check_beside(path: str) -> None:
    """Raise `InputError` if `path` or a file beside it is no plain file, or names a file that lies elsewhere.

    Only plain files are opened, in the folder of the image or of the file that the image is a link to.
    """
    _check_tiff(path)
    check_sides(path)


def check_sides(path: str) -> None:
    """Raise `InputError` if a file beside `path`, an image of any format, is no plain file or names files elsewhere."""
    folders = {os.path.realpath(os.path.dirname(path)), os.path.dirname(os.path.realpath(path))}
    for file in side_files(path):
        refuse_special(file)
        if os.path.dirname(os.path.realpath(file)) not in folders:
            raise InputError(f"{file} is a link out of the folder of the image, so nothing is opened; remove the link")
        if not file.is_file():
            continue
        # GDAL goes by content: it would open a virtual raster that is named .msk, and the files that it names.
        if file.suffix in (".msk", ".ovr"):
            _check_tiff(str(file))
        elif file.suffix in _LINKS:
            _check_text(path, file)


def check_links(path: str, dataset: Any) -> None:
    """Raise `InputError` if an open TIFF names another file in its metadata; no such file is opened."""
    for domain, key in OVERVIEW_LINKS.items():
        named = {name.upper(): value for name, value in dataset.tags(ns=domain).items()}.get(key)
        # GDAL writes :::BASE::: for the folder of the image.
        if named is not None and not re.fullmatch(r":::BASE:::[^/\\]+", named):
            raise InputError(
                f"{path} says that its overviews are in {named[:80]!r}; nothing outside an image is opened. "
                "Copy the pixels alone: gdal_translate -co COPY_SRC_MDD=NO -nomd in.tif out.tif"
            )


def _check_text(path: str, file: Path) -> None:
    size = file.stat().st_size
    if size > LARGEST_TEXT:
        raise InputError(f"{file} has {size >> 20} MiB; side files up to {LARGEST_TEXT >> 20} MiB are read. Remove it")
    refuse_named_files(path, str(file), file.read_bytes())


def refuse_named_files(path: str, file: str, content: bytes) -> None:
    """Raise `InputError` if the `content` of a `file` beside the image `path` names files that GDAL would open."""
    links = _LINKS.get(os.path.splitext(file)[1].lower())
    found = links.search(_OWN.sub(b"", content)) if links else None
    if found:
        raise InputError(
            f"{file} names other files ({found.group().decode(errors='replace')}), and GDAL would open them; "
            f"nothing outside an image is opened. Remove it, or that entry of it, and give {Path(path).name} again"
        )


def _check_tiff(name: str) -> None:
    refuse_special(name)
    try:
        with open(name, "rb") as file:
            start = file.read(4)
    except OSError as error:
        raise InputError(f"{name} cannot be opened: {error.strerror or error}") from error
    if start not in TIFF_MAGIC:
        raise InputError(
            f"{name} is not a TIFF file, whatever its name says. "
            'A virtual raster that you trust is opened with allow_driver="VRT".'
        )
