"""Seamless segmentation of images too large for memory.

The way of the data, and the room of each step:

    image --read(box)--> tiles --model--> probabilities --window, sum--> labels --> Zarr --> products
    sources/             tiling/  inference/              tiling/        execution/         products/

- `sources`: an image that can be read by box: GeoTIFF, slide, OME-Zarr, PNG, array.
- `tiling`: where tiles lie and how they blend: integers and numpy, nothing is opened.
- `models`: a network and its card, its file formats, and the probe that measures what tiling does to it.
- `products`: a label map and every file that is made of it.
- `scripts`: scripts with which other programs (QGIS, QuPath) start the command line, and where they are put.
- `inference`: a model called on tiles, on a device, in a precision; measured once per machine.
- `planning`: everything that is decided before a run: a `Plan` is printable, JSON, and imports no torch.
- `execution`: a plan carried out: one image, one region, a batch; the ledger of what is done.
- `evaluation`: labels against the truth, a run against its certificate, a card against its network.
- `training`: from images with labels to a model directory.
- `view`: a viewer in the browser, for this machine only.
- `cli`: one file per command, each calls one public function.
- `testing`: fakes for tests of pipelines; nothing imports it.

Imports go downwards only:
cli, testing > view > training > evaluation > execution > planning > inference, products, scripts
> models, tiling, sources > storage, cache, box, paths, supervisor, progress > errors, events, text, table.
Rooms on one floor do not know each other.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tilepipe.box import Box
    from tilepipe.errors import TilepipeError
    from tilepipe.evaluation.accuracy.evaluate import evaluate
    from tilepipe.evaluation.verify.verify import verify
    from tilepipe.execution.lazy_labels import labels
    from tilepipe.execution.predict import predict
    from tilepipe.execution.segment import segment
    from tilepipe.models.card import ModelCard
    from tilepipe.models.formats.directory import load_model
    from tilepipe.models.model import Model
    from tilepipe.models.probe.procedure import probe
    from tilepipe.planning.planner import plan
    from tilepipe.planning.settings import Settings
    from tilepipe.products.labels import open_labels
    from tilepipe.products.zonal import zonal
    from tilepipe.sources.base import Source
    from tilepipe.sources.open import open_source
    from tilepipe.training.fit import fit

__version__ = "0.1.0"

_HOMES = {
    "Box": "box",
    "Model": "models.model",
    "ModelCard": "models.card",
    "Settings": "planning.settings",
    "Source": "sources.base",
    "TilepipeError": "errors",
    "evaluate": "evaluation.accuracy.evaluate",
    "fit": "training.fit",
    "labels": "execution.lazy_labels",
    "load_model": "models.formats.directory",
    "open_labels": "products.labels",
    "open_source": "sources.open",
    "plan": "planning.planner",
    "predict": "execution.predict",
    "probe": "models.probe.procedure",
    "segment": "execution.segment",
    "verify": "evaluation.verify.verify",
    "zonal": "products.zonal",
}

# The names are written out, since type checkers read neither `_HOMES` nor a list that is computed.
__all__ = [
    "Box",
    "Model",
    "ModelCard",
    "Settings",
    "Source",
    "TilepipeError",
    "evaluate",
    "fit",
    "labels",
    "load_model",
    "open_labels",
    "open_source",
    "plan",
    "predict",
    "probe",
    "segment",
    "verify",
    "zonal",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import tilepipe` does not import torch (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'tilepipe' has no attribute {name!r}")
    value = getattr(import_module("tilepipe." + _HOMES[name]), name)
    # From the second use on, Python finds the name and does not call this function.
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
