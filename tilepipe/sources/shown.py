"""Shown: a source for looking at, which also uses the overviews of a GeoTIFF."""

from __future__ import annotations

from tilepipe.sources.base import Source
from tilepipe.sources.geotiff import GeoTiffSource
from tilepipe.sources.geotiff_overview import overviews_of
from tilepipe.sources.wrapped import Wrapped


class Shown(Wrapped):
    """A source for looking at. Its smaller versions are those of the source, and the overviews of a GeoTIFF.

    Nobody knows how overviews were made, so no label may depend on them; to look at an image they are good enough, and
    without them a whole GeoTIFF would be read for one small picture.
    """

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self._overviews = overviews_of(source) if isinstance(source, GeoTiffSource) else []

    def coarser(self, height: int, width: int) -> Source:
        """Return the smallest version with at least `height` x `width` pixels; this source if there is none."""
        fit = [level for level in self._overviews if level.shape[1] >= height and level.shape[2] >= width]
        if fit:
            return min(fit, key=lambda level: level.shape[1])
        found = self.source.coarser(height, width)
        return self if found is self.source else found
