"""Zoo: every architecture by the name that stands in a model card."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from tilepipe.errors import ModelError
from tilepipe.models.nets.arch import unknown
from tilepipe.models.nets.deeplab import DeepLab
from tilepipe.models.nets.fcn import FCN
from tilepipe.models.nets.layers import Network
from tilepipe.models.nets.linknet import LinkNet
from tilepipe.models.nets.segnet import SegNet
from tilepipe.models.nets.unet import UNet
from tilepipe.text import JSON

ARCHITECTURES: dict[str, type[Network]] = {
    "deeplab": DeepLab,
    "fcn": FCN,
    "linknet": LinkNet,
    "segnet": SegNet,
    "unet": UNet,
}


def describe(module: nn.Module) -> JSON:
    """Return the `arch` that `build` needs to make this network again: its name and every parameter.

    Raises `ModelError` if the network is none of ours.
    """
    for name, kind in ARCHITECTURES.items():
        if isinstance(module, kind):
            return {"name": name, **module.arch.model_dump(mode="json")}
    raise ModelError(f"{type(module).__name__} is none of our architectures ({', '.join(ARCHITECTURES)})")


def build(arch: Mapping[str, object], bands: int, classes: int) -> Network:
    """Return a new network with random weights from a card's `arch`, such as {"name": "unet", "width": 16}.

    It maps (B, bands, H, W) float to logits (B, classes, H, W) and has `stride`, the total stride S.
    Raises `ModelError` that names the nearest known name or value if one is unknown.
    """
    parameters = dict(arch)
    name = str(parameters.pop("name", ""))
    if name not in ARCHITECTURES:
        raise ModelError(unknown("architecture", name, ARCHITECTURES))
    return ARCHITECTURES[name](bands, classes, **parameters)
