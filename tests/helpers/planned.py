"""Cards, images and plans of the tests that plan without predicting."""

from __future__ import annotations

from typing import Any

import numpy as np
from helpers.fakes import plan_of

from tilepipe.models.card import ModelCard
from tilepipe.sources.array import ArraySource
from tilepipe.testing import constant_model


def card(**changes: Any) -> ModelCard:
    return ModelCard(**{"bands": 3, "classes": ["a", "b"], "stride": 8, "halo": 24, **changes})


def plan_for(image: ArraySource, changes: dict[str, Any] | None = None, **chosen: Any) -> Any:
    model = constant_model(0.5, 0.5, bands=image.shape[0])
    fields = {"bands": image.shape[0], **(changes or {})}
    return plan_of(image, type(model).from_torch(model.module, card(**fields)), **chosen)


def file_image(height: int, width: int, resolution: Any = None, dtype: str = "uint8") -> ArraySource:
    """An image that is not called 'array', as files are."""
    return ArraySource(np.zeros((3, height, width), dtype), resolution=resolution, name="scene.tif")
