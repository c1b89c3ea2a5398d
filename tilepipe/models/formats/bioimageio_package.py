"""Package of the BioImage Model Zoo: a folder or a zip, whose members are read by name, capped and compared by hash.

Nothing is unpacked to a place that the package names, and no member outside the package is read.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from tilepipe.arrays import Array
from tilepipe.errors import ModelError
from tilepipe.paths import refuse_special
from tilepipe.text import JSON, yaml_of

DESCRIPTIONS = ("rdf.yaml", "bioimageio.yaml")
MAX_DESCRIPTION, MAX_TENSOR, MAX_WEIGHTS = 1 << 20, 1 << 29, 2 << 30
"""Largest description, test tensor and file of weights that are read, in bytes."""
MAX_VALUES = 50_000
"""Largest number of values in a description, with its aliases written out."""
MAX_MEMBERS, MAX_TOTAL, MAX_RATIO = 1000, 8 << 30, 200
"""Largest number of members of a zip, their size unpacked in bytes, and that size as a multiple of the packed size."""


@dataclass(frozen=True)
class Package:
    """A package that was looked at but not read yet."""

    path: Path
    """Path of the folder or zip."""
    description: str
    """Name of the file that describes the model."""

    def read(self, name: str, limit: int, sha256: str | None = None) -> bytes:
        """Return the content of a member. Raises `ModelError` if it is missing, too large, or has another hash."""
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or "\\" in name or ".." in parts or ":" in name:
            raise ModelError(f"{self.path}: {name!r} is no file of the package; only files inside it are read")
        try:
            data = self._of_folder(name, limit) if self.path.is_dir() else self._of_zip(name, limit)
        except (OSError, KeyError, ValueError, NotImplementedError, RuntimeError, zipfile.BadZipFile) as error:
            raise ModelError(f"{self.path}: {name} cannot be read: {error}") from None
        if len(data) > limit:
            raise ModelError(f"{self.path}: {name} has more than {limit} bytes, which is the most that is read of it")
        if sha256 is not None and (found := hashlib.sha256(data).hexdigest()) != str(sha256).lower():
            raise ModelError(
                f"{self.path}: {name} is not the file that was described: its sha256 is {found}, and "
                f"{self.description} says {sha256}; get the package again"
            )
        return data

    def fields(self) -> JSON:
        """Return what the description holds. Raises `ModelError` if it is no YAML with keys and values."""
        try:
            found = yaml_of(self.read(self.description, MAX_DESCRIPTION).decode())
        except ValueError as error:
            raise ModelError(f"{self.path}: {self.description} is no YAML: {error}") from None
        if not isinstance(found, dict):
            raise ModelError(f"{self.path}: {self.description} holds no keys with values")
        # An alias stands for a whole part: a small file could name it again and again, inside of itself too.
        left, count = [found], 0
        while left and count < MAX_VALUES:
            part = left.pop()
            count += 1
            left.extend(part.values() if isinstance(part, dict) else part if isinstance(part, list) else ())
        if left:
            raise ModelError(f"{self.path}: {self.description} holds more than {MAX_VALUES} values")
        return found

    def tensor(self, name: str, sha256: str | None) -> Array:
        """Return the array of an .npy file. Raises `ModelError` if it holds anything else than numbers."""
        data = self.read(name, MAX_TENSOR, sha256)
        try:
            found = np.load(io.BytesIO(data), allow_pickle=False)
        except (ValueError, OSError, EOFError, MemoryError) as error:
            raise ModelError(f"{self.path}: {name} is no .npy file of numbers: {error}") from None
        if not isinstance(found, np.ndarray) or found.dtype.kind not in "biuf":
            raise ModelError(f"{self.path}: {name} holds no array of numbers")
        return found

    def _of_folder(self, name: str, limit: int) -> bytes:
        path = self.path / name
        if not path.resolve().is_relative_to(self.path.resolve()):
            raise ValueError("it is a link to a place outside the package")
        refuse_special(path, ModelError)
        with path.open("rb") as file:
            return file.read(limit + 1)

    def _of_zip(self, name: str, limit: int) -> bytes:
        with zipfile.ZipFile(self.path) as archive, archive.open(name) as member:
            return member.read(limit + 1)


def package_at(path: Path) -> Package | None:
    """Return the package at a path; None if the path is none. Raises `ModelError` for a zip beyond the limits."""
    if path.is_dir():
        found = [name for name in DESCRIPTIONS if (path / name).is_file()]
        return Package(path, found[0]) if found else None
    if not path.is_file() or path.suffix.lower() != ".zip":
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return None
    names = [member.filename for member in members]
    found = [name for name in DESCRIPTIONS if name in names]
    if not found:
        return None
    size, packed = sum(member.file_size for member in members), path.stat().st_size
    if len(members) > MAX_MEMBERS or len(set(names)) < len(names):
        raise ModelError(f"{path} has {len(members)} members; at most {MAX_MEMBERS} are read, each name once")
    if size > MAX_TOTAL or size > MAX_RATIO * packed:
        raise ModelError(
            f"{path} has {packed} bytes and unpacks to {size}; at most {MAX_TOTAL} are read, and {MAX_RATIO} times its "
            "own size"
        )
    return Package(path, found[0])
