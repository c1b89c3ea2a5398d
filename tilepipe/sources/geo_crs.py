"""CRS texts of files: a code, a URN, WKT or the parameters of PROJ. GDAL would take any other text for a file or an
address, and open it."""

from __future__ import annotations

import re

from rasterio.crs import CRS
from rasterio.errors import CRSError

NAME = re.compile(r"(?i)urn:(?:ogc|x-ogc):def:crs:[\w.:-]+|(?:EPSG|OGC|ESRI|IAU_\d+|IGNF):[\w.]+")
URI = re.compile(r"(?i)https?://www\.opengis\.net/def/crs/(\w+)/[\w.]+/(\w+)")
WKT = re.compile(r"(?i)\s*(?:PROJ|GEO|GEOG|GEOD|COMPD|COMPOUND|BOUND|LOCAL|ENG)[A-Z_]*\s*\[")
PROJ = re.compile(r"\+proj=\w+(?:\s+\+(?!init|nadgrids|geoidgrids)\w+(?:=[\w.,+-]+)?)*\s*")


def known_crs(text: str) -> str | None:
    """Return a text that GDAL takes for the CRS that `text` names; None if it names none that is known."""
    text = URI.sub(r"\1:\2", text.strip())
    if not (NAME.fullmatch(text) or WKT.match(text) or PROJ.fullmatch(text)):
        return None
    try:
        CRS.from_user_input(text)
    except (CRSError, ValueError):
        return None
    return text
