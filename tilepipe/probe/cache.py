"""Probes kept in a directory, one JSON file each, named by everything that the result depends on."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tilepipe import cache
from tilepipe.errors import StorageError
from tilepipe.probe.result import Probe

VERSION = 1  # of the procedure; raise it when results change
PACKAGES = ("torch.", "tilepipe.", "segmentation_models_pytorch.", "timm.")
OTHERS = {"segmentation_models_pytorch", "timm"}
MADE = ("torch.jit.", "torch.fx.")  # classes whose code is that of one object


def cache_key(module: nn.Module, bands: int, declared: int | None) -> str:
    """Return a sha256 of weights, settings and code of all layers, and all versions: procedure and packages."""
    others = sorted(OTHERS & {type(layer).__module__.split(".")[0] for layer in module.modules()})
    versions = " ".join([str(VERSION), version("tilepipe"), torch.__version__, *map(version, others)])
    digest = hashlib.sha256(f"{versions} {bands} {declared}\n{module!r}".encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    for name, layer in module.named_modules():
        plain = {k: v for k, v in vars(layer).items() if isinstance(v, (bool, int, float, str, tuple))}
        digest.update(f"{name} {sorted(plain.items())}".encode())
    kinds: set[Any] = {type(layer) for layer in module.modules()}
    for kind in sorted(kinds, key=lambda kind: kind.__qualname__):
        digest.update(_code(kind))
    return digest.hexdigest()


@functools.cache
def _code(kind: type) -> bytes:
    """Return the text of a class; empty where there is none. Parsing its file takes longer than hashing weights."""
    with contextlib.suppress(OSError, TypeError):
        return inspect.getsource(kind).encode()
    return b""


def of_packages(module: nn.Module) -> bool:
    """Return whether the code of all layers is known by its package's version.

    What a user's own class does may change in a function that it calls, which no key would notice.
    """
    kinds = {type(layer).__module__ for layer in module.modules()}
    changed = any("forward" in vars(layer) or _hooks(layer) for layer in module.modules())
    return not changed and all(kind.startswith(PACKAGES) and not kind.startswith(MADE) for kind in kinds)


def _hooks(layer: nn.Module) -> bool:
    return bool(layer._forward_hooks or layer._forward_pre_hooks)


def recall(directory: Path, key: str) -> Probe | None:
    """Return the probe kept under `key`; None where there is none or it cannot be read."""
    text = cache.recall(_name(key), directory)
    with contextlib.suppress(StorageError):
        return None if text is None else Probe.from_json(text)
    return None


def keep(directory: Path, key: str, probe: Probe) -> None:
    """Keep a probe."""
    cache.keep(_name(key), probe.to_json(), directory)


def _name(key: str) -> str:
    return f"probe-{key[:32]}.json"
