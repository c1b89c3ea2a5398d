"""Finds the files of a mosaic: those of a folder, of a pattern such as tiles/*.tif, or of a list of paths."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from tilepipe.errors import InputError
from tilepipe.paths import refuse_remote, refuse_special
from tilepipe.sources.bands import Band
from tilepipe.text import missing, setting

ENDINGS = (".tif", ".tiff", ".jp2")
"""Endings of the files of a folder that are taken for parts of a mosaic, in lower or upper case."""
LIST = ".txt"
"""Ending of a list of paths, one a line."""
LARGEST_LIST = 64 << 20
"""Largest size of a list [bytes]."""
_WILD = re.compile(r"[*?\[]")
_SAFE_BAND = re.compile(r"_(B\d[0-9A])(?:_(\d+)m)?\.jp2$")
"""End of the name of a band's file in a Sentinel-2 product: the band, and its pixel size."""
_PRODUCT = re.compile(r"\.labels\.", re.IGNORECASE)
"""Part of the names of files that tilepipe writes beside an image."""


@dataclass(frozen=True)
class Files:
    """The files of one image, in order: where they overlap, a later file lies on top."""

    name: str
    """Name of the image in messages: the folder, the pattern, the list or the first file."""
    paths: tuple[str, ...]
    """Paths of the files."""
    place: Path | None
    """Path that stands for the image on disk; labels go beside it. None if there is no such path."""
    order: str
    """Order of the files in words."""
    notes: tuple[str, ...] = ()
    """Sentences about files that were left out."""
    named: tuple[Band, ...] = ()
    """Band that each file holds; () if only their names may say it."""


def is_pattern(what: object) -> TypeGuard[str | Path]:
    """Return whether `what` is a path with wildcards, and no file or folder itself."""
    named = isinstance(what, str | Path) and "://" not in str(what)
    return named and _WILD.search(str(what)) is not None and not os.path.lexists(str(what))


def is_list_of_paths(what: object) -> TypeGuard[Sequence[str | Path]]:
    """Return whether `what` is a Python list or tuple of paths."""
    return isinstance(what, list | tuple) and bool(what) and all(isinstance(path, str | Path) for path in what)


def holds_parts(folder: Path) -> bool:
    """Return whether a folder holds files that are taken for parts of a mosaic, or is a Sentinel-2 product."""
    if bands_of_safe(folder):
        return True
    with os.scandir(folder) as entries:
        return any(_is_part(entry.name) for entry in entries)


def files_of_mosaic(what: str | Path | Sequence[str | Path], allow: Sequence[str | Path] = ()) -> Files:
    """Return the files of a folder, a pattern, a list file or a Python list.

    A list file may name files in its own folder and below, and in the folders of `allow`. Raises `InputError` if there
    are no files, or if a list names a file elsewhere.
    """
    if is_list_of_paths(what):
        paths = tuple(str(path) for path in what)
        for named in paths:
            refuse_remote("the list", named)
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        return Files(f"{paths[0]}{more}", paths, None, "the list")
    assert isinstance(what, str | Path), "open_source gives nothing else"
    name, path = str(what), Path(what)
    if is_pattern(name):
        return _of_names(name, _folder_of(name), glob.glob(name, recursive=True))
    if path.is_dir() and (bands := bands_of_safe(path)):
        check_links(path / "manifest.safe", bands)
        return Files(name, bands, path, "their names")
    if path.is_dir():
        return _of_names(name, path, (os.path.join(name, found) for found in os.listdir(path)))
    return _of_list(path, allow)


def bands_of_safe(folder: Path) -> tuple[str, ...]:
    """Return the files of the bands of a Sentinel-2 product (a folder in SAFE format), each band in its finest pixels.

    The result is () for another folder.
    """
    finest: dict[tuple[Path, str], tuple[int, str]] = {}
    for path in sorted(folder.glob("GRANULE/*/IMG_DATA/**/*.jp2")):
        if found := _SAFE_BAND.search(path.name):
            # The files of a band differ in the end of their names: _10m, _20m or _60m; there is no end in level 1C.
            granule = path.relative_to(folder).parents[-3]
            here = int(found[2] or 0), str(path)
            finest[granule, found[1]] = min(here, finest.get((granule, found[1]), here))
    return tuple(path for _, path in finest.values())


def _folder_of(pattern: str) -> Path:
    """Return the folder before the first wildcard of a pattern."""
    parts = Path(pattern).parts
    return Path(*parts[: next(k for k, part in enumerate(parts) if _WILD.search(part))])


def _is_part(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in ENDINGS


def would_be_part(path: Path, folder: Path) -> bool:
    """Return whether a file that is written to `path` would be a part of the image that `folder` is, the next time."""
    inside = os.path.realpath(path.parent) == os.path.realpath(folder)
    return inside and _is_part(path.name) and not _PRODUCT.search(path.name)


def _of_names(name: str, place: Path, names: Iterable[str]) -> Files:
    """Return the files among `names`, sorted by name; labels that an earlier run has written there are left out."""
    found = sorted(path for path in names if _is_part(os.path.basename(path)))
    made = [path for path in found if _PRODUCT.search(os.path.basename(path))]
    paths = tuple(path for path in found if path not in set(made))
    if not paths:
        raise InputError(
            f"{name} names no file ({', '.join(ENDINGS)}) of an image; check the pattern, or name the folder"
        )
    count = "1 file" if len(made) == 1 else f"{len(made)} files"
    notes = (f"{count} of {name} left out, with the name of labels: {made[0]}",) if made else ()
    return Files(name, paths, place.absolute() if place.name in ("", "..") else place, "their names", notes)


def _of_list(path: Path, allow: Sequence[str | Path]) -> Files:
    refuse_special(path)
    if path.stat().st_size > LARGEST_LIST:
        raise InputError(f"{path} is larger than the {LARGEST_LIST >> 20} MiB of a list of files")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{path} is not an image, and no list of files in UTF-8 either") from None
    named = [(k, line.strip()) for k, line in enumerate(lines, 1) if line.strip() and not line.lstrip().startswith("#")]
    if not named:
        raise InputError(f"{path} is not an image, and names no files either; a list has one path a line")
    for _, line in named:
        refuse_remote(path, line)
    paths = tuple(str(path.parent / line) for _, line in named)
    for (k, _), file in zip(named, paths, strict=True):
        if not os.path.lexists(file):
            raise InputError(f"{path} is not an image; as a list of files it names in line {k} {missing(file)}")
    check_links(path, paths, allow)
    return Files(str(path), paths, path, "the list")


def check_links(index: Path, paths: Iterable[str], allow: Sequence[str | Path] = ()) -> None:
    """Raise `InputError` if a path that the file `index` names lies neither in its folder nor in a folder of `allow`.

    Links are followed: what counts is where the file itself lies. Nothing is opened.
    """
    homes = [os.path.realpath(folder) for folder in (index.absolute().parent, *allow)]
    inside: dict[str, str | None] = {}
    for path in paths:
        parent = os.path.dirname(path)
        if parent not in inside:
            real = os.path.realpath(parent)
            inside[parent] = None if _below(real, homes) else real
        outside = inside[parent]
        if outside is None and os.path.islink(path):
            real = os.path.dirname(os.path.realpath(path))
            outside = None if _below(real, homes) else real
        if outside is not None:
            raise InputError(
                f"{index} names {path}, which lies in {outside}; only files in the folder of {index.name} are opened. "
                f"If you trust it, allow the other folder too: {setting(allow=outside)}"
            )


def _below(path: str, folders: Iterable[str]) -> bool:
    return any(path == folder or path.startswith(os.path.join(folder, "")) for folder in folders)
