"""Companions: the other files of a slide, in the folder of a MIRAX file or beside a DICOM or VMS file."""

from __future__ import annotations

import os
import re
from pathlib import Path

from tilepipe.errors import InputError
from tilepipe.paths import refuse_special

MIRAX = ".mrxs"
HAMAMATSU = (".vms", ".vmu")
INDEX_BYTES = 16 << 20
"""Largest part of an index of names that is looked through [bytes]."""
SERIES = b"\x20\x00\x0e\x00UI"
"""Bytes that begin the SeriesInstanceUID (0020,000E) in explicit little endian, as whole-slide DICOM is written."""
KIND = b"\x02\x00\x02\x00UI"
"""Bytes that begin the class of a DICOM file (0002,0002)."""
SLIDE = b"1.2.840.10008.5.1.4.1.1.77.1.6"
"""Class of whole-slide images."""
HEADER_BYTES = 1 << 20
"""Size of the start of a DICOM file in which its series is named [bytes]."""
# Keys whose values name files: FILE_0 and INDEXFILE of MIRAX; ImageFile(1,0), MapFile and OptimisationFile of
# Hamamatsu.
_NAMES = re.compile(
    r"^\s*(?:FILE_\d+|INDEXFILE|\w*(?:Image|Map|Optimisation)File\w*(?:\([^)]*\))?)[ \t]*=[ \t]*(\S.*?)\s*$",
    re.MULTILINE | re.IGNORECASE,
)


def check_companions(path: Path) -> None:
    """Raise `InputError` if a slide's index names files in other folders, or its files are links out of their folder.

    Only the index is opened.
    """
    ending = path.suffix.lower()
    if ending == MIRAX:
        folder, index = path.parent / path.stem, path.parent / path.stem / "Slidedat.ini"
    elif ending in HAMAMATSU:
        folder, index = path.parent, path
    else:
        return
    refuse_special(index)
    if not index.is_file():
        return
    with index.open("rb") as file:
        named = _NAMES.findall(file.read(INDEX_BYTES).decode("utf-8", errors="replace"))
    homes = {os.path.realpath(folder), os.path.dirname(os.path.realpath(path))}
    for name in [*named, index.name]:
        file_path = folder / name
        # OpenSlide opens every file that an index names, also in ../../ and by links.
        if re.search(r"[/\\]", name) or os.path.dirname(os.path.realpath(file_path)) not in homes:
            raise InputError(f"{index} names {name!r}, outside of {folder}; nothing outside a slide is opened")
        refuse_special(file_path)


def slide_files(path: Path, vendor: str) -> list[Path]:
    """Return all files that hold a slide's pixels, and no other files that lie beside them."""
    others: list[Path] = []
    if vendor == "mirax":
        others = [file for file in (path.parent / path.stem).glob("*") if file.suffix.lower() in (".dat", ".ini")]
    elif vendor == "dicom":
        series = dicom_series(path)
        found = ((file, dicom_series(file)) for file in path.parent.iterdir() if file.is_file())
        # A file whose series is not known may be part of the slide, so it counts.
        others = [file for file, own in found if own is not None and (own == series or not own or not series)]
    elif path.suffix.lower() in HAMAMATSU:
        listed = path.read_text(errors="replace")
        others = [file for file in path.parent.iterdir() if file.is_file() and file.name in listed]
    return sorted({path, *others})


def dicom_series(path: Path) -> bytes | None:
    """Return the series that a DICOM file belongs to.

    The result is b'' if the file names no series in a known way, and None if the file is no DICOM file, or one that
    says it is no slide: a segmentation, for instance, names the series of its slide before its own.
    """
    with path.open("rb") as file:
        # A DICOM file begins with 128 bytes of any content.
        start = file.read(HEADER_BYTES) if file.read(132)[128:] == b"DICM" else None
    if start is None or _text_after(KIND, start) not in (SLIDE, b""):
        return None
    return _text_after(SERIES, start)


def _text_after(mark: bytes, start: bytes) -> bytes:
    """Return the text of the first element that begins with `mark`; b'' if there is none."""
    at = start.find(mark)
    size = int.from_bytes(start[at + 6 : at + 8], "little")
    return start[at + 8 : at + 8 + size].strip(b"\0 ") if at >= 0 else b""
