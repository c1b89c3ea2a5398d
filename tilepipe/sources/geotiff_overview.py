"""GeoTiffOverview: reads the overviews of a GeoTIFF, which are for looking at."""

from __future__ import annotations

import os

from tilepipe.sources.geotiff import GeoTiffSource
from tilepipe.sources.geotiff_gdal import gdal, open_dataset


class GeoTiffOverview(GeoTiffSource):
    """One of the smaller versions of a GeoTIFF that its file holds, or the `.ovr` file beside it.

    `overview` is its number, from 0 for the largest. Raises `InputError` as `GeoTiffSource` does.
    """

    def __init__(self, image: GeoTiffSource, overview: int) -> None:
        self.overview, self.directory = overview, image.directory
        scene = image.selected.get("scene")
        super().__init__(image._stamp.path, bands=image.numbers, allow_driver=image._driver, scene=scene)
        self.name = image.name


def overviews_of(image: GeoTiffSource) -> list[GeoTiffOverview]:
    """Return the overviews of a GeoTIFF, the largest first; [] if it has none, or is no file of its own."""
    if not os.path.isfile(image.name):  # it lies on a server or in a zip
        return []
    with gdal(image.name, "opened"), open_dataset(image._target, image._driver) as dataset:
        count = len(dataset.overviews(image.numbers[0]))
    return [GeoTiffOverview(image, number) for number in range(count)]
