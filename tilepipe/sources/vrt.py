"""Reads a virtual raster (VRT) that places files side by side, by our own parser; GDAL never opens the VRT itself.

A VRT may name any file, compute pixels by formulas, and read raw bytes. Here it may only draw whole pixels of GeoTIFFs
that lie beside it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.sources.bands import Band
from tilepipe.sources.base import Georeference
from tilepipe.sources.georeference import wkt_of

LARGEST = 256 << 20
"""Largest size of a VRT [bytes]."""
SOURCES = ("SimpleSource", "ComplexSource")
READ = ("SourceFilename", "SourceBand", "SourceProperties", "SrcRect", "DstRect", "NODATA")
"""What is read of a source; another part of it would change its pixels."""
LEFT = ("SRS", "GeoTransform", "Metadata", "VRTRasterBand", "OverviewList", "MaskBand", "BlockXSize", "BlockYSize")
"""What a VRT may hold; metadata, overviews and the mask of its files are not needed."""
TYPES = {"Byte": "uint8", "UInt16": "uint16", "Int16": "int16", "Float32": "float32"}


class Drawn(NamedTuple):
    """A piece of a file that is drawn into the VRT."""

    path: str
    """Path of the file."""
    box: Box
    """Pixels of the VRT that the piece covers."""
    y: int
    """First row of the piece in the file."""
    x: int
    """First column of the piece in the file."""


@dataclass(frozen=True)
class VrtBand:
    """A band of a VRT."""

    drawn: tuple[Drawn, ...]
    """Pieces in the order in which they are drawn: a later one lies on top."""
    number: int
    """Number of the band in the files."""
    dtype: str
    """Type of the pixels."""
    nodata: float | None
    """Value that stands for no image data; None if there is none."""
    named: Band
    """Name and colour."""


@dataclass(frozen=True)
class Vrt:
    """The content of a VRT."""

    shape: tuple[int, int]
    """Shape (height, width) [pixels]."""
    georeference: Georeference | None
    """Position on the earth; None if there is none."""
    bands: tuple[VrtBand, ...]
    """Bands, in order."""

    def groups(self) -> list[tuple[VrtBand, ...]]:
        """Return the bands in groups that draw the same pieces of the same files."""
        found: dict[tuple[Drawn, ...], list[VrtBand]] = {}
        for band in self.bands:
            found.setdefault(band.drawn, []).append(band)
        return [tuple(group) for group in found.values()]


def read_vrt(path: Path) -> Vrt:
    """Return the content of a VRT. Raises `InputError` if it is damaged, or does more than place whole pixels."""
    if path.stat().st_size > LARGEST:
        raise InputError(
            f"{path} has {path.stat().st_size >> 20} MiB; virtual rasters up to {LARGEST >> 20} MiB are read"
        )
    text = path.read_bytes()
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise InputError(f"{path} defines entities of XML, which no virtual raster needs; it is not read")
    try:
        root = ElementTree.fromstring(text)
        if root.tag != "VRTDataset" or "subClass" in root.attrib:
            raise _refused(path, root.get("subClass") or root.tag)
        if other := [part.tag for part in root if part.tag not in LEFT]:
            raise _refused(path, other[0])
        shape = int(root.attrib["rasterYSize"]), int(root.attrib["rasterXSize"])
        bands = tuple(_band(path, band, shape) for band in root.findall("VRTRasterBand") if not _opaque(band))
        if not bands:
            raise InputError(f"{path} has no bands")
        return Vrt(shape, _georeference(root), bands)
    except (ElementTree.ParseError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged: {type(error).__name__} {error}; build it again: gdalbuildvrt") from None


def is_vrt(start: bytes) -> bool:
    """Return whether a file that begins with `start` is a VRT."""
    return b"<VRTDataset" in start


def _refused(path: Path, what: str) -> InputError:
    return InputError(
        f"{path} does more than place files: it has {what}, and only whole pixels of GeoTIFFs are taken from a virtual "
        f"raster. Write it out: gdal_translate {path.name} out.tif. In Python, open_source(path, allow_driver='VRT') "
        "reads it by GDAL, with every file that it names"
    )


def _band(path: Path, band: ElementTree.Element, shape: tuple[int, int]) -> VrtBand:
    if band.get("subClass") not in (None, "VRTSourcedRasterBand"):
        raise _refused(path, str(band.get("subClass")))
    sources = [part for part in band if part.tag.endswith("Source")]
    if other := [part.tag for part in sources if part.tag not in SOURCES]:
        raise _refused(path, other[0])
    if not sources:
        raise _refused(path, "a band without files")
    drawn = [_drawn(path, source, shape) for source in sources]
    numbers = {source.findtext("SourceBand", "1").strip() for source in sources}
    if len(numbers) > 1 or not all(number.isdigit() for number in numbers):
        raise _refused(path, f"a band that is made of the bands {', '.join(sorted(numbers))} of its files")
    values = {float(text) for text in (source.findtext("NODATA") for source in sources) if text is not None}
    if (own := band.findtext("NoDataValue")) is not None:
        values.add(float(own))
    if len(values) > 1 and not all(map(math.isnan, values)):
        raise _refused(
            path, f"several nodata values in one band ({', '.join(f'{value:g}' for value in sorted(values))})"
        )
    return VrtBand(
        tuple(piece for piece in drawn if piece is not None), int(numbers.pop()), band.get("dataType", "Byte"),
        next(iter(values), None), Band(band.findtext("Description", ""), band.findtext("ColorInterp", "").lower()),
    )  # fmt: skip


def _opaque(band: ElementTree.Element) -> bool:
    """Return whether a band is the constant alpha that gdalbuildvrt -addalpha adds: 255 where a file lies."""
    sources = band.findall("ComplexSource")
    constant = all(
        source.findtext("ScaleRatio") == "0" and source.findtext("ScaleOffset") == "255" for source in sources
    )
    return band.findtext("ColorInterp") == "Alpha" and bool(sources) and constant


def _drawn(path: Path, source: ElementTree.Element, shape: tuple[int, int]) -> Drawn | None:
    """Return a piece of a file, cut off at the edges of the VRT; None if nothing of it lies inside."""
    if other := [part.tag for part in source if part.tag not in READ]:
        raise _refused(path, other[0])
    named = source.find("SourceFilename")
    name = "" if named is None else (named.text or "")
    if name.startswith("/vsi") or "://" in name or not name or "\0" in name:
        raise _refused(path, f"the file {name[:80]!r}, which is not on this machine")
    if named is not None and named.get("relativeToVRT") == "1":
        name = os.path.join(path.parent, name)
    from_y, from_x, rows, columns = _rectangle(path, source, "SrcRect")
    to_y, to_x, height, width = _rectangle(path, source, "DstRect")
    if (rows, columns) != (height, width):
        raise _refused(path, f"{name} drawn in another size ({rows} x {columns} pixels as {height} x {width})")
    whole = Box.of_shape(*shape)
    box = Box(to_y, to_x, to_y + height, to_x + width) & whole
    return None if box is None else Drawn(name, box, from_y + box.y0 - to_y, from_x + box.x0 - to_x)


def _rectangle(path: Path, source: ElementTree.Element, tag: str) -> tuple[int, int, int, int]:
    """Return (y, x, height, width) in whole pixels."""
    found = source.find(tag)
    if found is None:
        raise _refused(path, f"a file without {tag}")
    sides = [float(found.attrib[name]) for name in ("yOff", "xOff", "ySize", "xSize")]
    whole = [round(side) for side in sides]
    if max(abs(side - near) for side, near in zip(sides, whole, strict=True)) > 0.01:
        raise _refused(path, f"a file drawn between pixels ({tag} {', '.join(f'{side:g}' for side in sides)})")
    y, x, height, width = whole
    return y, x, height, width


def _georeference(root: ElementTree.Element) -> Georeference | None:
    srs, place = root.findtext("SRS"), root.findtext("GeoTransform")
    crs = wkt_of(srs) if srs and srs.strip() else None
    if place is None:
        return Georeference(crs) if crs else None
    c, a, b, f, d, e = (float(number) for number in place.split(","))
    if not all(map(math.isfinite, (a, b, c, d, e, f))):
        raise ValueError(f"the position {place.strip()}")
    return Georeference(crs, (a, b, c, d, e, f))


def named_files(vrt: Vrt) -> Sequence[str]:
    """Return the paths of all files of a VRT, each once."""
    return list(dict.fromkeys(piece.path for band in vrt.bands for piece in band.drawn))
