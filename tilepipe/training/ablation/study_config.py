"""This module defines CompareConfig, which says what is compared; it is read from YAML."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import Field, PrivateAttr, ValidationError

from tilepipe.errors import UsageError
from tilepipe.models.nets.zoo import build
from tilepipe.text import JSON, kind_of, read_yaml, wrong_value
from tilepipe.training.config import TrainConfig
from tilepipe.training.config_parts import Strict, expanded
from tilepipe.training.loop import LOG_EVERY

Settings = Mapping[str, object]


@dataclass(frozen=True)
class Run:
    """One training of the comparison."""

    set: str
    mechanism: str
    seed: int

    def __str__(self) -> str:
        return f"{self.set}, {self.mechanism}, seed {self.seed}"


class CompareConfig(Strict):
    """The settings of a comparison, from YAML. `common` and each set take the settings of a training configuration."""

    _folder: Path = PrivateAttr(default=Path())

    name: str
    common: Settings = Field(default_factory=dict)
    """Training settings that all runs share."""
    sets: Mapping[str, Settings] = Field(min_length=1)
    """Settings of each data set: classes, images and what else differs from `common`."""
    arch: Settings
    """Architecture of the network that the mechanisms change."""
    mechanisms: Mapping[str, Settings] = Field(min_length=1)
    """Parameters of `arch` that differ, for each mechanism."""
    seeds: tuple[int, ...] = Field(min_length=1)
    early: tuple[int, ...] = ()
    """Steps, besides the last, at which the averaged weights are measured; multiples of 10."""
    width: float = Field(default=2.0, ge=1, le=64)
    """Width of Boundary IoU (full-resolution pixels)."""

    def __init__(self, **values: Any) -> None:
        """Check the values. Raises `UsageError` that names the first wrong value."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise UsageError(f"comparison: {wrong_value(error.errors()[0])}") from None

    @classmethod
    def load(cls, path: str | Path) -> CompareConfig:
        """Read a YAML file; relative paths in it start from its folder. Raises `UsageError`."""
        try:
            values = read_yaml(path)
        except ValueError as error:
            raise UsageError(str(error)) from None
        if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
            raise UsageError(f"{path} holds no comparison; it should start with 'name: ...'")
        if (other := kind_of(values)) not in ("compare", ""):
            raise UsageError(f"{path} is no comparison but a file for another command; give: tilepipe {other} {path}")
        config = cls(**values)
        config._folder = Path(path).parent
        return config

    @property
    def runs(self) -> list[Run]:
        """All runs, ordered by mechanism; each mechanism has every set and seed."""
        return [Run(s, m, seed) for m, s, seed in product(self.mechanisms, self.sets, self.seeds)]

    def settings(self, run: Run) -> JSON:
        """Return the training settings of a run as the file has them."""
        arch = {**self.arch, **self.mechanisms[run.mechanism]}
        return {**self.common, **self.sets[run.set], "arch": arch, "seed": run.seed}

    def training(self, run: Run) -> TrainConfig:
        """Return the training configuration of a run. Raises `UsageError` if a setting is wrong."""
        try:
            fields = {"name": self.name, "output": f"{self.name}.model", **self.settings(run)}
            return TrainConfig(**{key: _filled(value) for key, value in fields.items()}).within(self._folder)
        except UsageError as error:
            raise UsageError(f"{run}: {error}") from None

    def fingerprint(self, run: Run) -> str:
        """Return the hash of everything that decides a run's figures, except the data's folder and the software."""
        decisive = {**self.settings(run), "early": self.early, "width": self.width}
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]

    def check(self) -> None:
        """Build every network once, so that a mistake costs no training. Raises `UsageError` or `ModelError`."""
        for run in (run for run in self.runs if run.seed == self.seeds[0]):
            training = self.training(run)
            if training.start is not None:
                raise UsageError(f"{run}: a comparison starts from no model; leave start out, or use encoder_weights")
            if not training.score or training.validation:
                raise UsageError(f"{run}: name images to score on under score, and leave out validate")
            # The number of bands does not change the stride, and no image is opened here.
            stride = build(training.arch, 1, len(training.classes)).stride
            if training.crop % stride:
                raise UsageError(f"{run}: crop {training.crop} is not a multiple of the total stride {stride}")
            # The training calls its listener at rows of the log, and only then a run is measured.
            wrong = [step for step in self.early if step % LOG_EVERY or not 0 < step < training.steps]
            if wrong:
                raise UsageError(
                    f"early step {wrong[0]}: give multiples of {LOG_EVERY} below the {training.steps} steps"
                )


def _filled(value: object) -> object:
    """Return `value` with the data's folder filled into every text."""
    if isinstance(value, dict):
        return {key: _filled(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item) for item in value]
    return expanded(value) if isinstance(value, str) else value
