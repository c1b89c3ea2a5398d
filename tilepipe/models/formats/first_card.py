"""First card: `tilepipe model card FILE --init` begins with what the file tells. No code of the file is run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tilepipe.errors import ModelError, UsageError
from tilepipe.models.card import ModelCard
from tilepipe.models.facts import CARD, bundled
from tilepipe.models.formats import load, smp, wsinfer
from tilepipe.models.formats.bioimageio_card import described
from tilepipe.models.formats.bioimageio_package import package_at
from tilepipe.models.formats.onnx import SUFFIX as ONNX
from tilepipe.models.formats.onnx_card import card_of, has_card
from tilepipe.models.formats.onnx_graph import read_graph
from tilepipe.models.formats.tensors import read_tensors
from tilepipe.models.formats.torchscript import STATE
from tilepipe.storage import write_new
from tilepipe.text import JSON, json_of, missing

NEEDED = {"bands": "number of bands that the model reads", "classes": "names of the classes, by label value from 0"}
"""Fields that a card cannot do without."""
ASSUMED = {
    "mean": "pixels are not scaled; write mean and std, or mean: imagenet, as in training",
    "resolution": "any pixel size is taken; write the pixel size in training, and its unit",
}
"""Fields that a card can do without, and what holds if they are missing."""


@dataclass(frozen=True)
class FirstCard:
    """Known fields of a card that is to be written."""

    path: Path
    """Path of the new card."""
    fields: JSON
    """Fields that the file tells."""
    channels: int | None
    """Number of channels of the output; None if the file does not tell it."""

    def missing(self, fields: JSON) -> list[str]:
        """Return the needed fields that neither the file nor `fields` tells."""
        return [name for name in NEEDED if name not in {**self.fields, **fields}]

    def write(self, fields: JSON) -> ModelCard:
        """Write the card and return it; a value in `fields` replaces the value that the file tells.

        Raises `ModelError` for a wrong field, `UsageError` if there is a card, `StorageError` if it cannot be written.
        """
        card = ModelCard(**{**self.fields, **fields})
        classes = len(card.classes)
        if self.channels not in (None, classes) and (self.channels, classes) != (1, 2):
            raise ModelError(f"the model gives {self.channels} channels and {classes} classes are named; name as many")
        try:
            write_new(self.path, card.to_json())
        except FileExistsError:
            raise _exists(self.path) from None
        return card


def first_card(name: str | Path) -> FirstCard:
    """Return what a model file, or a folder that holds one, tells of its card.

    Raises `ModelError` if the path holds no model, `UsageError` if it has a card already.
    """
    path = Path(name)
    if not path.exists() and bundled(str(name)):
        raise UsageError(f"model {name} comes with tilepipe and has a card: tilepipe model card {name} shows it")
    if not path.exists():
        raise ModelError(f"there is no model {str(name)!r}: {missing(path)}")
    if (package := package_at(path)) is not None:
        fields = described(package).fields
        target = path.with_name(f"{path.stem}.json")
        if target.exists():
            raise _exists(target)
        return FirstCard(target, fields, len(fields["classes"]))
    file = load.find(path)
    target = path / CARD if path.is_dir() else load.card_path(path)
    if target.exists():
        raise _exists(target)
    if path.is_dir() and wsinfer.is_folder(path):
        card = wsinfer.card_of(path)
        return FirstCard(target, card.model_dump(mode="json", exclude_unset=True), len(card.classes))
    if path.is_dir() and smp.is_pretrained(path):
        return FirstCard(target, *_of_pretrained(path))
    if file is not None and file.suffix.lower() == ONNX:
        return FirstCard(target, *_of_onnx(file, target))
    if file is not None:  # only running the file would tell more
        return FirstCard(target, {}, None)
    if path.is_file() and path.suffix.lower() in (*STATE, ".safetensors"):
        return FirstCard(target, *_of_tensors(path))
    raise ModelError(
        f"{path} is no model: give an ONNX, TorchScript, .pt2 or state dict file, or a folder that holds one"
    )


def _of_onnx(path: Path, target: Path) -> tuple[JSON, int | None]:
    graph = read_graph(path.read_bytes(), path)
    if has_card(graph):
        return card_of(graph, path, target).model_dump(mode="json", exclude_unset=True), graph.channels
    # A card names one side of a tile.
    square = graph.height if graph.height == graph.width else None
    found = {
        "name": path.stem,
        "bands": graph.bands,
        "tile": square,
        "output": "probabilities" if graph.shares else None,
    }
    return {field: value for field, value in found.items() if value is not None}, graph.channels


def _of_pretrained(path: Path) -> tuple[JSON, int | None]:
    smp.arch_of(path / smp.CONFIG)  # this raises if the file describes no network
    config = json_of((path / smp.CONFIG).read_text(encoding="utf-8"))
    bands, channels = config.get("in_channels", 3), config.get("classes", 1)
    return {"name": path.name, "bands": bands}, channels if isinstance(channels, int) else None


def _of_tensors(path: Path) -> tuple[JSON, int | None]:
    # A pickle holds the layers in the order in which the network was made, so its first kernel takes the bands. A
    # safetensors file sorts them by name: its first kernel may be any layer, and the bands are asked for.
    ordered = path.suffix.lower() != ".safetensors"
    kernels = [tensor for tensor in read_tensors(path).values() if tensor.ndim == 4] if ordered else []
    return {"name": path.stem} | ({"bands": int(kernels[0].shape[1])} if kernels else {}), None


def _exists(path: Path) -> UsageError:
    return UsageError(f"{path} exists, and a card is never overwritten; edit it, or move it away first")
