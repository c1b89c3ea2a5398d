"""Folders of WSInfer's model zoo are read: a classifier of patches runs as a segmentation with one class per patch.

A folder holds `torchscript_model.pt` and `config.json` (https://github.com/SBU-BMI/wsinfer-zoo, spec_version 1.0):
class names, side of a patch [px], pixel size [um], and the transforms Resize, ToTensor and Normalize. The arch of its
card is {"name": "patches", "patch": 350, "size": 224}: squares of 350 px are resized to 224 px for the network. Such a
card may also lie beside any other TorchScript classifier.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from tilepipe.errors import ModelError
from tilepipe.models.card import MAX_STRIDE, ModelCard
from tilepipe.models.formats.opaque import Forward
from tilepipe.models.formats.torchscript import TorchScript
from tilepipe.paths import refuse_special
from tilepipe.text import JSON, json_of

NAME = "patches"
CONFIG, WEIGHTS = "config.json", "torchscript_model.pt"
MAX_CONFIG_BYTES = 1 << 20
TOGETHER = 16
"""Number of patches that a GPU gets at once. A CPU gets one: then no patch is rounded otherwise in another tile."""
_FIELDS = ("num_classes", "class_names", "patch_size_pixels", "spacing_um_px", "transform")
_BILINEAR = (None, "bilinear", 2)  # torchvision's name and Pillow's number


class PatchClassifier(TorchScript):
    """A TorchScript archive that gives (N, classes) for patches (N, bands, size, size).

    It maps (B, bands, H, W) to (B, classes, H, W), where H and W are multiples of the patch. All pixels of a patch get
    the scores of the patch.
    """

    def __init__(self, data: bytes, path: Path, card: ModelCard) -> None:
        """Keep the file's bytes; the card's arch says the side of a patch."""
        super().__init__(data, path, card)
        self.bands = card.bands
        self.cell, self.size = _sides(card, path)

    def opened(self, device: torch.device) -> Forward:
        """Load the archive, which runs code from it, and return it as a function of whole tiles."""
        network = super().opened(device)

        def classified(x: Tensor) -> Tensor:
            bands, (rows, columns) = x.shape[1], (side // self.cell for side in x.shape[2:])
            if x.shape[2:] != (rows * self.cell, columns * self.cell):
                raise ModelError(f"{self.path} classifies patches of {self.cell} px, so tiles are multiples of that")
            squares = x.unfold(2, self.cell, self.cell).unfold(3, self.cell, self.cell).permute(0, 2, 3, 1, 4, 5)
            patches = squares.reshape(-1, bands, self.cell, self.cell)
            if self.size != self.cell:
                patches = interpolate(patches, (self.size, self.size), mode="bilinear", antialias=True)
            scores = self._scores(network, patches, 1 if x.device.type == "cpu" else TOGETHER)
            maps = scores.view(len(x), rows, columns, -1).permute(0, 3, 1, 2)
            return maps.repeat_interleave(self.cell, 2).repeat_interleave(self.cell, 3)

        return classified

    def recognise(self, card: ModelCard, *, told: bool = False) -> ModelCard:
        """Return the card. Raises `ModelError` if the archive gives no score per patch for one patch of zeros."""
        with self._in_one_sentence(f"fails on a patch of {self.size} px"):
            self._on(torch.device("cpu"))(torch.zeros(1, self.bands, self.cell, self.cell))
        return super().recognise(card, told=told)

    def _scores(self, network: Forward, patches: Tensor, together: int) -> Tensor:
        """Return the scores (N, channels) of patches. The network always gets `together` of them."""
        found = []
        for k in range(0, len(patches), together):
            part = patches[k : k + together]
            # A batch of another size could be rounded otherwise.
            filled = torch.cat((part, part.new_zeros(together - len(part), *part.shape[1:])))
            with torch.no_grad():
                y = network(filled)
            given = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
            if not isinstance(y, Tensor) or y.ndim != 2 or y.shape[1] not in self._channels:
                raise ModelError(
                    f"{self.path} gives {given} for {tuple(filled.shape)}, and a classifier of patches gives "
                    f"({together}, {self.classes}); if it gives a class per pixel, write a card of your own "
                    f"beside it, model.json, without arch {NAME!r}"
                )
            found.append(y[: len(part)])
        return torch.cat(found)

    @property
    def _channels(self) -> tuple[int, ...]:
        return (1, 2) if self.classes == 2 else (self.classes,)


def names(card: ModelCard) -> bool:
    """Return whether a card's arch is a classifier of patches."""
    return (card.arch or {}).get("name") == NAME


def is_folder(path: Path) -> bool:
    """Return whether a folder has the files of WSInfer's zoo."""
    return (path / CONFIG).is_file() and (path / WEIGHTS).is_file()


def card_of(folder: Path) -> ModelCard:
    """Return the card that the folder's config.json makes. Raises `ModelError` that names what cannot be read."""
    path = folder / CONFIG
    config = _read(path)
    absent = [field for field in _FIELDS if field not in config]
    if absent:
        raise ModelError(f"{path} is no configuration of WSInfer: it lacks {', '.join(absent)}")
    classes, side, spacing = config["class_names"], config["patch_size_pixels"], config["spacing_um_px"]
    if not isinstance(classes, list) or len(classes) != config["num_classes"]:
        raise ModelError(f"{path}: num_classes is {config['num_classes']} and class_names are {classes}")
    if not isinstance(side, int) or not 1 <= side <= MAX_STRIDE:
        raise ModelError(f"{path}: patch_size_pixels is {side!r}; tilepipe reads 1 to {MAX_STRIDE} px")
    if len(classes) == 1:  # WSInfer reads one score as that of a class beside all others
        classes = [f"not {classes[0]}", classes[0]]
    size, mean, std = _transforms(config["transform"], side, path)
    try:
        return ModelCard(
            name=folder.resolve().name, bands=3, classes=classes, scale=255, mean=mean, std=std, dtype="uint8",
            resolution=spacing, unit="um", stride=side, halo=0, output="logits",
            arch={"name": NAME, "patch": side, "size": size},
            description=f"One class per patch of {side} px; a folder of WSInfer.",
        )  # fmt: skip
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None


def _read(path: Path) -> JSON:
    refuse_special(path, ModelError)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_CONFIG_BYTES + 1)
        if len(content) > MAX_CONFIG_BYTES:
            raise ValueError(f"it has more than {MAX_CONFIG_BYTES} bytes")
        config = json_of(content)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise ModelError(f"{path} holds no keys with values, so it is no configuration of WSInfer")
    return config


def _transforms(items: Any, side: int, path: Path) -> tuple[int, Any, Any]:
    """Return the side that patches are resized to, mean and std. Raises `ModelError` for other transforms."""
    steps = [item if isinstance(item, Mapping) else {} for item in items] if isinstance(items, list) else []
    called = [str(step.get("name")) for step in steps]
    rest = [name for name in called if name != "ToTensor"]
    if len(rest) + 1 != len(called) or rest not in ([], ["Resize"], ["Normalize"], ["Resize", "Normalize"]):
        listed = ", ".join(called) or "none"
        raise ModelError(f"{path}: transforms {listed}; tilepipe reads Resize, ToTensor and Normalize, in this order")
    given = {step["name"]: step.get("arguments") or {} for step in steps}
    if not all(isinstance(arguments, Mapping) for arguments in given.values()):
        raise ModelError(f"{path}: arguments of transforms have names, like {{'size': 224}}")
    size, how = given.get("Resize", {}).get("size", side), given.get("Resize", {}).get("interpolation")
    size = size[0] if isinstance(size, list) and len(set(map(str, size))) == 1 else size
    if not isinstance(size, int) or not 1 <= size <= MAX_STRIDE or how not in _BILINEAR:
        raise ModelError(f"{path}: Resize {given['Resize']}; tilepipe resizes to a square of 1 to {MAX_STRIDE} px")
    normal = given.get("Normalize", {})
    return size, normal.get("mean", ()), normal.get("std", ())


def _sides(card: ModelCard, path: Path) -> tuple[int, int]:
    """Return the side of a patch in the image and of a patch for the network [px]."""
    arch = card.arch or {}
    side, size = arch.get("patch"), arch.get("size", arch.get("patch"))
    sides = [value for value in (side, size) if isinstance(value, int) and 1 <= value <= MAX_STRIDE]
    if len(sides) < 2 or set(arch) - {"name", "patch", "size"}:
        raise ModelError(f"{path}: arch {arch} does not fit; write {{'name': '{NAME}', 'patch': 350, 'size': 224}}")
    if card.stride % sides[0]:
        raise ModelError(f"{path}: the card says stride {card.stride} and patches of {sides[0]} px; write {sides[0]}")
    return sides[0], sides[1]
