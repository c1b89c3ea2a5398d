"""Seamless segmentation of images too large for memory.

The way of the data, and where to read about each step:

    source --read(box)--> tiles --model--> probabilities --window, sum--> labels --> Zarr --> products
    sources/              grid    models/  predict         window, blend             store    exports/

- `sources`: an image that can be read by box: GeoTIFF, slide, OME-Zarr, array.
- `grid`, `window`: where tiles lie (a pure function of image size, tile, step and stride) and what they weigh.
- `models`: encoder-decoder networks, their cards and weights; `predict` calls one with a fixed batch shape.
- `blend`, `store`: exact integer sums over tiles; one Zarr chunk, one writer; a ledger of what is done.
- `plan`: all of the above decided before anything runs; printable, JSON, with the memory it will take.
- `engine`: one block is read, predicted, blended, committed. `engine.serial` is the specification, `engine.dask`
  gives the same bytes.
- `exports`: Cloud Optimized GeoTIFF, OME-Zarr, polygons. `train`: the loop that makes models.
- `api`, `batch`, `cli`: the three ways in. Thin.

Imports go downwards only:
cli > batch > api > exports, train > engine > plan > probe, predict, blend, store, labelmap > sources, models
> grid, window, quality > box, events, errors.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tilepipe.api import load_model, open_labels, open_source, predict, segment
    from tilepipe.box import Box
    from tilepipe.comparison import evaluate
    from tilepipe.engine.job import plan
    from tilepipe.errors import TilepipeError
    from tilepipe.models.card import ModelCard
    from tilepipe.models.model import Model
    from tilepipe.probe import probe
    from tilepipe.sources.base import Source
    from tilepipe.train.loop import fit
    from tilepipe.verify import verify

__version__ = "0.1.0"

__all__ = [
    "Box",
    "Model",
    "ModelCard",
    "Source",
    "TilepipeError",
    "evaluate",
    "fit",
    "load_model",
    "open_labels",
    "open_source",
    "plan",
    "predict",
    "probe",
    "segment",
    "verify",
]

_HOMES = {
    "Box": "box",
    "Model": "models.model",
    "ModelCard": "models.card",
    "Source": "sources.base",
    "TilepipeError": "errors",
    "evaluate": "comparison",
    "fit": "train.loop",
    "open_source": "sources.open",
    "plan": "engine.job",
    "probe": "probe",
    "verify": "verify",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import tilepipe` does not import torch (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module 'tilepipe' has no attribute {name!r}")
    value = getattr(import_module("tilepipe." + _HOMES.get(name, "api")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


class _Package(ModuleType):
    """`tilepipe.plan`, `predict`, `probe` and `verify` are functions, also once modules of these names are imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
