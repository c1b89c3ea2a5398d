"""RemoteTiff: a GeoTIFF on a server, of which GDAL gets the bytes that it needs from `RemoteFile`.

GDAL itself sends no request: it sees a folder with one file in it, whose bytes come from Python.
"""

from __future__ import annotations

import atexit
import io
import itertools
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import rasterio
from rasterio import DatasetReader
from rasterio.abc import FileContainer

from tilepipe.arrays import Pixels
from tilepipe.box import Box
from tilepipe.errors import ChangedError, InputError
from tilepipe.sources.base import Resolution
from tilepipe.sources.beside import TIFF_MAGIC
from tilepipe.sources.checks import LARGE_PIECE_BYTES
from tilepipe.sources.geotiff import GeoTiffSource
from tilepipe.sources.geotiff_gdal import Mine, gdal, mine, opening
from tilepipe.sources.geotiff_tags import refuse_slide
from tilepipe.sources.handles import Handles, Stamp
from tilepipe.sources.remote_file import CACHE_BYTES, RemoteFile
from tilepipe.text import JSON

NAME = "image.tif"
"""Name of the one file that GDAL sees."""
_folders = itertools.count()
_failed = threading.local()


@atexit.register
def _close() -> None:
    # When Python ends, GDAL could not read any more from files that are still open, and would say so.
    mine(os.getpid()).tiled.close()


class RemoteTiff(GeoTiffSource):
    """A GeoTIFF on a server as a source; only the bytes that are needed are sent.

    No file beside it is looked for. The options are those of `GeoTiffSource`. Raises `InputError` if the file holds
    several images, is a slide, or changes.
    """

    def __init__(
        self,
        remote: RemoteFile,
        *,
        bands: Sequence[int] | None = None,
        resolution: Resolution | float | None = None,
        allow_palette: bool = False,
    ) -> None:
        self.remote = remote
        self.place = remote.address.local_name
        """Path beside which labels go: a file of this name in the working folder."""
        with _failures():
            super().__init__(str(remote.address), bands=bands, resolution=resolution, allow_palette=allow_palette)
        self._again = partial(RemoteTiff, remote, resolution=resolution)

    @property
    def files(self) -> list[Path]:
        """Paths of files on this machine: none."""
        return []

    def identity(self) -> JSON:
        """Return the address and the version of the file, and what its header says."""
        return {**super().identity(), "address": str(self.remote.address), "version": list(self.remote.version)}

    def _stamped(self, path: str | Path) -> Stamp:
        # With the number of the version, so that rows of another version are never taken for those of this one.
        return Stamp(str(path), self.remote.version.size, 0, self.remote.version.number, 0)

    def _opened(self, target: str) -> DatasetReader:
        folder = f"/{os.getpid()}-{next(_folders)}"
        with opening():
            served = _Served(self.remote, folder)
            return rasterio.open(f"{folder}/{NAME}", driver=self._driver, sharing=False, opener=served)

    def _stored(self, offset: int, size: int) -> bytes:
        return self.remote.read(offset, size)

    def _check(self) -> None:
        if not self.remote.read(0, 4).startswith(TIFF_MAGIC):
            raise InputError(f"{self.name} is not a TIFF file, whatever its name says")

    def _choose(self, scene: int | str | None) -> None:
        """Refuse a file that holds several images, and slides: these are read by other libraries."""
        self.selected, self.notes = {}, ()
        with gdal(self.name, "opened"), self._opened(self._target) as dataset:
            if len([name for name in dataset.subdatasets if name.startswith("GTIFF_DIR:")]) > 1:
                raise InputError(
                    f"{self.name} holds several images, and files with one are read from a server; "
                    f"{self.remote.address.download}"
                )
            refuse_slide(self.name, dataset, self.remote.address.download)

    def _contents(self, dataset: DatasetReader) -> list[str]:
        return []

    def _lay_out(self, dataset: DatasetReader) -> None:
        super()._lay_out(dataset)
        if self._large:
            raise InputError(
                f"{self.name} is stored in pieces above {LARGE_PIECE_BYTES >> 20} MiB, each of which would be sent "
                "again and again; download it first"
            )
        self.cache_bytes += CACHE_BYTES

    def _refuse_changed(self) -> None:
        """Leave it to the server's answers, each of which names the version of the file."""

    def _handles(self, ours: Mine) -> Handles[DatasetReader]:
        # Each thread opens the file for itself: rasterio knows the files of Python in the thread that opened them.
        return ours.tiled

    def _decode(self, what: str, box: Box) -> Pixels:
        try:
            with _failures():
                return super()._decode(what, box)
        except (ChangedError, InputError):
            mine(os.getpid()).tiled.drop((self._stamp, self._target, self._driver, self.overview))
            raise


@contextmanager
def _failures() -> Iterator[None]:
    """Raise what failed while GDAL read, in place of GDAL's own error, and also if GDAL says nothing."""
    _failed.error = None
    try:
        yield
    except (ChangedError, InputError) as error:
        raise (_failed.error or error) from None
    if _failed.error is not None:
        raise _failed.error


class _Served(FileContainer):  # type: ignore[misc]
    """A folder with one file, as GDAL sees it."""

    def __init__(self, remote: RemoteFile, folder: str) -> None:
        self._remote, self._path = remote, f"{folder}/{NAME}"

    def open(self, path: str, mode: str = "r", **_: Any) -> _Reader:
        """Open the file. Raises `FileNotFoundError` for another name, such as those of side files."""
        if path != self._path or mode[:1] != "r" or "+" in mode:
            raise FileNotFoundError(path)
        return _Reader(self._remote)

    def isfile(self, path: str) -> bool:
        """Return whether a path is the file."""
        return path == self._path

    def isdir(self, path: str) -> bool:
        """Return False: nobody asks for the folder."""
        return False

    def ls(self, path: str) -> list[str]:
        """Return no names."""
        return []

    def mtime(self, path: str) -> int:
        """Return 0: a version has its own mark."""
        return 0

    def rm(self, path: str) -> None:
        """Refuse. Raises `PermissionError`."""
        raise PermissionError(path)

    def size(self, path: str) -> int:
        """Return the size of the file [bytes]. Raises `FileNotFoundError` for another name."""
        if path != self._path:
            raise FileNotFoundError(path)
        return self._remote.version.size


class _Reader(io.RawIOBase):
    """The file, opened. It raises nothing, as GDAL cannot pass Python's errors on; see `_failures`."""

    def __init__(self, remote: RemoteFile) -> None:
        self._remote, self._at = remote, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._remote.version.size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        try:
            data = self._remote.read(self._at, self._remote.version.size if size < 0 else size)
        except (ChangedError, InputError) as error:
            _failed.error = error
            return b""
        self._at += len(data)
        return data
