"""A model becomes an ONNX file with its card inside, which onnxruntime and Deepness run and tilepipe loads again.

The file takes tiles that are scaled by the card's mean and std, as every model does. Where the network takes tiles in
another way than usual (`channels`, `layout`, `pad`, `threshold`), this is part of the exported graph.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from tilepipe.errors import ModelError
from tilepipe.models.average import Mean
from tilepipe.models.card import ModelCard
from tilepipe.models.formats.directory import load_model, write_directory
from tilepipe.models.formats.onnx import Onnx, load_onnx
from tilepipe.models.formats.onnx_card import OWN
from tilepipe.models.formats.opaque import Packaged, first_line, missing_extra
from tilepipe.models.hub_text import hub_text
from tilepipe.models.model import Model
from tilepipe.models.probe.certificate_file import with_certificate
from tilepipe.models.stac_item import item_of

WEIGHTS, README, ITEM = "weights.onnx", "README.md", "item.json"
OPSET = 17
NEAR = 1e-4
"""Largest difference of a probability between torch and onnxruntime, and of two classes that may change places."""
_BACK = {"channels": None, "layout": None, "pad": 0, "threshold": None, "key": None, "arch": None}
"""Fields of a card that the exported graph does itself."""


def export_onnx(
    model: Model | str | Path, output: str | Path, *, trust_model: str | None = None, overwrite: bool = False
) -> Path:
    """Write a model as a folder: weights.onnx, model.json, README.md for a hub, item.json for STAC; return its path.

    weights.onnx holds the card too, so it can be used alone. The labels of two made-up tiles are compared with torch's
    before anything is written.

    Args:
        model: A model, or what `load_model` takes.
        output: Path of the folder, which `-m` takes.
        trust_model: As for `load_model`.
        overwrite: Whether an existing folder is replaced.

    Raises:
        ModelError: The network cannot be written as ONNX, onnxruntime gives other labels, or a package is missing.
        UsageError: `output` exists.
        StorageError: `output` cannot be written.
    """
    model = model if isinstance(model, Model) else load_model(model, trust_model=trust_model)
    data = onnx_of(model)
    path = Path(output)
    again = load_onnx(data, path / WEIGHTS, None, str(path))
    compare(model, again)
    again = with_certificate(Model(again.card, again.module, again.name))
    item = json.dumps(item_of(again.card, WEIGHTS, model.parameters), indent=1, ensure_ascii=False)
    files = {WEIGHTS: data, README: hub_text(model.card, path.name).encode(), ITEM: f"{item}\n".encode()}
    return write_directory(path, again, files, overwrite=overwrite)


def onnx_of(model: Model) -> bytes:
    """Return the bytes of an ONNX file with the model's card inside. Raises `ModelError` if it cannot be written."""
    try:
        import onnx
    except ImportError as error:
        raise missing_extra("onnx", "onnx", error) from None
    module = model.module
    if isinstance(module, Onnx):
        proto, card = onnx.load_from_string(module.content), model.card.model_copy(update={"arch": None})
    elif isinstance(module, Packaged | Mean):
        kind = "a file that runs code" if isinstance(module, Packaged) else "a mean of several answers"
        raise ModelError(f"{model.name} is {kind}, which is not exported; export the network that it was made of")
    else:
        card = ModelCard(**{**model.card.model_dump(exclude_unset=True), **_BACK, "output": "logits"})
        proto = onnx.load_from_string(_traced(module, card, model.name))
    del proto.metadata_props[:]
    for key, text in {**_for_deepness(card), OWN: card.to_json()}.items():
        proto.metadata_props.add(key=key, value=text)
    return bytes(proto.SerializeToString())


def compare(model: Model, exported: Model) -> None:
    """Raise `ModelError` if the exported model gives other probabilities or labels for made-up tiles of two shapes."""
    stride = model.card.stride
    unit = -(-64 // stride) * stride
    fixed = exported.card.tile if isinstance(exported.module, Onnx) and isinstance(model.module, Onnx) else None
    for shape in ((unit, unit + stride), (unit + stride, unit)) if fixed is None else ((fixed, fixed),):
        x = torch.randn((2, model.card.bands, *shape), generator=torch.Generator().manual_seed(len(shape)))
        with torch.no_grad():
            ours, theirs = (one.module(x).double().softmax(1) for one in (model, exported))
        apart = float((ours - theirs).abs().max())
        two = ours.topk(2, dim=1).values
        sure = two[:, 0] - two[:, 1] > NEAR
        flips = int(((ours.argmax(1) != theirs.argmax(1)) & sure).sum())
        if flips or not apart <= NEAR:
            raise ModelError(
                f"{model.name}: in onnxruntime {flips} of {sure.numel()} labels differ from torch's, and probabilities "
                f"by up to {apart:.2g} where {NEAR:g} may; it is not exported"
            )


def _traced(module: nn.Module, card: ModelCard, name: str) -> bytes:
    side = max(64, 4 * card.stride)
    example = torch.zeros(1, card.bands, side, side)
    free = {0: "batch", 2: "height", 3: "width"}
    try:
        with TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
            file = Path(folder) / WEIGHTS
            warnings.simplefilter("ignore")  # torch's remarks on this exporter, which needs no package but onnx
            torch.onnx.export(
                _Plain(module).eval(), (example,), file, dynamo=False, opset_version=OPSET,
                input_names=["image"], output_names=["logits"], dynamic_axes={"image": free, "logits": free},
            )  # fmt: skip
            return file.read_bytes()
    except Exception as error:  # the exporter has errors of many kinds, one per operator that ONNX lacks
        raise ModelError(f"{name} cannot be written as ONNX: {first_line(error)}") from None


class _Plain(nn.Module):
    """Hides hooks and attributes of the network from the exporter's names."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (B, classes, H, W)."""
        logits: Tensor = self.network(image)
        return logits


def _for_deepness(card: ModelCard) -> dict[str, str]:
    """Return the metadata that the QGIS plugin Deepness reads; it divides pixels of 8 bits by 255 first."""
    values: dict[str, object] = {"model_type": "Segmentor", "class_names": dict(enumerate(card.classes))}
    if card.dtype in (None, "uint8"):
        values |= {"standardization_mean": [m / 255 for m in card.mean] or [0.0] * card.bands}
        values |= {"standardization_std": [s / 255 for s in card.std] or [1 / 255] * card.bands}
    if card.resolution is not None and card.unit == "m":
        values["resolution"] = 100 * card.resolution
    if card.tile is not None:
        values["tile_size"] = card.tile
    if card.license:
        values["license"] = card.license
    return {key: json.dumps(value) for key, value in values.items()}
