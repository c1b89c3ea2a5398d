"""Snapshot: the model that a training would give if it ended now."""

from __future__ import annotations

import torch

from tilepipe.models.card import ModelCard
from tilepipe.models.model import Model
from tilepipe.models.weights import stored
from tilepipe.models.zoo import build
from tilepipe.train.ground import Ground
from tilepipe.train.state import Weights


def snapshot(weights: Weights, ground: Ground, halo: int | None) -> Model:
    """Return the model of `weights`, rounded as they are stored, with all of its card but the training record."""
    config, found = ground.config, ground.found
    with torch.random.fork_rng(devices=[]):  # start values must not disturb the caller's generator
        module = build(config.arch, ground.bands, len(config.classes))
    module.load_state_dict({k: stored(t, half=config.half) for k, t in weights.items()})
    card = ModelCard(
        name=config.name,
        description=config.description,
        license=config.license,
        bands=ground.bands,
        classes=config.classes,
        colors=config.colors,
        mean=found.mean.tolist(),
        std=found.std.tolist(),
        dtype=ground.opened[0].source.dtype.name,
        resolution=ground.pixel_size[0],
        unit=config.unit,
        stride=int(getattr(module, "stride", 1)),
        halo=halo,
        tile=config.tile,
        arch=config.arch,
    )
    return Model.owning(module, card, config.name)
