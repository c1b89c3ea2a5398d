"""A card's arch may name a network of MONAI, in two dimensions.

https://docs.monai.io/en/stable/networks.html describes the networks. An arch looks like this:

    {"name": "monai.UNet", "channels": [16, 32, 64], "strides": [2, 2], "num_res_units": 2}

All values but the name are keywords of the network's class. Weights are read as data, by `tilepipe model convert`;
nothing is downloaded, and no code is read from files.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from tilepipe.errors import ModelError
from tilepipe.models.formats.opaque import missing_extra
from tilepipe.models.nets.arch import unknown
from tilepipe.models.output import as_logits
from tilepipe.text import JSON

PREFIX = "monai."
# The card says bands and classes, and tilepipe reads images of two dimensions.
_OURS = ("in_channels", "name", "spatial_dims")
_LARGEST = 4096


def names(arch: Mapping[str, object] | None) -> bool:
    """Return whether a card's arch is a network of MONAI."""
    return str((arch or {}).get("name", "")).startswith(PREFIX)


def build(arch: Mapping[str, object], bands: int, classes: int) -> nn.Module:
    """Return a new network with random weights and its total stride `stride`: (B, bands, H, W) -> (B, classes, H, W).

    Two classes may be one output channel (`out_channels: 1`): the logit of the second class. Raises `ModelError` if the
    package is missing, or if the network or a keyword is not known.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks of the package on its optional parts
            from monai.networks import nets
    except ImportError as error:
        raise missing_extra("monai", "monai", error) from None
    kind = str(arch["name"]).removeprefix(PREFIX)
    if kind not in STRIDES:
        raise ModelError(unknown("MONAI network", kind, STRIDES))
    options = {key: value for key, value in arch.items() if key not in _OURS}
    channels = options.pop("out_channels", classes)
    if arch.get("spatial_dims", 2) != 2:
        raise ModelError(f"{kind} has spatial_dims {arch['spatial_dims']}; tilepipe reads images of 2 dimensions")
    if channels != classes and (channels, classes) != (1, 2):
        raise ModelError(f"the network gives {channels} channels, the card names {classes} classes; name as many")
    try:
        made: nn.Module = getattr(nets, kind)(spatial_dims=2, in_channels=bands, out_channels=channels, **options)
        stride = STRIDES[kind](options)
    except Exception as error:  # the package checks its keywords each in its own way
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"MONAI cannot make {kind} from {options}: {said[0]}") from None
    if not 1 <= stride <= _LARGEST:
        raise ModelError(f"MONAI's {kind} with {options} subsamples by {stride}; tilepipe reads 1 to {_LARGEST}")
    made.stride = stride  # type: ignore[assignment]
    # A hook and no module around the network: the names of its tensors stay those of the file.
    made.register_forward_hook(partial(_logits, classes=classes))
    return made


def _of_strides(options: JSON) -> int:
    return math.prod(max(step) if isinstance(step, list | tuple) else int(step) for step in options["strides"])


def _of_blocks(options: JSON) -> int:
    return 1 << (len(options.get("blocks_down", (1, 2, 2, 4))) - 1)


STRIDES: Mapping[str, Callable[[JSON], int]] = {
    "AttentionUnet": _of_strides,
    "BasicUNet": lambda options: 16,
    "DynUNet": _of_strides,
    "SegResNet": _of_blocks,
    "UNet": _of_strides,
}
"""Total stride of each network in the allow-list, by the keywords of its class."""


def _logits(network: nn.Module, inputs: Any, output: Tensor, *, classes: int) -> Tensor:
    """Return logits (B, classes, H, W) from a network's output."""
    return as_logits(output, classes)
