"""Model directories: `name.model/` holds model.json (the card) and weights.safetensors. Loading one runs no code of it.

The network is one of ours, rebuilt from the card's `arch`. Names, shapes and types of all tensors are compared with
the network before memory is taken for them (https://github.com/huggingface/safetensors, format 0.3).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from uuid import uuid4

import torch
from safetensors.torch import save
from torch import Tensor

from tilepipe.errors import ModelError, UsageError, public
from tilepipe.models.card import ModelCard
from tilepipe.models.facts import CARD, CERTIFICATE, WEIGHTS, bundled, bundled_models, certificate_in
from tilepipe.models.formats import hub, load, smp
from tilepipe.models.formats.bioimageio import load_package
from tilepipe.models.formats.bioimageio_package import package_at
from tilepipe.models.formats.built import network
from tilepipe.models.formats.tensors import MAX_WEIGHTS_BYTES, check_size, read_safetensors
from tilepipe.models.model import Model
from tilepipe.models.output import bare
from tilepipe.paths import refuse_special
from tilepipe.storage import cannot_write, sync, sync_tree
from tilepipe.text import alike, missing

MAX_CARD_BYTES = 1 << 20
_HOLDS = f"a model directory holds {CARD} and {WEIGHTS}"


@public
def load_model(name_or_path: str | Path, *, trust_model: str | None = None) -> Model:
    """Load a model from disk.

    Args:
        name_or_path: The name of a bundled model, a model directory, a `save_pretrained` folder of
            segmentation-models-pytorch, a folder of WSInfer, a package of the BioImage Model Zoo (folder or zip), an
            ONNX, TorchScript or .pt2 file, or 'hf:owner/name@revision' on the Hugging Face hub.
        trust_model: 'sha256:' and the hash of the file. It is needed for TorchScript and .pt2, which run code.

    Returns:
        The model, on the CPU in float32.

    Raises:
        ModelError: There is no such model, its tensors do not fit its card, or the file would run code and is not
            trusted.

    Example:
        >>> import tilepipe as tp
        >>> model = tp.load_model("forest")
        >>> model.card.classes, model.card.resolution, model.card.unit
        (('other', 'forest'), 10.0, 'm')
    """
    directory = _locate(str(name_or_path))
    if (package := package_at(directory)) is not None:
        return load_package(package, str(name_or_path), trust_model=trust_model)
    other = load.find(directory)
    if other is not None:
        model = load.load(other, str(name_or_path), trust_model=trust_model)
        return replace(model, certificate=certificate_in(directory))
    card = _card(directory)
    weights = directory / (smp.WEIGHTS if smp.is_pretrained(directory) else WEIGHTS)
    check_size(weights, MAX_WEIGHTS_BYTES, _HOLDS)
    module = network(card, str(directory / CARD), lambda wanted: read_safetensors(weights, wanted))
    return replace(Model.owning(module, card, str(name_or_path)), certificate=certificate_in(directory))


def is_own(directory: Path) -> bool:
    """Return whether a model directory is read as card and weights of tilepipe, and not as files of another program."""
    return package_at(directory) is None and load.find(directory) is None and not smp.is_pretrained(directory)


def save_model(
    model: Model,
    directory: str | Path,
    *,
    half: bool = False,
    overwrite: bool = False,
    more: Mapping[str, bytes] | None = None,
) -> Path:
    """Write a model directory and return its path; the directory appears whole or not at all.

    `half` stores convolution weights as float16 (half the size; weights are rounded). `more` holds further files of the
    directory, by name; loading does not read them. Raises `ModelError` if the network cannot be rebuilt from a card,
    `UsageError` if the directory exists, `StorageError` if it cannot be written.
    """
    if model.card.arch is None:
        raise ModelError(f"{model.name} is not one of tilepipe's architectures; it can be used from Python, not saved")
    weights = save({k: stored(t, half=half) for k, t in bare(model.module).state_dict().items()})
    return write_directory(Path(directory), model, {**(more or {}), WEIGHTS: weights}, overwrite=overwrite)


def write_directory(final: Path, model: Model, files: Mapping[str, bytes], *, overwrite: bool) -> Path:
    """Write a model directory of card, certificate and `files`; return its path. Raises the errors of `save_model`."""
    if final.exists() and not overwrite:
        raise UsageError(f"{final} exists; give another name or ask to overwrite it")
    fresh = final.with_name(f".{final.name}.{uuid4().hex[:8]}")
    try:
        fresh.mkdir(parents=True)
        (fresh / CARD).write_text(model.card.to_json(), encoding="utf-8")
        if model.certificate is not None:
            (fresh / CERTIFICATE).write_text(model.certificate, encoding="utf-8")
        for name, content in files.items():
            (fresh / name).write_bytes(content)
        _publish(fresh, final)
    except BaseException as error:  # Ctrl-C leaves no half-written folder either
        shutil.rmtree(fresh, ignore_errors=True)
        if isinstance(error, OSError):
            raise cannot_write(final, error) from None
        raise
    return final


def stored(tensor: Tensor, *, half: bool) -> Tensor:
    """Return a tensor as a file keeps it: with `half`, weights of two or more axes become float16; others stay."""
    half = half and tensor.is_floating_point() and tensor.ndim > 1
    return tensor.detach().cpu().contiguous().to(torch.float16 if half else tensor.dtype)


def _publish(fresh: Path, final: Path) -> None:
    sync_tree(fresh)
    # No rename replaces a folder that is not empty, so the old one is moved away first.
    old = fresh.with_name(fresh.name + ".old")
    if final.exists():
        os.rename(final, old)
    os.rename(fresh, final)
    sync(final, final.parent)
    shutil.rmtree(old, ignore_errors=True)


def _locate(name: str) -> Path:
    if (folder := bundled(name)) is not None:
        return folder
    if hub.names(name):
        path = hub.fetched(name)
        if not (path / CARD).exists():
            raise ModelError(
                f"{name} has no {CARD}, so its classes and scaling are not known; write a card (bands, classes, mean, "
                f"std, resolution) and run: tilepipe model convert {name} OUT.model --card card.json"
            )
        return path
    path = Path(name)
    if path.is_dir() or load.find(path) is not None or package_at(path) is not None:
        return path
    load.refuse(path)
    names = bundled_models()
    near = _local(path) or next(iter(get_close_matches(name, names, n=1)), None)
    hint = f"did you mean {near!r}? " if near else ""
    if path.exists():
        refuse_special(path, ModelError)
        raise ModelError(f"{name} is a file; a model is a directory with {CARD} and {WEIGHTS}, or an ONNX file")
    if not near:
        hint = f"{missing(name)}. " if path.suffix or len(path.parts) > 1 else ""
    raise ModelError(
        f"there is no model {name!r}: {hint}bundled are {', '.join(names)} (described by: "
        "tilepipe model list); or give a model directory"
    )


def _local(path: Path) -> str | None:
    """Return the model in the same folder whose name is most like the name of `path`; None if none is alike."""
    try:
        beside = [entry for entry in path.parent.iterdir() if (entry / CARD).exists() or load.find(entry)]
    except OSError:
        return None
    near = alike(path.name, (entry.name for entry in beside))
    return str(path.with_name(near)) if near else None


def _card(directory: Path) -> ModelCard:
    check_size(directory / CARD, MAX_CARD_BYTES, _HOLDS)
    card = ModelCard.load(directory / CARD)
    if card.arch is None and smp.is_pretrained(directory):
        return card.model_copy(update={"arch": smp.arch_of(directory / smp.CONFIG)})
    if card.arch is None:
        raise ModelError(
            f"{directory / CARD}: arch is missing; name one of tilepipe's networks, for instance {{'name': 'unet'}}"
        )
    return card
