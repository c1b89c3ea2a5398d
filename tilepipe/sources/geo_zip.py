"""ZippedTiff: a GeoTIFF in a zip file, read by GDAL where it lies; nothing is unpacked to the disk."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import IO

from rasterio import DatasetReader

from tilepipe.errors import InputError
from tilepipe.sources.archive import VSI, members_of, raster_in, split_archive
from tilepipe.sources.base import Resolution
from tilepipe.sources.beside import LARGEST_TEXT, TIFF_MAGIC, refuse_named_files, side_names
from tilepipe.sources.geotiff import GeoTiffSource
from tilepipe.sources.geotiff_tags import refuse_slide
from tilepipe.sources.handles import Stamp, stamp
from tilepipe.text import JSON

STEP = 1 << 20
"""Size of the parts that are unpacked at a time when a checksum is compared [bytes]."""


class ZippedTiff(GeoTiffSource):
    """A GeoTIFF in a zip as a source.

    `what` names the zip, if it holds one GeoTIFF, or the GeoTIFF in it: archive.zip/folder/image.tif. The other options
    are those of `GeoTiffSource`. Raises `InputError` if the zip is hostile, damaged or too large, or does not hold it.
    """

    def __init__(
        self,
        what: str | Path,
        *,
        bands: Sequence[int] | None = None,
        resolution: Resolution | float | None = None,
        allow_palette: bool = False,
        scene: int | str | None = None,
    ) -> None:
        found = split_archive(what)
        # A zip is known by its first bytes, whatever its name is; without the ending it cannot be gone through.
        self._archive, inside = found or (Path(what), "")
        self._members = members_of(self._archive)
        self._inside = raster_in(self._archive, self._members, inside)
        self.place = self._archive.with_name(Path(self._inside).name) if inside else self._archive
        """Path beside which labels go: in the folder of the zip."""
        path = f"{self._archive}/{self._inside}"
        super().__init__(path, bands=bands, resolution=resolution, allow_palette=allow_palette, scene=scene)
        self._again = partial(ZippedTiff, path, resolution=resolution, scene=scene)

    @property
    def files(self) -> list[Path]:
        """Path of the zip."""
        return [Path(self._stamp.path)]

    def identity(self) -> JSON:
        """Return the hash of the zip, the name in it, and what the header says.

        Raises `InputError` if the checksum in the zip does not fit, which GDAL does not look at.
        """
        _checked(self._stamp, str(self._archive), self._inside)
        return {**super().identity(), "inside": self._inside}

    def _stamped(self, path: str | Path) -> Stamp:
        return stamp(self._archive)

    def _target_of(self, path: str) -> str:
        return f"{VSI}{{{path}}}/{self._inside}"

    def _stored(self, offset: int, size: int) -> bytes:
        return self._bytes(self._inside, offset, size)

    def _bytes(self, name: str, offset: int, size: int) -> bytes:
        with _member(str(self._archive), name) as member:
            member.seek(offset)
            return member.read(size)

    def _check(self) -> None:
        """Refuse what is no TIFF, and files beside it in the zip that name other files."""
        for name in (self._inside, *(name for name in side_names(self._inside) if name in self._members)):
            if name == self._inside or name.endswith((".msk", ".ovr")):
                if not self._bytes(name, 0, 4).startswith(TIFF_MAGIC):
                    raise InputError(f"{self._archive}/{name} is not a TIFF file, whatever its name says")
            elif self._members[name].file_size <= LARGEST_TEXT:
                refuse_named_files(self.name, f"{self._archive}/{name}", self._bytes(name, 0, LARGEST_TEXT))
            else:
                raise InputError(f"{self._archive}/{name} is larger than the {LARGEST_TEXT >> 20} MiB of a side file")

    def _describe(self, dataset: DatasetReader, bands: Sequence[int] | None, allow_palette: bool) -> None:
        refuse_slide(self.name, dataset, "unzip it first")
        super()._describe(dataset, bands, allow_palette)

    def _contents(self, dataset: DatasetReader) -> list[str]:
        return [self._stamp.path]


@contextmanager
def _member(archive: str, name: str) -> Iterator[IO[bytes]]:
    """Open a member of a zip. Raises `InputError` if its bytes are damaged."""
    try:
        with zipfile.ZipFile(archive) as opened, opened.open(name) as member:
            yield member
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(f"{archive}/{name} cannot be unpacked: {error}") from None


@lru_cache(maxsize=64)
def _checked(_state: Stamp, archive: str, name: str) -> None:
    """Compare a member with its checksum, once per state of the zip in a process. Raises `InputError`."""
    with _member(archive, name) as member:
        while member.read(STEP):
            pass
