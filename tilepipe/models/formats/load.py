"""Model files of other programs: each becomes a `Model` with a card of ours beside the file.

    opaque        the shared part: bytes that are opened in every process anew
    onnx_graph    an ONNX file is read, with its own card, and refused if it is not self-contained
    onnx          ONNX, run by onnxruntime
    torchscript   TorchScript and .pt2 run code: only a file whose hash the user names is opened
    smp           folders of segmentation-models-pytorch are read
    wsinfer       folders of WSInfer's zoo are read: TorchScript that gives one class per patch
    bioimageio    packages of the BioImage Model Zoo are read and tried on their own test tensors

The card of `x.onnx` is `x.json` or `model.json` beside it; a model directory holds `model.json` and `weights.onnx`,
`weights.ts` or `weights.pt2`.
"""

from __future__ import annotations

from pathlib import Path

from tilepipe.errors import ModelError
from tilepipe.models.card import ModelCard
from tilepipe.models.formats import wsinfer
from tilepipe.models.formats.onnx import SUFFIX as ONNX
from tilepipe.models.formats.onnx import load_onnx
from tilepipe.models.formats.opaque import Packaged, said_by
from tilepipe.models.formats.torchscript import (
    EXPORTED,
    STATE,
    TORCHSCRIPT,
    Exported,
    TorchScript,
    check_trust,
    is_torchscript,
)
from tilepipe.models.model import Model, refuse_one_class
from tilepipe.paths import refuse_special
from tilepipe.text import missing

CARD, WEIGHTS = "model.json", "weights"
OURS = ("weights.safetensors", "model.safetensors")
SUFFIXES = (ONNX, *EXPORTED, *TORCHSCRIPT)
MAX_BYTES = 2 << 30
"""Largest file that is read, in bytes; the ONNX format allows no more."""


def find(path: Path) -> Path | None:
    """Return the model file of another program at `path` or in the model directory `path`; None if there is none."""
    if path.is_dir():
        if wsinfer.is_folder(path):  # its model.safetensors, if it has one, holds weights without a network
            return path / wsinfer.WEIGHTS
        files = (path / f"{WEIGHTS}{suffix}" for suffix in SUFFIXES)
        return None if any((path / name).exists() for name in OURS) else next((f for f in files if f.exists()), None)
    # A .pt file may be TorchScript or a state dict; only its content tells.
    known = path.is_file() and (path.suffix.lower() in SUFFIXES or is_torchscript(path))
    return path if known else None


def card_path(path: Path) -> Path:
    """Return the path of a file's card, whether or not the card exists."""
    own = path.with_suffix(".json")
    return path.with_name(CARD) if path.with_name(CARD).exists() and not own.exists() else own


def load(path: Path, name: str, *, trust_model: str | None = None, card: ModelCard | None = None) -> Model:
    """Load a file that `find` returned; `card` replaces the card beside the file. Raises `ModelError`."""
    if card is None and card_path(path).exists():
        card = ModelCard.load(card_path(path))
    data = _read(path)
    if path.suffix.lower() == ONNX:
        return load_onnx(data, path, card, name)
    return of_code(data, path, card, name, trust_model)


def of_code(data: bytes, path: Path, card: ModelCard | None, name: str, trust_model: str | None) -> Model:
    """Load the bytes of a TorchScript or .pt2 file at `path`, which run code. Raises `ModelError`."""
    # Trust is asked for before a card: a card does not help a file that will not be opened.
    check_trust(path, data, trust_model)
    if card is None and path.name == wsinfer.WEIGHTS and wsinfer.is_folder(path.parent):
        card = wsinfer.card_of(path.parent)
    if card is None:
        raise ModelError(f"{path} has no card: write one as {card_path(path)} (bands, classes, mean, std, stride)")
    refuse_one_class(card)
    kind, word = (Exported, "pt2") if path.suffix.lower() in EXPORTED else (TorchScript, "torchscript")
    if word == "torchscript" and wsinfer.names(card):
        kind = wsinfer.PatchClassifier
    else:
        card = said_by(card, word)
    module: Packaged = kind(data, path, card)
    return Model.owning(module, module.recognise(card), name)


def refuse(path: Path) -> None:
    """Raise `ModelError` for a file that may be a model but is never loaded; the error says what to do instead."""
    known = (*STATE, *SUFFIXES, ".safetensors")
    if path.suffix.lower() in known and not path.is_file():
        refuse_special(path, ModelError)
        raise ModelError(f"there is no model {str(path)!r}: {missing(path)}")
    if path.suffix.lower() in (*STATE, ".safetensors"):
        raise ModelError(
            f"{path} is refused: it holds weights without a network, and pickles of whole networks can run code when "
            f"they are loaded. Make a model of its state dict: tilepipe model convert {path} OUT.model --card card.json"
        )


def _read(path: Path) -> bytes:
    refuse_special(path, ModelError)
    try:
        size = path.stat().st_size
        data = path.read_bytes() if 0 < size <= MAX_BYTES else b""
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from None
    if not data:
        raise ModelError(f"{path} has {size} bytes; a model file has 1 to {MAX_BYTES}")
    return data
