"""This module takes first weights from another model, or an encoder's from ImageNet, instead of from the seed alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from tilepipe.errors import ModelError, UsageError
from tilepipe.models.formats.directory import load_model
from tilepipe.models.formats.pretrained import Pretrained, pretrained
from tilepipe.models.model import Model
from tilepipe.models.nets.encoders import fit_bands, load_encoder_weights
from tilepipe.models.nets.layers import Network
from tilepipe.models.nets.resnet import BLOCKS
from tilepipe.models.nets.zoo import build, describe
from tilepipe.models.output import bare
from tilepipe.sources.base import Source
from tilepipe.text import JSON
from tilepipe.training.config import TrainConfig
from tilepipe.training.sampling import Survey

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class Origin:
    """The models that a training starts from; both are None if the seed alone draws the weights."""

    model: Model | None = None
    """Model that the setting `start` names."""
    encoder: Pretrained | None = None
    """Weights that the setting `encoder_weights` names."""

    @classmethod
    def of(cls, config: TrainConfig) -> Origin:
        """Load the models that the configuration starts from. Raises `ModelError` if one cannot be read or trained."""
        if config.encoder_weights is not None:
            encoder = config.arch.get("encoder", "plain")
            if encoder not in BLOCKS:
                raise ModelError(
                    f"encoder_weights are for {', '.join(BLOCKS)}; give arch such an encoder, not {encoder!r}"
                )
            return cls(encoder=pretrained(config.there(config.encoder_weights), encoder))
        if config.start is None:
            return cls()
        model = load_model(config.there(config.start))
        if bare(model.module) is not model.module:
            raise ModelError(
                f"start {config.start}: its card has channels, layout, pad or threshold, which training does not take "
                "over; leave them out of the card"
            )
        if not isinstance(model.module, Network):
            raise ModelError(f"start {config.start} is none of tilepipe's own networks, and no other is trained")
        return cls(model)

    @property
    def sha256(self) -> str:
        """Hash of the models that weights start from; '' if the seed draws the weights."""
        return self.model.sha256() if self.model else self.encoder.sha256 if self.encoder else ""

    def completed(self, config: TrainConfig) -> TrainConfig:
        """Return the configuration with the start model's network and pixel size if it names none itself."""
        if self.model is None:
            return config
        card = self.model.card
        own = {"arch": card.arch, "resolution": card.resolution, "unit": card.unit}
        return config.model_copy(update={k: v for k, v in own.items() if k not in config.model_fields_set})

    def keeps_statistics(self, images: Source, config: TrainConfig) -> bool:
        """Return whether images are scaled by the start model's mean and std; by default if bands and dtype agree.

        Raises `UsageError` if this is asked for and is not possible.
        """
        if self.model is None or config.statistics == "data":
            return False
        card, bands = self.model.card, images.shape[0]
        if config.statistics == "start" and card.bands != bands:
            raise UsageError(
                f"statistics 'start' are those of {card.bands} bands, the images have {bands}; use statistics 'data'"
            )
        # A few corrected polygons give a poor mean and deviation. With those of the start model, the first step
        # answers like that model.
        return config.statistics == "start" or (card.bands == bands and card.dtype in (None, images.dtype.name))

    def scaled(self, found: Survey, images: Source, config: TrainConfig) -> Survey:
        """Return the survey with the mean and std that images are scaled by."""
        if self.model is None or not self.keeps_statistics(images, config):
            return found
        card, bands = self.model.card, images.shape[0]
        mean, std = card.mean or (0.0,) * bands, card.std or (1.0,) * bands
        return replace(found, mean=np.array(mean), std=np.array(std))

    def begin(self, module: nn.Module, images: Source, config: TrainConfig) -> JSON:
        """Give a new network its first weights and return what the card says about them. Raises `ModelError`."""
        if self.encoder is not None:
            load_encoder_weights(module.get_submodule("encoder"), self.encoder.tensors)
            return {"encoder_weights": {"name": self.encoder.name, "sha256": self.encoder.sha256}}
        if self.model is None:
            return {}
        said = {"name": self.model.card.name, "sha256": self.model.sha256(), "new": take_over(self.model, module)}
        return {"start": said | {"statistics": "start" if self.keeps_statistics(images, config) else "data"}}


def take_over(start: Model, module: nn.Module) -> list[str]:
    """Copy all weights of `start` that fit into `module`, in place; return words about the layers that are new.

    If the bands differ, `fit_bands` makes the first convolution fit. If the number of classes differs, the layers that
    give classes keep their random start. Raises `ModelError` that names the first tensor that differs if the
    architectures differ.
    """
    new, have = module.state_dict(), start.module.state_dict()
    bands, classes = start.card.bands, len(start.card.classes)
    _check_alike(start, shapes(describe(module), bands, classes))
    said = []
    for name, tensor in new.items():
        old = have[name]
        if old.shape == tensor.shape:
            new[name] = old
        # The outputs of a layer come first in its shape, so here the inputs, that is the bands, differ.
        elif old.shape[0] == tensor.shape[0]:
            new[name] = fit_bands(old, tensor.shape[1])
            said.append(f"{name} made for {tensor.shape[1]} bands from {bands}")
        else:
            said.append(f"{name} is new, as {classes} classes became {len(tensor)}")
    module.load_state_dict(new)
    return said


def shapes(arch: JSON, bands: int, classes: int) -> Shapes:
    """Return name and shape of every tensor of an architecture; nothing is allocated."""
    with torch.device("meta"):
        return {name: tuple(t.shape) for name, t in build(arch, bands, classes).state_dict().items()}


def _check_alike(start: Model, wanted: Shapes) -> None:
    have = {name: tuple(t.shape) for name, t in start.module.state_dict().items()}
    name = next((n for n in {**wanted, **have} if have.get(n) != wanted.get(n)), None)
    if name is not None:
        theirs, ours = (f"is {s[name]}" if name in s else "does not exist" for s in (have, wanted))
        raise ModelError(
            f"arch does not fit start {start.name}: {name} {theirs} there and {ours} in arch; "
            f"leave arch out to take {start.card.arch}"
        )
