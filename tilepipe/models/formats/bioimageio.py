"""Packages of the BioImage Model Zoo (https://bioimage.io) are loaded, if their own test tensors come out right.

    bioimageio_package   a folder or zip is read by name, capped and compared by hash
    bioimageio_card      the description becomes a card
    bioimageio_steps     so do the steps before and after the network

Weights are taken in this order: ONNX, a PyTorch state dict of a network in the allow-list, and TorchScript, which runs
code and needs `trust_model`. Code in a package is never run.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch

from tilepipe.arrays import Array
from tilepipe.errors import ModelError
from tilepipe.models.card import ModelCard
from tilepipe.models.formats import load
from tilepipe.models.formats.bioimageio_card import Description, described, member
from tilepipe.models.formats.bioimageio_package import MAX_WEIGHTS, Package
from tilepipe.models.formats.bioimageio_steps import no_classes, scaling
from tilepipe.models.formats.built import network
from tilepipe.models.formats.onnx import load_onnx
from tilepipe.models.formats.tensors import read_state_dict
from tilepipe.models.model import Model
from tilepipe.text import JSON

LIBRARIES = {"segmentation_models_pytorch": "smp", "monai.networks.nets": "monai"}
"""Libraries whose networks are rebuilt by name, and what an arch calls them."""
_COUNTS = ("in_channels", "out_channels", "classes", "n_channels")
RTOL, ATOL, PIXELS = 1e-3, 1e-3, 1e-3
"""Largest difference of a value from the package's own, and share of labels that may differ."""


def load_package(
    package: Package, name: str, *, trust_model: str | None = None, card: ModelCard | None = None
) -> Model:
    """Load a package whose test tensors come out right; `card` replaces the card that the description makes.

    Raises `ModelError` that names what tilepipe cannot do, or how far the test tensors are from the package's own.
    """
    found = described(package)
    if card is None:
        if found.sampled:
            raise ModelError(
                f"{package.path}: {' and '.join(found.sampled)} measures every image anew, which tiles of it "
                f"cannot; give mean and std of your images: tilepipe model card {package.path} --init --set mean=[...] "
                f"--set std=[...], then tilepipe model convert {package.path} OUT.model --card CARD.json"
            )
        card = ModelCard(**found.fields)
    model = _model(package, found, card, name, trust_model)
    _accept(model, package, found)
    return model


def _model(package: Package, found: Description, card: ModelCard, name: str, trust_model: str | None) -> Model:
    """Return the model with the first weights that tilepipe can use. Raises `ModelError` that lists why none can."""
    why = []
    weights = found.weights
    if weights.onnx is not None and weights.onnx.external_data is not None:
        why.append("onnx keeps tensors in another file")
    elif weights.onnx is not None:
        data, path = _weights(package, weights.onnx)
        return load_onnx(data, path, card, name)
    if (state := weights.pytorch_state_dict) is not None:
        arch = _arch(state.architecture)
        if isinstance(arch, str):
            why.append(f"pytorch_state_dict: {arch}")
        else:
            return _of_state_dict(package, state, card.model_copy(update={"arch": arch}), name)
    if weights.torchscript is not None:
        data, path = _weights(package, weights.torchscript)
        return load.of_code(data, path, card, name, trust_model)
    others = [kind for kind in type(weights).model_fields if getattr(weights, kind) is not None]
    raise ModelError(
        f"{package.path} has weights {', '.join(others)}; tilepipe reads onnx, torchscript, and pytorch_state_dict of "
        f"networks of {' and '.join(LIBRARIES)}{''.join(f'; {one}' for one in why)}"
    )


def _weights(package: Package, entry: Any) -> tuple[bytes, Path]:
    place = f"{package.path}: {package.description}"
    source = member(entry, place)
    if entry.sha256 is None:
        raise ModelError(f"{place} gives no sha256 for {source}, so nothing shows that it is the right file")
    return package.read(source, MAX_WEIGHTS, str(entry.sha256)), package.path / source


def _arch(architecture: Any) -> JSON | str:
    """Return the arch of a network in the allow-list, or why it is none."""
    if not hasattr(architecture, "import_from"):
        source = Path(str(getattr(architecture.source, "path", architecture.source))).name
        return f"its network {architecture.callable} is code in {source}, which is not run"
    library = LIBRARIES.get(architecture.import_from)
    if library is None:
        return f"its network {architecture.callable} is of {architecture.import_from}"
    kwargs = {key: value for key, value in dict(architecture.kwargs).items() if key not in _COUNTS}
    counts = {key: architecture.kwargs[key] for key in ("classes", "out_channels") if key in architecture.kwargs}
    return {"name": f"{library}.{architecture.callable}", **kwargs, **counts}


def _of_state_dict(package: Package, entry: Any, card: ModelCard, name: str) -> Model:
    data, path = _weights(package, entry)
    with TemporaryDirectory() as folder:
        copy = Path(folder) / f"weights{path.suffix or '.pt'}"
        copy.write_bytes(data)
        try:
            module = network(card, f"{package.path}", lambda wanted: read_state_dict(copy, wanted))
        except ModelError as error:
            raise ModelError(str(error).replace(str(copy), str(path))) from None
    return Model.owning(module, ModelCard(**card.model_dump(exclude_unset=True)), name)


def _accept(model: Model, package: Package, found: Description) -> None:
    """Raise `ModelError` with numbers if the package's test input does not give the package's test output."""
    given, wanted = (_channels_first(package, one, found.layout) for one in found.tensors)
    card = model.card
    place = f"{package.path}: test tensors"
    if given.shape[1] != card.bands:
        raise ModelError(f"{place}: the input has {given.shape[1]} channels, the card says bands {card.bands}")
    tiles = torch.from_numpy(given.astype(np.float32))
    if found.sampled:
        pairs = [scaling(found.steps, card.bands, str(given.dtype), place, sample) for sample in given]
        gain, offset = (torch.from_numpy(np.stack(one)).float()[:, :, None, None] for one in zip(*pairs, strict=True))
        pixels = tiles * gain + offset
    else:
        pixels = model.normalise(tiles)
    with torch.no_grad():
        logits = model.module(pixels).float()
    kind = found.compared or ("probabilities" if card.output == "probabilities" else "logits")
    if kind == "probabilities" and wanted.shape[1] > 1 and np.abs(wanted.sum(1) - 1).max() > ATOL:
        raise ModelError(no_classes(card.classes, str(package.path)))
    got = _answer(logits, kind, single=wanted.shape[1] == 1).numpy()
    if card.pad:  # the package's output lacks the margin, for which tilepipe fills up the tile with zeros
        got = got[..., card.pad : -card.pad, card.pad : -card.pad]
    if got.shape != wanted.shape:
        raise ModelError(f"{place}: the output is {got.shape}, and the package's own {wanted.shape}")
    apart = np.abs(got - wanted)
    if kind == "labels":
        share = float((apart != 0).mean())
        if share > PIXELS:
            raise ModelError(
                f"{place}: {share:.2%} of {wanted.size} labels differ from the package's own, {PIXELS:.1%} may; the "
                "model does not work here as it did there"
            )
        return
    wrong = float((apart > ATOL + RTOL * np.abs(wanted)).mean())
    if wrong > 0 or not np.isfinite(apart).all():
        raise ModelError(
            f"{place}: {wrong:.2%} of {wanted.size} values differ from the package's own, by up to "
            f"{np.nanmax(apart):.3g} where {ATOL:g} and {RTOL:g} of the value may; the model does not work here as it "
            "did there"
        )


def _channels_first(package: Package, tensor: Any, layout: str) -> Array:
    found = package.tensor(tensor.source, tensor.sha256)
    if found.ndim != 4:
        raise ModelError(f"{package.path}: {tensor.source} has {found.ndim} axes, and the description says 4")
    return np.moveaxis(found, -1, 1) if layout == "NHWC" else found


def _answer(logits: torch.Tensor, kind: Literal["logits", "probabilities", "labels"], *, single: bool) -> torch.Tensor:
    """Return logits (B, classes, H, W) in the form of the package's output."""
    if kind == "labels":
        return logits.argmax(1, keepdim=True)
    if kind == "probabilities":
        shares = logits.softmax(1)
        return shares[:, 1:] if single else shares
    return logits[:, 1:] - logits[:, :1] if single else logits
