"""GDAL as it is used here: its options, what the threads of a process share, and its errors as sentences."""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import rasterio
from rasterio import DatasetReader
from rasterio._err import CPLE_BaseError
from rasterio.env import set_gdal_config
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from tilepipe.errors import InputError
from tilepipe.sources.handles import Handles
from tilepipe.sources.strip_cache import RowCache

GDAL_CACHE_BYTES = 64 << 20
"""GDAL's block cache for the whole process; GDAL's own default is 5 % of the machine's memory."""

OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE",  # look for sidecars by name, do not list folders
    "GDAL_VRT_ENABLE_PYTHON": "NO",
    "CPL_VSIL_CURL_ALLOWED_FILENAME": "none",  # no request is ever sent, whatever a file names
}


class Damage(logging.Handler):
    """Hears GDAL's warnings in rasterio's log: a JPEG tile that ends early gives grey pixels and just a warning."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.heard = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep what is said of JPEG data for the thread that reads."""
        if "JPEGLib" in record.getMessage():
            self.heard.text = record.getMessage()


class Mine:
    """What the threads of one process share; a forked process gets its own, as locks and handles do not survive."""

    def __init__(self) -> None:
        self.damage = Damage()
        logging.getLogger("rasterio._err").addHandler(self.damage)
        self.opening = threading.Lock()
        self.rows = RowCache()
        self.tiled: Handles[DatasetReader] = Handles(lambda dataset: dataset.close())
        self.striped: Handles[DatasetReader] = Handles(lambda dataset: dataset.close(), shared=True)
        self.large: Handles[DatasetReader] = Handles(lambda dataset: dataset.close(), 1, shared=True)
        self.alone = threading.Lock()
        """Held while a large piece is decoded: a handle keeps the last one."""


@lru_cache(maxsize=1)
def mine(process: int) -> Mine:
    """Return what the threads of `process`, this one, share."""
    return Mine()


@contextmanager
def gdal(path: str, doing: str) -> Iterator[None]:
    """Set GDAL's options for this thread, and turn its errors into an `InputError` that says what was being done."""
    with rasterio.Env(**OPTIONS):
        set_gdal_config("GDAL_CACHEMAX", GDAL_CACHE_BYTES)
        heard = mine(os.getpid()).damage.heard
        heard.text = ""
        try:
            yield
            if heard.text:
                raise RasterioError(heard.text)
        except (RasterioError, CPLE_BaseError) as error:
            cause = f" ({error.__cause__})" if error.__cause__ else ""
            if "codec" in f"{error}{cause}":
                raise InputError(
                    f"{path} is compressed by a method that is not read here: {error}{cause}. Write it anew with "
                    "a GDAL that reads it: gdal_translate -co TILED=YES -co COMPRESS=DEFLATE in.tif out.tif"
                ) from error
            raise InputError(f"{path} cannot be {doing}: {error}{cause}. It may be truncated or damaged.") from error


def open_dataset(path: str, driver: str) -> DatasetReader:
    """Open a raster with one named driver: nothing is guessed, no handle is shared, and no position is no warning."""
    with mine(os.getpid()).opening, warnings.catch_warnings():  # the lock, as catch_warnings is not safe under threads
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(path, driver=driver, sharing=False)


@contextmanager
def rows_forgotten() -> Iterator[None]:
    """Let go of decoded rows in the end, since rows of images that are done would fill the cache of rows."""
    try:
        yield
    finally:
        mine(os.getpid()).rows.clear()
