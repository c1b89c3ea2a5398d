"""This module records in the model directory what a model was made of, so that a finished training is recognised.

`training.json` holds hashes alone and no paths, because models are given to others.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from tilepipe.errors import StorageError, TilepipeError, UsageError
from tilepipe.models.contents import network_sha256
from tilepipe.models.formats.directory import load_model
from tilepipe.models.model import Model
from tilepipe.storage import read_json, sealed
from tilepipe.training.config import TrainConfig
from tilepipe.training.dataset import Dataset
from tilepipe.training.transfer import Origin

TRAINING = "training.json"
_FREE = {"output", "checkpoint"}
"""Settings that do not change the model."""


def finished_file(config: TrainConfig, origin: Origin, dataset: Dataset, model: Model) -> dict[str, bytes]:
    """Return the name and content of the file that says what a model was made of."""
    facts = {"settings": _settings(config), "data": _data(origin, dataset), "model": _weights(model)}
    return {TRAINING: (json.dumps(sealed(facts), indent=1) + "\n").encode()}


def check_finished(output: Path, config: TrainConfig) -> None:
    """Raise `UsageError` unless `output` is the model that a training with `config` has written."""
    other = "delete it or give another output"
    try:
        known = read_json(output / TRAINING)
        settings, data, weights = known["settings"], known["data"], known["model"]
        model = load_model(output)
    except (StorageError, KeyError):
        raise UsageError(f"{output} exists; {other}") from None
    except TilepipeError as error:
        raise UsageError(f"{output} exists and cannot be loaded ({error}); {other}") from None
    now = _settings(config)
    if changed := sorted(name for name in {*now, *settings} if now.get(name) != settings.get(name)):
        raise UsageError(f"{output} exists and was trained with other settings ({', '.join(changed)}); {other}")
    if _weights(model) != weights:
        raise UsageError(f"{output} exists and was changed since it was trained; {other}")
    # Reading all images takes longest, so this comparison comes last.
    origin = Origin.of(config)
    if _data(origin, Dataset(origin.completed(config), origin)) != data:
        raise UsageError(
            f"{output} exists and was trained on images, labels or a start model that are something else now; {other}"
        )


def _settings(config: TrainConfig) -> dict[str, str]:
    """Return a hash per setting that is not the default."""
    # Defaults are left out, so a model stays known to a later version that has more settings.
    given = config.model_dump(mode="json", exclude_defaults=True, exclude=_FREE)
    return {name: _hash(value) for name, value in given.items()}


def _data(origin: Origin, dataset: Dataset) -> str:
    """Return a hash of the images, the labels and the source of the first weights."""
    return _hash([dataset.content(scored=True), origin.sha256])


def _weights(model: Model) -> str:
    """Return a hash of the weights alone, since the card may be corrected later."""
    return network_sha256(model.module)


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
