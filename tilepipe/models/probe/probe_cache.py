"""Probes are kept in a directory, one JSON file each, whose name is a hash of all that the result depends on."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from tilepipe import cache
from tilepipe.errors import StorageError
from tilepipe.models.card import ModelCard
from tilepipe.models.identity import identify
from tilepipe.models.model import Model
from tilepipe.models.probe.result import Probe

if TYPE_CHECKING:
    from torch import nn

VERSION = 2  # version of the procedure; raise it when results change
OTHERS = {"segmentation_models_pytorch", "timm"}


def cache_key(module: nn.Module, bands: int, declared: int | None) -> str | None:
    """Return a sha256 of a module's identity, the code of its layers and the versions of procedure and packages.

    The result is None if the module has no identity: no probe is kept of a module whose answers change.
    """
    asked = Model(ModelCard(bands=bands, classes=["a", "b"], stride=declared or 1, dtype="float32"), module)
    found = identify(asked, "cpu", "fp32", values=False)
    return None if found.trouble else _key(module, found.key, bands, declared)


def layers_key(module: nn.Module, layers: str, bands: int, declared: int | None) -> str:
    """Return the same for a module that is told by the hash of its `layers`, whatever its weights."""
    return _key(module, f"layers {layers}", bands, declared)


def _key(module: nn.Module, told_by: str, bands: int, declared: int | None) -> str:
    import torch

    training = [layer.training for layer in module.modules()]
    others = sorted(OTHERS & {type(layer).__module__.split(".")[0] for layer in module.modules()})
    versions = " ".join([str(VERSION), version("tilepipe"), torch.__version__, *map(version, others)])
    digest = hashlib.sha256(f"{versions} {bands} {declared} {told_by} {training}".encode())
    kinds: set[type] = {type(layer) for layer in module.modules()}
    for kind in sorted(kinds, key=lambda kind: kind.__qualname__):
        digest.update(_code(kind))
    return digest.hexdigest()


# Parsing the file of a class takes longer than hashing weights.
@functools.cache
def _code(kind: type) -> bytes:
    """Return the source text of a class; empty if there is none."""
    with contextlib.suppress(OSError, TypeError):
        return inspect.getsource(kind).encode()
    return b""


def recall(directory: Path, key: str) -> Probe | None:
    """Return the probe kept under `key`; None if there is none or its file cannot be read."""
    text = cache.recall(_name(key), directory)
    with contextlib.suppress(StorageError):
        return None if text is None else Probe.from_json(text)
    return None


def keep(directory: Path, key: str, probe: Probe) -> None:
    """Keep a probe under `key`."""
    cache.keep(_name(key), probe.to_json(), directory)


def _name(key: str) -> str:
    return f"probe-{key[:32]}.json"
