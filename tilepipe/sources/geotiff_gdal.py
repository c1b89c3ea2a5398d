"""Uses GDAL: sets its options, keeps the handles that threads of a process share, and turns errors into sentences."""

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
"""Size of GDAL's block cache for the whole process [bytes]; GDAL's own default is 5 % of the machine's memory."""

OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE",  # look for sidecars by name, do not list folders
    "GDAL_NUM_THREADS": "1",  # decoders of JPEG 2000 would start threads for each reader
    # A virtual raster may hold Python code, which GDAL would run.
    "GDAL_VRT_ENABLE_PYTHON": "NO",
    "CPL_VSIL_CURL_ALLOWED_FILENAME": "none",  # no request is ever sent, whatever a file names
}


class Damage(logging.Handler):
    """A handler that hears GDAL's warnings in rasterio's log.

    A JPEG tile that ends early gives grey pixels and a warning, but no error.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.heard = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a warning about JPEG data for the thread that reads."""
        if "JPEGLib" in record.getMessage():
            self.heard.text = record.getMessage()


class Mine:
    """Handles, locks and rows that the threads of one process share.

    A forked process gets its own, since locks and handles do not survive a fork.
    """

    def __init__(self) -> None:
        self.damage = Damage()
        logging.getLogger("rasterio._err").addHandler(self.damage)
        self.opening = threading.Lock()
        self.rows = RowCache()
        self.tiled: Handles[DatasetReader] = Handles(lambda dataset: dataset.close())
        self.striped: Handles[DatasetReader] = Handles(lambda dataset: dataset.close(), shared=True)
        self.large: Handles[DatasetReader] = Handles(lambda dataset: dataset.close(), 1, shared=True)
        self.alone = threading.Lock()
        """Lock that is held while a large piece is decoded: a handle keeps the last piece."""


@lru_cache(maxsize=1)
def mine(process: int) -> Mine:
    """Return the handles, locks and rows that the threads of this `process` share."""
    return Mine()


@contextmanager
def gdal(path: str, doing: str) -> Iterator[None]:
    """Set GDAL's options for this thread. Raises `InputError` for GDAL's errors, and says what was being done."""
    with rasterio.Env(**OPTIONS):
        set_gdal_config("GDAL_CACHEMAX", GDAL_CACHE_BYTES)
        heard = mine(os.getpid()).damage.heard
        heard.text = ""
        try:
            yield
            if heard.text:
                raise RasterioError(heard.text)
        except (RasterioError, CPLE_BaseError) as error:
            reason = _reason(error)
            if "codec" in reason:
                raise InputError(
                    f"{path} is compressed by a method that is not read here: {reason}. Write it anew with "
                    "a GDAL that reads it: gdal_translate -co TILED=YES -co COMPRESS=DEFLATE in.tif out.tif"
                ) from error
            raise InputError(f"{path} cannot be {doing}: {reason}. It may be truncated or damaged.") from error


def _reason(error: Exception) -> str:
    """Return what went wrong, without a full stop; rasterio often says no more than that GDAL has said it."""
    cause = error.__cause__
    said = f"{error} ({cause})" if cause and "previous exception" not in str(error) else str(cause or error)
    return said.rstrip(".")


@contextmanager
def opening() -> Iterator[None]:
    """Let one thread open a raster at a time; a raster without a position gives no warning."""
    with mine(os.getpid()).opening, warnings.catch_warnings():  # the lock, as catch_warnings is not safe under threads
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def open_dataset(path: str, driver: str, overview: int | None = None) -> DatasetReader:
    """Open a raster with one named driver; `overview` opens one of its overviews, from 0, in place of the raster.

    No format is guessed, no handle is shared, and a raster without a position gives no warning.
    """
    level = {} if overview is None else {"overview_level": overview}
    with opening():
        # Without a named driver, GDAL opens a virtual raster that is called .tif. A handle that threads share gives
        # wrong pixels without an error.
        return rasterio.open(path, driver=driver, sharing=False, **level)


@contextmanager
def rows_forgotten() -> Iterator[None]:
    """Drop decoded rows at the end, since rows of finished images would fill the cache of rows."""
    try:
        yield
    finally:
        mine(os.getpid()).rows.clear()
