"""A card's arch may name a network of segmentation-models-pytorch.

https://github.com/qubvel-org/segmentation_models.pytorch describes the networks. An arch looks like this:

    {"name": "smp.Unet", "encoder_name": "resnet18", "decoder_channels": [64, 32, 16, 8, 4], ...}

All values but the name are keywords of the network's class. A `save_pretrained` directory is read too (config.json
and model.safetensors, with a model.json beside them). Nothing is downloaded and no code is read from files.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from tilepipe.errors import ModelError
from tilepipe.models.formats.opaque import first_line, missing_extra
from tilepipe.models.nets.arch import unknown
from tilepipe.models.output import as_logits
from tilepipe.paths import refuse_special
from tilepipe.text import JSON, json_of

PREFIX = "smp."
CONFIG, WEIGHTS = "config.json", "model.safetensors"
MAX_CONFIG_BYTES = 1 << 20
# The card says the bands, and `encoder_weights` would download weights.
_OURS = ("in_channels", "encoder_weights", "name")


def names(arch: Mapping[str, object] | None) -> bool:
    """Return whether a card's arch is a network of segmentation-models-pytorch."""
    return str((arch or {}).get("name", "")).startswith(PREFIX)


def is_pretrained(directory: Path) -> bool:
    """Return whether `save_pretrained` wrote this directory."""
    return (directory / CONFIG).exists() and (directory / WEIGHTS).exists()


def arch_of(path: Path) -> JSON:
    """Return the arch that a config.json describes. Raises `ModelError`."""
    try:
        refuse_special(path, ModelError)
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ValueError("it is too large,")
        config = json_of(path.read_text(encoding="utf-8"))
        kind = config.pop("_model_class")
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise ModelError(f"{path} is not the configuration of a segmentation-models-pytorch network") from None
    return {"name": f"{PREFIX}{kind}", **{key: value for key, value in config.items() if key not in _OURS}}


def build(arch: Mapping[str, object], bands: int, classes: int) -> nn.Module:
    """Return a new network with random weights and its total stride `stride`: (B, bands, H, W) -> (B, classes, H, W).

    Two classes may be one output channel (`classes: 1`): the logit of the second class. Raises `ModelError` if the
    package is missing, or if the network, its encoder or a keyword is not known.
    """
    try:
        import segmentation_models_pytorch as package
    except ImportError as error:
        raise missing_extra("segmentation-models-pytorch", "smp", error) from None
    except RuntimeError as error:  # torchvision's operators are compiled for one build of torch
        raise ModelError(
            f"segmentation-models-pytorch cannot be used ({first_line(error)}): torch and torchvision are of different "
            "builds; install both of one version and from one place (both for the CPU, or both for CUDA)"
        ) from None
    known = {kind.__name__: kind for kind in package.MODEL_ARCHITECTURES_MAPPING.values()}
    kind = str(arch["name"]).removeprefix(PREFIX)
    if kind not in known:
        raise ModelError(unknown("segmentation-models-pytorch network", kind, known))
    options = {key: value for key, value in arch.items() if key not in _OURS}
    _refuse(options)
    channels = options.pop("classes", classes)
    if channels != classes and (channels, classes) != (1, 2):
        raise ModelError(f"the network gives {channels} channels, the card names {classes} classes; name as many")
    try:
        network: nn.Module = known[kind](in_channels=bands, classes=channels, encoder_weights=None, **options)
    except Exception as error:  # the package checks its keywords each in its own way
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"segmentation-models-pytorch cannot make {kind} from {options}: {said[0]}") from None
    network.stride = int(network.encoder.output_stride)  # type: ignore[assignment,arg-type,union-attr]
    # A hook and no module around the network: the names of its tensors stay those of the file.
    network.register_forward_hook(partial(_logits, classes=classes))
    return network


def _refuse(options: Mapping[str, object]) -> None:
    encoder = str(options.get("encoder_name", ""))
    if set(":/\\") & set(encoder):
        raise ModelError(f"encoder {encoder!r} names a place to load from; use the name of a timm or smp encoder")
    if options.get("activation") is not None:
        raise ModelError(f"activation {options['activation']!r}: tilepipe reads logits; set it to null")


def _logits(network: nn.Module, inputs: object, output: Tensor | tuple[Tensor, ...], *, classes: int) -> Tensor:
    """Return logits (B, classes, H, W) from a network's output; if it classifies images too, only the masks count."""
    masks: Tensor = output[0] if isinstance(output, tuple) else output
    return as_logits(masks, classes)
