"""Model directories: `name.model/` holds model.json (the card) and weights.safetensors. Loading one runs no code of it.

The network is one of ours, rebuilt from the card's `arch`. Names, shapes and types of all tensors are compared with it
before memory is taken for them (https://github.com/huggingface/safetensors, format 0.3).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from tilepipe.errors import ModelError, StorageError, UsageError
from tilepipe.models.card import ModelCard
from tilepipe.models.model import Model
from tilepipe.models.zoo import build

CARD, WEIGHTS = "model.json", "weights.safetensors"
BUNDLED = Path(__file__).parents[1] / "bundled"
MAX_CARD_BYTES = 1 << 20
MAX_WEIGHTS_BYTES = 4 << 30
RUNS_CODE = (".pt", ".pth", ".pt2", ".ts", ".jit", ".torchscript", ".ckpt", ".pkl", ".pickle", ".bin")
"""Formats that run code from the file when they are loaded."""
_FLOATS = ("F32", "F16", "BF16")


def bundled_models() -> list[str]:
    """Return the names of the models that come with tilepipe."""
    return sorted(path.name.removesuffix(".model") for path in BUNDLED.glob("*.model"))


def load_model(name_or_path: str | Path) -> Model:
    """Load a bundled model by name, or a model directory by path. Raises `ModelError`."""
    directory = _locate(str(name_or_path))
    card = _card(directory / CARD)
    weights = directory / WEIGHTS
    _check_size(weights, MAX_WEIGHTS_BYTES)
    with torch.device("meta"):  # shapes only: nothing is allocated yet
        skeleton = _network(card, directory)
    tensors = _read(weights, skeleton.state_dict())
    with torch.random.fork_rng(devices=[]):  # random start values must not disturb the caller's
        module = _network(card, directory)
    module.load_state_dict(tensors, strict=True)
    return Model.from_torch(module.requires_grad_(False), card, str(name_or_path))


def save_model(model: Model, directory: str | Path, *, half: bool = False, overwrite: bool = False) -> Path:
    """Write a model directory and return its path; it appears whole or not at all.

    `half` stores convolution weights as float16 (half the size; they are rounded). Raises `ModelError` for a network
    that is not of ours, `UsageError` where the directory exists, `StorageError` where it cannot be written.
    """
    final = Path(directory)
    if model.card.arch is None:
        raise ModelError(f"{model.name} is not one of tilepipe's architectures; it can be used from Python, not saved")
    if final.exists() and not overwrite:
        raise UsageError(f"{final} exists; give another name or ask to overwrite it")
    fresh = final.with_name(f".{final.name}.{uuid4().hex[:8]}")
    try:
        fresh.mkdir(parents=True)
        (fresh / CARD).write_text(model.card.to_json(), encoding="utf-8")
        state = model.module.state_dict()
        (fresh / WEIGHTS).write_bytes(save({k: stored(t, half=half) for k, t in state.items()}))
        _publish(fresh, final)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(fresh, ignore_errors=True)
        raise StorageError(f"{final} cannot be written: {error}") from None
    return final


def stored(tensor: Tensor, *, half: bool) -> Tensor:
    """Return a tensor as a file keeps it: with `half`, weights of two and more axes as float16, all else as it is."""
    half = half and tensor.is_floating_point() and tensor.ndim > 1
    return tensor.detach().cpu().contiguous().to(torch.float16 if half else tensor.dtype)


def _publish(fresh: Path, final: Path) -> None:
    for path in (*fresh.iterdir(), fresh):
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
    old = fresh.with_name(fresh.name + ".old")
    if final.exists():
        os.rename(final, old)
    os.rename(fresh, final)
    shutil.rmtree(old, ignore_errors=True)


def _locate(name: str) -> Path:
    if name in bundled_models():
        return BUNDLED / f"{name}.model"
    path = Path(name)
    if path.suffix.lower() in RUNS_CODE:
        raise ModelError(
            f"{name} is refused: files of this kind can run code when they are loaded. Load it in Python where you "
            "trust it and wrap it with Model.from_torch, or save it as a directory of model.json and weights.safetensors"
        )
    if path.is_dir():
        return path
    names = bundled_models()
    near = get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    if path.exists():
        raise ModelError(f"{name} is a file; a model is a directory with {CARD} and {WEIGHTS}")
    raise ModelError(f"there is no model {name!r}: {hint}bundled are {', '.join(names)}; or give a model directory")


def _check_size(path: Path, limit: int) -> None:
    try:
        size = path.stat().st_size
    except OSError:
        raise ModelError(f"{path} is missing; a model directory holds {CARD} and {WEIGHTS}") from None
    if size > limit:
        raise ModelError(f"{path} has {size} bytes, at most {limit} are read")


def _card(path: Path) -> ModelCard:
    _check_size(path, MAX_CARD_BYTES)
    card = ModelCard.load(path)
    if card.arch is None:
        raise ModelError(f"{path}: arch is missing; name one of tilepipe's networks, for instance {{'name': 'unet'}}")
    return card


def _network(card: ModelCard, directory: Path) -> nn.Module:
    try:
        return build(card.arch or {}, card.bands, len(card.classes))
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ModelError(f"{directory / CARD}: the architecture {card.arch} cannot be built: {error}") from None


def _read(path: Path, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, as float32 where they are floats, all checked against `wanted`."""
    try:
        with safe_open(path, framework="pt") as file:
            _check_names(path, wanted, file.keys())
            for name, tensor in wanted.items():
                _check_tensor(path, name, tensor, file.get_slice(name))
            tensors = {name: file.get_tensor(name).to(wanted[name].dtype) for name in wanted}
    except (SafetensorError, OSError, ValueError, RuntimeError, OverflowError, MemoryError) as error:
        raise ModelError(f"{path} is not a readable safetensors file: {error}") from None
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ModelError(f"{path}: tensor {name} holds NaN or infinity; train or copy the model again")
    return tensors


def _check_names(path: Path, wanted: Iterable[str], found: Iterable[str]) -> None:
    missing, extra = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    if missing or extra:
        parts = [
            f"{len(names)} {word}: {_few(names)}" for word, names in (("missing", missing), ("extra", extra)) if names
        ]
        raise ModelError(f"{path} does not hold the tensors of the network in {CARD}; {'; '.join(parts)}")


def _check_tensor(path: Path, name: str, wanted: Tensor, found: Any) -> None:
    shape, dtype = tuple(found.get_shape()), found.get_dtype()
    if shape != tuple(wanted.shape):
        raise ModelError(f"{path}: tensor {name} is {shape}, the network in {CARD} has {tuple(wanted.shape)}")
    if dtype not in (_FLOATS if wanted.is_floating_point() else ("I64",)):
        raise ModelError(f"{path}: tensor {name} is stored as {dtype}, the network in {CARD} has {wanted.dtype}")


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
