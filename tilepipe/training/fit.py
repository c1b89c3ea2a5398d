"""This module is the training for Python: the configuration may hold arrays and functions, and a model comes back."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

from tilepipe.errors import UsageError, public
from tilepipe.events import Listener
from tilepipe.models.formats.directory import load_model
from tilepipe.models.model import Model
from tilepipe.progress import reported
from tilepipe.table import Table
from tilepipe.training import loop
from tilepipe.training.config import TrainConfig
from tilepipe.training.loop import Callback


@dataclass(frozen=True)
class Trained(os.PathLike[str]):
    """A finished training. It stands for the path of its model wherever a model or a path is wanted."""

    path: Path
    """Path of the model directory."""

    @cached_property
    def model(self) -> Model:
        """The trained model, read from its directory."""
        return load_model(self.path)

    @cached_property
    def history(self) -> Table:
        """Rows of the log by step: `step`, `learning_rate`, `loss`, and `mean_iou` and `iou <class>` of validations."""
        rows = []
        for line in (self.path / "log.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            row |= {f"iou {name}": value for name, value in row.pop("iou", {}).items()}
            rows.append(row)
        return Table(rows)

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        last = self.history[-1] if self.history else {}
        said = f", step {last['step']}, loss {last.get('loss', float('nan')):.4g}" if last else ""
        return f"<Trained {self.path}{said}>"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the path and the history."""
        return f"<p>{escape(str(self.path))}</p>{self.history._repr_html_()}"


@public
def fit(
    config: TrainConfig | Mapping[str, Any] | str | Path,
    listener: Listener | None = None,
    *,
    callback: Callback | None = None,
    progress: bool = False,
    preview: str | Path | None = None,
    overwrite: bool = False,
) -> Trained:
    """Train a model as a configuration says.

    Checkpoints and the log lie in `.<output>.training` beside the output. A training that was interrupted, also with
    Ctrl-C or in a notebook, goes on from its last checkpoint when `fit` is called again. If the model directory exists
    and holds what this configuration has given before, nothing is done.

    Args:
        config: A dict of the fields of `TrainConfig`, a `TrainConfig`, or the path of a YAML file with its fields. In
            Python an `image` may also be an array (bands, height, width) or an xarray.DataArray, a `label` an array
            (height, width) of whole numbers, and `losses` and `augment` may be functions.
        listener: Is called with each `Event`: the table of labels, then the step, the loss, the time that is left.
        callback: Is called with a dict after each step (`step`, `loss`, `learning_rate`) and after each validation
            (`step`, `mean_iou`, `iou` by class). What it raises ends the training; the last checkpoint is kept.
        progress: Whether a bar is shown, in a terminal or a notebook.
        preview: Path of a PNG of four crops with their labels, which is written before the first step.
        overwrite: Whether an existing preview is replaced. A model is never replaced.

    Returns:
        The training: `path` of the model directory, `model`, and `history` as a table. It can be given wherever the
        path of a model is wanted.

    Raises:
        UsageError: The configuration is wrong, or the output exists and is something else.
        InputError: An image or its labels cannot be read, or do not fit each other.
        DeviceError: The device is not there, or its memory ran out.

    Example:
        >>> import numpy as np
        >>> import tilepipe as tp
        >>> image = np.random.default_rng(0).integers(0, 255, (3, 96, 96), dtype=np.uint8)
        >>> config = {
        ...     "name": "tiny",
        ...     "output": "tiny.model",
        ...     "classes": ["dark", "bright"],
        ...     "train": [{"image": image, "label": image[0] > 127}],
        ...     "arch": {"name": "unet", "width": 2, "depth": 1},
        ...     "steps": 2,
        ...     "crop": 32,
        ... }
        >>> trained = tp.fit(config)
        >>> trained.model.card.classes, trained.history["step"]
        (('dark', 'bright'), [2])
        >>> tp.predict(image, trained).shape
        (96, 96)
    """
    if isinstance(config, Mapping):
        config = TrainConfig(**config)
    elif not isinstance(config, TrainConfig | str | os.PathLike):
        raise UsageError(
            f"a {type(config).__name__} is no configuration; give a dict of its fields, or the path of a YAML file"
        )
    with reported(listener, progress) as tell:
        return Trained(loop.fit(config, tell, preview=preview, overwrite=overwrite, callback=callback))
