"""TorchScript and .pt2 files run code when they are loaded, so only a file whose hash the user names is loaded.

`torch.jit.load` runs the code in the archive; `torch.export.load` unpickles parts of it (CVE-2026-4538).
"""

from __future__ import annotations

import hashlib
import warnings
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from tilepipe.errors import ModelError
from tilepipe.models.formats.opaque import Forward, Packaged
from tilepipe.text import setting

TORCHSCRIPT = (".ts", ".jit", ".torchscript")
EXPORTED = (".pt2",)
STATE = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")
"""Suffixes of pickles; only state dicts in them are read, by `tilepipe.models.formats.convert`."""


class TorchScript(Packaged):
    """A TorchScript archive (`torch.jit.save`)."""

    wide = False
    """Whether the archive is turned to double precision when it is loaded."""

    def double(self) -> Self:
        """Compute in double precision from now on, if the archive's constants allow it."""
        self.wide, self._live = True, {}
        return self

    def opened(self, device: torch.device) -> Forward:
        """Load the archive and return it as a function; this runs code from the archive."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            # From the bytes whose hash was compared: the file at the path may be another one by now.
            script = torch.jit.load(BytesIO(self.content), map_location=device).eval()
        if self.wide:
            script = script.double()

        return _Script(script)


class _Script:
    """A loaded archive that is ready to be called."""

    def __init__(self, script: torch.jit.ScriptModule) -> None:
        self.script = script

    def __call__(self, x: Tensor) -> object:
        # The optimising executor fuses operations after the first calls: the same tile would then be rounded otherwise.
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            return self.script(x)


class Exported(Packaged):
    """An exported program (`torch.export.save`)."""

    single = ".pt2 models, whose precision is fixed in the file"

    def opened(self, device: torch.device) -> Forward:
        """Load the program and return it as a function; this may run code from the file."""
        from torch.export.passes import move_to_device_pass

        program = torch.export.load(BytesIO(self.content))
        return move_to_device_pass(program, str(device)).module()


def is_torchscript(path: Path) -> bool:
    """Return whether a file is a TorchScript archive, by its suffix or by its list of contents."""
    if path.suffix.lower() in TORCHSCRIPT:
        return True
    try:
        with zipfile.ZipFile(path) as archive:
            return path.suffix.lower() not in EXPORTED and any("/code/" in name for name in archive.namelist())
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return False


def check_trust(path: Path, data: bytes, trust_model: str | None) -> None:
    """Raise `ModelError` unless `trust_model` is 'sha256:' and the hash of `data`, the bytes of `path`."""
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if trust_model is not None and trust_model.strip().lower() == digest:
        return
    why = "can run code when they are loaded"
    if trust_model is not None:
        raise ModelError(
            f"{path} is refused: files of this kind {why}, and `trust_model` names another file than this one, "
            f"which is {digest}"
        )
    raise ModelError(
        f"{path} is refused: files of this kind {why}. If you know where it comes from, name exactly this file: "
        f"{setting(trust_model=digest)}"
    )
