"""convert makes a model directory of ours from a state dict, ONNX, TorchScript, .pt2 or save_pretrained folder."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from tilepipe.errors import ModelError
from tilepipe.models.card import ModelCard
from tilepipe.models.facts import CARD
from tilepipe.models.formats import hub, load, smp
from tilepipe.models.formats.bioimageio import load_package
from tilepipe.models.formats.bioimageio_package import package_at
from tilepipe.models.formats.built import network
from tilepipe.models.formats.directory import load_model, save_model, write_directory
from tilepipe.models.formats.opaque import Packaged
from tilepipe.models.formats.tensors import read_state_dict
from tilepipe.models.formats.torchscript import TORCHSCRIPT
from tilepipe.models.model import Model
from tilepipe.models.output import bare, wrapped
from tilepipe.models.probe.certificate_file import with_certificate
from tilepipe.text import JSON, setting


def convert(
    source: str | Path,
    output: str | Path,
    *,
    card: str | Path | None = None,
    arch: JSON | None = None,
    trust_model: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the model in `source` as the model directory `output` and return its path.

    `source` is a state dict (then the card or `arch` names the network), an ONNX, TorchScript or .pt2 file, a
    package of the BioImage Model Zoo, a model directory, or a model on the Hugging Face hub. `card` is a file like
    model.json, by default the one beside the source. `arch` replaces the card's arch.
    A total stride of 1, the default, is replaced by the network's. The network is measured for its certificate.
    Raises `ModelError` if the source is no model, `UsageError` if `output` exists, `StorageError` if writing fails.
    """
    path = hub.fetched(str(source)) if hub.names(str(source)) else Path(source)
    given = _card(path, card, arch)
    package = package_at(path)
    packed = None if package else load.find(path)
    if package is not None:
        model = load_package(package, str(source), trust_model=trust_model, card=given)
        packed = model.module.path if isinstance(model.module, Packaged) else None
    elif packed is not None:
        model = load.load(packed, str(source), trust_model=trust_model, card=given)
    elif path.is_file():
        model = _of_state_dict(path, given)
    elif given is not None and smp.is_pretrained(path):
        model = _of_pretrained(path, given)
    else:
        model = load_model(source, trust_model=trust_model)
        if given is not None:
            card_now = _with_stride(given, model.module, model.card.arch)
            model = Model.owning(wrapped(bare(model.module), card_now), card_now, str(source))
    if isinstance(model.module, Packaged) and packed is not None:
        # The bytes stay as they are: `trust_model` names the file by their hash.
        files = {f"{load.WEIGHTS}{_suffix(packed)}": model.module.content}
        return write_directory(Path(output), with_certificate(model), files, overwrite=overwrite)
    return save_model(with_certificate(model), output, overwrite=overwrite)


def _card(path: Path, card: str | Path | None, arch: JSON | None) -> ModelCard | None:
    """Return the given card, or the card beside the source; with `arch` in it if `arch` is given."""
    beside = path / CARD if path.is_dir() else load.card_path(path)
    if card is None and not (arch is not None and beside.exists()):
        return ModelCard.load(beside) if path.is_file() and beside.exists() else None
    found = ModelCard.load(Path(card) if card is not None else beside)
    return found if arch is None else _changed(found, arch=arch)


def _of_state_dict(path: Path, card: ModelCard | None) -> Model:
    if card is None:
        raise ModelError(f"{path} needs a card: give {setting(card='card.json')} with bands, classes and arch")
    if card.arch is None:
        raise ModelError(
            f"{path} needs the name of its network: put arch into the card or give "
            f"{setting(arch='{name: unet, width: 16}')}"
        )
    module = network(card, "the card", lambda wanted: read_state_dict(path, wanted))
    return Model.owning(module, _with_stride(card, module, card.arch), str(path))


def _of_pretrained(path: Path, card: ModelCard) -> Model:
    arch = card.arch or smp.arch_of(path / smp.CONFIG)
    card = _changed(card, arch=arch)
    module = network(card, "the card", lambda wanted: read_state_dict(path / smp.WEIGHTS, wanted))
    return Model.owning(module, _with_stride(card, module, arch), str(path))


def _with_stride(card: ModelCard, module: nn.Module, arch: JSON | None) -> ModelCard:
    """Return the card with `arch`, and with the network's total stride if the card has the default."""
    stride = getattr(module, "stride", None)
    if isinstance(stride, int) and card.stride == 1:
        card = _changed(card, stride=stride)
    return _changed(card, arch=arch)


def _changed(card: ModelCard, **fields: object) -> ModelCard:
    """Return the card with other values, which are checked."""
    # pydantic's `model_copy` would check nothing.
    return ModelCard(**{**card.model_dump(mode="json"), **fields})


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    return suffix if suffix in load.SUFFIXES else TORCHSCRIPT[0]
