"""This module decodes boxes of a raster by GDAL, with one handle for each thread and file."""

from __future__ import annotations

import os
from contextlib import nullcontext

import numpy as np
from rasterio import DatasetReader
from rasterio.windows import Window

from tilepipe.arrays import Pixels
from tilepipe.box import Box
from tilepipe.errors import ChangedError, InputError
from tilepipe.sources.geotiff_gdal import gdal, mine, open_dataset
from tilepipe.sources.handles import Stamp, unchanged
from tilepipe.sources.strip_cache import Striped


class Decoded:
    """A raster whose boxes are decoded; `GeoTiffSource` says what it holds."""

    name: str
    """Name in messages."""
    shape: tuple[int, int, int]
    """(bands, height, width) of what is read."""
    overview: int | None = None
    """Number of the overview that is read, from 0; None if the image itself is read."""
    striped: bool
    """Whether a stored piece is as wide as the image; pixels are then read in bands of rows."""
    _stamp: Stamp
    _target: str
    _driver: str
    _bands: list[int]
    _band_rows: int
    _large: bool

    def _opened(self, target: str) -> DatasetReader:
        return open_dataset(target, self._driver, self.overview)

    def _read(self, what: str, box: Box) -> Pixels:
        """Return 'pixels' (bands, y, x), or the 'mask' or 'bands' (y, x) of `mask_kind`, of a box inside the image."""
        self._refuse_changed()
        # Tiles are decoded for the box that asks; GDAL's own cache keeps them for its neighbours.
        if not self.striped:
            return self._decode(what, box)
        key = (self._stamp, self._target, self._driver, self.overview, tuple(self._bands), what)
        image = Striped(key, *self.shape[1:], self._band_rows)
        return mine(os.getpid()).rows.read(image, box, lambda band: self._decode(what, band))

    def _decode(self, what: str, box: Box) -> Pixels:
        window = Window(box.x0, box.y0, box.width, box.height)
        key = (self._stamp, self._target, self._driver, self.overview)
        doing = f"read in rows {box.y0} to {box.y1}, columns {box.x0} to {box.x1}"
        ours = mine(os.getpid())
        handles = ours.large if self._large else ours.striped if self.striped else ours.tiled
        try:
            with ours.alone if self._large else nullcontext(), gdal(self.name, doing):
                dataset = handles.get(key, self._open)
                if what == "pixels":
                    return np.asarray(dataset.read(self._bands, window=window))
                if what == "bands":
                    return np.asarray(dataset.read_masks(self._bands, window=window).max(axis=0))
                # The mask of a dataset is the same for all its bands.
                return np.asarray(dataset.read_masks(self._bands[0], window=window))
        except (ChangedError, InputError):
            with ours.alone if self._large else nullcontext():
                handles.drop(key)
            raise

    def _open(self) -> DatasetReader:
        return self._opened(self._target)

    def _refuse_changed(self) -> None:
        unchanged(self._stamp)
