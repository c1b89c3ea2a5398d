"""Pretrained: the weights of a ResNet encoder from a file of torchvision or timm, or fetched by timm itself.

Files are read as data (safetensors, or torch's `weights_only`). Only timm downloads weights, and only by timm's names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tilepipe.errors import ModelError
from tilepipe.models.formats.opaque import first_line, missing_extra
from tilepipe.models.formats.tensors import finite, read_tensors

SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")
"""Suffixes of files with weights; a word without such a suffix and without a folder is a name of timm's."""


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A state dict and where it comes from."""

    name: str
    """Name of the file, or 'timm/' and timm's name."""
    sha256: str
    """Hash of the file; if timm fetched the weights, hash of the names and bytes of the tensors."""
    tensors: Mapping[str, Tensor]


def pretrained(what: str, encoder: str) -> Pretrained:
    """Return the weights in the file `what`, or those that timm has under this name for `encoder` ('resnet18', ...).

    Raises `ModelError` if the file holds no plain state dict, or if timm is missing or has no such weights.
    """
    path = Path(what)
    if path.suffix.lower() in SUFFIXES or path.name != what:
        tensors = finite(path, read_tensors(path))
        with path.open("rb") as file:
            return Pretrained(path.name, hashlib.file_digest(file, "sha256").hexdigest(), tensors)
    if what.partition(".")[0] != encoder:
        raise ModelError(
            f"encoder weights {what!r} are neither a file ({', '.join(SUFFIXES)}) nor timm's for encoder {encoder!r}; "
            f"name a file, or {encoder!r} with or without a tag, such as '{encoder}.a1_in1k'"
        )
    tensors = _fetched(what)
    return Pretrained(f"timm/{what}", _digest(tensors), tensors)


def _fetched(name: str) -> dict[str, Tensor]:
    try:
        import timm
    except ImportError as error:
        raise missing_extra("timm", "timm", error) from None
    try:
        with torch.random.fork_rng(devices=[]):  # timm's random start values must not disturb the caller's
            return dict(timm.create_model(name, pretrained=True).state_dict())
    except Exception as error:  # every library below timm has its own errors (no network, no such tag)
        raise ModelError(
            f"timm cannot give the weights {name!r} ({first_line(error)}); fetch them where there is a network and "
            f"name the file: encoder_weights: {name.partition('.')[0]}.safetensors"
        ) from None


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
