"""TiffPage: one page of a TIFF file that holds several."""

from __future__ import annotations

from pathlib import Path

from tilepipe.sources.geotiff import GeoTiffSource


class TiffPage(GeoTiffSource):
    """One page of a TIFF file that holds several, by its byte offset."""

    def __init__(self, path: str | Path, directory: int) -> None:
        # It is read while the file is opened.
        self.directory = directory
        super().__init__(path)
