"""Tensors in files are read without running code and are checked against the network that they are for.

safetensors (https://github.com/huggingface/safetensors, format 0.3) are compared before memory is taken for them.
torch's own state dicts are read with `weights_only=True`, which builds tensors and nothing else. Other objects in a
checkpoint are replaced by one that does nothing, and are left out.
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from tilepipe.errors import ModelError
from tilepipe.paths import refuse_special

MAX_WEIGHTS_BYTES = 4 << 30
BOXES = ("state_dict", "model_state_dict", "model", "net", "network")
"""Keys of a checkpoint under which training programs keep the state dict."""
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")
"""Prefixes that wrappers (DataParallel, compile, Lightning) put before every name."""
_FLOATS = ("F32", "F16", "BF16")
_COUNTER = "num_batches_tracked"  # batch norm uses this in training only, and old files lack it


def check_size(path: Path, limit: int, wanted: str) -> None:
    """Raise `ModelError` if a path is no file or larger than `limit` bytes; the error names what is `wanted` there."""
    refuse_special(path, ModelError)
    try:
        size = path.stat().st_size
    except OSError:
        raise ModelError(f"{path} is missing; {wanted}") from None
    if size > limit:
        raise ModelError(f"{path} has {size} bytes, at most {limit} are read")


def read_safetensors(path: Path, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file in the types of `wanted`; names, shapes and kinds must be the same.

    Raises `ModelError` that names the first tensor that differs, or that holds NaN or infinity.
    """
    try:
        with safe_open(path, framework="pt") as file:
            check_names(path, wanted, file.keys())
            for name, tensor in wanted.items():
                part = file.get_slice(name)
                _check_tensor(path, name, tensor, tuple(part.get_shape()), part.get_dtype())
            tensors = {name: file.get_tensor(name).to(wanted[name].dtype) for name in wanted}
    except (SafetensorError, OSError, ValueError, RuntimeError, OverflowError, MemoryError) as error:
        raise ModelError(f"{path} is not a readable safetensors file: {error}") from None
    return finite(path, tensors)


def read_state_dict(path: Path, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a state dict that torch.save or safetensors wrote, under the names of `wanted`.

    The state dict may lie in a checkpoint, and all its names may have a prefix. Raises `ModelError` that names the
    first tensor that does not fit `wanted`, or that holds NaN or infinity.
    """
    found = _renamed(read_tensors(path), wanted)
    for name in wanted:
        if name.endswith(_COUNTER):
            found.setdefault(name, torch.zeros((), dtype=torch.int64))
    check_names(path, wanted, found)
    for name, tensor in wanted.items():
        kind = "F32" if found[name].is_floating_point() else "I64" if found[name].dtype == torch.int64 else "other"
        _check_tensor(path, name, tensor, tuple(found[name].shape), kind)
    return finite(path, {name: found[name].to(wanted[name].dtype) for name in wanted})


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return all tensors of a state dict that torch.save or safetensors wrote, by name. Raises `ModelError`."""
    check_size(path, MAX_WEIGHTS_BYTES, "give the file that holds the state dict")
    if path.suffix.lower() != ".safetensors":
        return _unboxed(path, _unpickled(path))
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, ValueError, RuntimeError, OverflowError, MemoryError) as error:
        raise ModelError(f"{path} is not a readable safetensors file: {error}") from None


def check_names(path: Path, wanted: Iterable[str], found: Iterable[str]) -> None:
    """Raise `ModelError` that names missing and needless tensors if the names differ."""
    missing, extra = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    if missing or extra:
        parts = [
            f"{len(names)} {word}: {_few(names)}" for word, names in (("missing", missing), ("extra", extra)) if names
        ]
        raise ModelError(f"{path} does not hold the tensors of the network in model.json; {'; '.join(parts)}")


def finite(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return `tensors`. Raises `ModelError` that names the first tensor that holds NaN or infinity."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ModelError(f"{path}: tensor {name} holds NaN or infinity; train or copy the model again")
    return tensors


def _unpickled(path: Path) -> object:
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                # torch.save packs without compression. A small archive that unpacks to much would fill the memory.
                if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
                    raise ModelError(
                        f"{path} unpacks to more than it holds, which torch.save never writes; save it again"
                    )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of files that are refused next
            with safe_globals([(_Other, name) for name in _others(path)]):
                found = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(found, Mapping):
            raise ValueError("it holds an object, perhaps a whole network")
        return found
    except (pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, OSError, EOFError, ValueError, KeyError,
            TypeError, AttributeError, IndexError, AssertionError, MemoryError, UnicodeDecodeError):  # fmt: skip
        raise ModelError(
            f"{path} is not a plain state dict, and nothing else is read, since it could run code; "
            "where you trust it, write one with torch.save(module.state_dict(), 'weights.pt')"
        ) from None


class _Other:
    """Stands for every class and function that a checkpoint names beside its tensors; it does nothing.

    Lightning keeps the arguments of a module in its checkpoints, which may be objects of any class.
    """

    def __new__(cls, *args: object, **kwargs: object) -> Self:
        """Take any arguments."""
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        """Keep nothing."""


def _others(path: Path) -> list[str]:
    """Return the names of classes and functions in a file that torch does not know to be harmless.

    A pickle alone, without an archive, is read as torch does it: what it does not know is refused.
    """
    with suppress(ValueError, RuntimeError, OSError, pickle.UnpicklingError, EOFError, IndexError):
        if zipfile.is_zipfile(path):
            return [str(name) for name in get_unsafe_globals_in_checkpoint(str(path))]
    return []


def _unboxed(path: Path, found: object) -> dict[str, Tensor]:
    for key in BOXES:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not found or not all(isinstance(t, Tensor) for t in found.values()):
        raise ModelError(f"{path} does not hold a state dict (names and tensors) but a {type(found).__name__}")
    return {str(name): tensor for name, tensor in found.items()}


def _renamed(found: dict[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take off prefixes that stand before every name, until the names are those of `wanted`.

    A module of Lightning holds losses and scores beside its network, so a prefix under which every name is wanted is
    taken off too, and the other tensors are left out.
    """
    while not set(found) & set(wanted):
        prefix = next((p for p in PREFIXES if all(name.startswith(p) for name in found)), None)
        if prefix is None:
            needed = {name for name in wanted if not name.endswith(_COUNTER)}
            prefix = next(
                (p for p in PREFIXES if needed <= {n.removeprefix(p) for n in found if n.startswith(p)}), None
            )
        if prefix is None:
            break
        found = {name.removeprefix(prefix): tensor for name, tensor in found.items() if name.startswith(prefix)}
    return found


def _check_tensor(path: Path, name: str, wanted: Tensor, shape: tuple[int, ...], kind: str) -> None:
    if shape != tuple(wanted.shape):
        raise ModelError(f"{path}: tensor {name} is {shape}, the network in model.json has {tuple(wanted.shape)}")
    if kind not in (_FLOATS if wanted.is_floating_point() else ("I64",)):
        raise ModelError(f"{path}: tensor {name} is stored as {kind}, the network in model.json has {wanted.dtype}")


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
