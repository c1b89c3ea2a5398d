"""This module holds the state of a training run, its checkpoints, and the model that it would give if it ended now.

A resumed training continues bit for bit on the CPU.
"""

from __future__ import annotations

import json
import math
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from tilepipe.errors import StorageError, UsageError
from tilepipe.models.card import ModelCard
from tilepipe.models.formats.directory import stored
from tilepipe.models.model import Model
from tilepipe.models.nets.zoo import build
from tilepipe.models.precision import HALF
from tilepipe.storage import cannot_write
from tilepipe.text import JSON, json_of
from tilepipe.training.config import TrainConfig
from tilepipe.training.dataset import Dataset

Weights = dict[str, Tensor]
CHECKPOINT, OLDER = "checkpoint.pt", "checkpoint.older.pt"
_FREE = {
    "output",
    "score",
    "name",
    "description",
    "license",
    "colors",
    "checkpoint",
    "tile",
    "start",
    "encoder_weights",
}
"""Settings that may change between a run and its resumption: they do not affect the weights, or hashes show a
change."""


@dataclass
class State:
    """The state of a training: network, averaged weights, optimiser and progress."""

    module: nn.Module
    """Network in training."""
    average: Weights
    """Running average of the network's weights and statistics; it is saved at the end."""
    optimizer: torch.optim.Optimizer
    half: torch.dtype | None
    """Type that the forward pass computes in; None is float32."""
    scaler: torch.amp.GradScaler
    """Scaler of the loss in fp16; in other precisions it does nothing."""
    step: int = 0
    """Number of steps done."""
    log: list[list[float]] = field(default_factory=list)
    """Rows of the log: (step, learning rate, mean loss since the row before)."""
    origin: JSON = field(default_factory=dict)
    """Origin of the first weights, as the card says it; empty if the seed drew them."""
    data: str = ""
    """Hash of the images and labels trained and validated on."""
    recent: list[float] = field(default_factory=list)
    """Losses since the last row of the log."""
    validations: list[list[float]] = field(default_factory=list)
    """Results of the validations: (step, mean IoU, IoU per class); nan for a class that does not occur."""
    best: Weights | None = None
    """Averaged weights at the best validation, on the CPU; None before the first validation."""

    @classmethod
    def new(cls, module: nn.Module, config: TrainConfig, origin: JSON | None = None) -> State:
        """Return the state before the first step. AdamW (Loshchilov 2019) decays weights of two and more axes."""
        decayed = [p for p in module.parameters() if p.ndim > 1]
        plain = [p for p in module.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=config.learning_rate)
        device = next(module.parameters()).device
        half = autocast_type(config.precision, device)
        average = {k: t.detach().clone() for k, t in module.state_dict().items()}
        return cls(module, average, optimizer, half, grad_scaler(half, device), origin=origin or {})

    @torch.no_grad()
    def update_average(self, keep: float) -> None:
        """Move the average towards the weights, faster in the first steps; whole numbers are copied."""
        # With the full share from the start, the average would hold the random weights for long.
        keep = min(keep, (1 + self.step) / (10 + self.step))
        for name, tensor in self.module.state_dict().items():
            if tensor.is_floating_point():
                self.average[name].lerp_(tensor, 1 - keep)
            else:
                # Counts, such as those of batch norm, have no average.
                self.average[name].copy_(tensor)

    def save(self, folder: Path, config: TrainConfig) -> None:
        """Write a checkpoint, whole or not at all, and keep the one before it. Raises `StorageError`."""
        kept = {
            "config": fingerprint(config, self.origin),
            "data": self.data,
            "began": began(config),
            **{name: getattr(self, name) for name in ("step", "log", "recent", "validations", "average", "best")},
            **{name: getattr(self, name).state_dict() for name in ("module", "optimizer", "scaler")},
        }
        fresh = folder / f"{CHECKPOINT}.part"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with fresh.open("wb") as file:
                # torch takes an open file too, and only an open file can be synced before it gets its name.
                torch.save(kept, file)
                file.flush()
                os.fsync(file.fileno())
            # A process that dies between the two renames leaves the older checkpoint, which `resume` reads too.
            if (folder / CHECKPOINT).exists():
                (folder / CHECKPOINT).replace(folder / OLDER)
            fresh.replace(folder / CHECKPOINT)
        except (OSError, RuntimeError) as error:
            with suppress(OSError):
                fresh.unlink()
            cause = error if isinstance(error, OSError) else error.__context__  # torch hides the error of the disk
            if not isinstance(cause, OSError):
                raise
            raise cannot_write(folder, cause) from None

    def resume(self, folder: Path, config: TrainConfig) -> str:
        """Take over the newest checkpoint in `folder` that can be read, if any; return a sentence for the user.

        A checkpoint of other images, labels or start model is left alone, and training starts anew. Raises `UsageError`
        if the checkpoint is of another configuration, `StorageError` if no checkpoint can be read.
        """
        problems = []
        for path in (folder / CHECKPOINT, folder / OLDER):
            if not path.exists():
                continue
            try:
                kept = _read(path)
            except StorageError as error:
                problems.append(str(error))
                continue
            if said := self._other_content(kept, folder, config):
                return " ".join([*problems, f"{said}; training starts anew"])
            self._take(kept)
            return f"{' '.join(problems)}; going on from step {self.step}" if problems else ""
        if problems:
            raise StorageError(f"{problems[0]}; delete {folder} to start anew")
        return ""

    def _other_content(self, kept: JSON, folder: Path, config: TrainConfig) -> str:
        """Return which sources of a checkpoint with the same settings have changed since; '' if none has."""
        # If only the content behind a name has changed, the fingerprint agrees once the old hashes are put in.
        hashes = {key: {"sha256": json_of(kept["config"]).get(key)} for key in self.origin}
        same = same_run(kept["config"], config, self.origin)
        if not same and not (kept.get("began") == began(config) and same_run(kept["config"], config, hashes)):
            raise UsageError(
                f"{folder} holds the training run of another configuration; delete it to start anew, or change output"
            )
        if not same:
            return f"{' and '.join(self.origin)} is not what the checkpoint of step {kept['step']} began with"
        if kept.get("data") != self.data:
            return f"the images or labels are not those of the checkpoint of step {kept['step']}"
        return ""

    def _take(self, kept: JSON) -> None:
        self.module.load_state_dict(kept["module"])
        self.average = {k: kept["average"][k].to(t.device) for k, t in self.average.items()}
        self.optimizer.load_state_dict(kept["optimizer"])
        if kept.get("scaler"):
            self.scaler.load_state_dict(kept["scaler"])
        self.step, self.log, self.recent = kept["step"], kept["log"], kept.get("recent", [])
        # Checkpoints of earlier versions do not have these parts.
        self.validations, self.best = kept.get("validations", []), kept.get("best")


def began(config: TrainConfig) -> list[str | None]:
    """Return the names of the sources of the first weights; their hashes are in the fingerprint."""
    return [config.start, config.encoder_weights]


def fingerprint(config: TrainConfig, origin: JSON) -> str:
    """Return the settings that decide the weights, and the hashes of the first weights' sources, as JSON text."""
    hashes = {key: said["sha256"] for key, said in origin.items()}
    return json.dumps({**config.model_dump(mode="json", exclude=_FREE), **hashes}, sort_keys=True)


def same_run(kept: str, config: TrainConfig, origin: JSON) -> bool:
    """Return whether a fingerprint is that of `config`; settings newer than it must have their defaults."""
    before, now = json_of(kept), json_of(fingerprint(config, origin))
    changed = {*config.model_dump(exclude=_FREE, exclude_defaults=True), *origin}
    return all(name in now and now[name] == value for name, value in before.items()) and changed <= set(before)


def learning_rate(step: int, config: TrainConfig) -> float:
    """Return the learning rate of a step: a linear rise over `warmup` steps, then a cosine to zero (Loshchilov
    2017)."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def _read(path: Path) -> JSON:
    try:
        # A pickle could run code when it is read (docs/decisions/trust.md).
        kept: JSON = torch.load(path, weights_only=True, map_location="cpu")
        if not isinstance(kept, dict) or {"config", "step", "log", "module", "average", "optimizer"} - set(kept):
            raise ValueError("parts are missing")
    except Exception as error:  # torch.load raises any kind of error for a damaged file
        raise StorageError(f"{path} cannot be read ({_first_line(error)})") from None
    return kept


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def snapshot(weights: Weights, dataset: Dataset, halo: int | None) -> Model:
    """Return the model of `weights`, rounded as they are stored, with all of its card except the training record."""
    config, found = dataset.config, dataset.found
    with torch.random.fork_rng(devices=[]):  # drawing the start values must not disturb the caller's generator
        module = build(config.arch, dataset.bands, len(config.classes))
    # Scores must be those of the weights that users get, so they are rounded as they will be stored.
    module.load_state_dict({k: stored(t, half=config.half) for k, t in weights.items()})
    card = ModelCard(
        name=config.name,
        description=config.description,
        license=config.license,
        bands=dataset.bands,
        classes=config.classes,
        colors=config.colors,
        mean=found.mean.tolist(),
        std=found.std.tolist(),
        dtype=dataset.opened[0].source.dtype.name,
        resolution=dataset.pixel_size[0],
        unit=config.unit,
        stride=int(getattr(module, "stride", 1)),
        halo=halo,
        tile=config.tile,
        arch=config.arch,
    )
    return Model.owning(module, card, config.name)


def autocast_type(precision: str, device: torch.device) -> torch.dtype | None:
    """Return the type that autocast uses for 'auto', 'fp32', 'bf16' or 'fp16'; None computes in float32.

    'auto' is fp32 on the CPU. On a GPU it is bf16, or fp16 if the GPU has no bf16 of its own.
    """
    if precision != "auto":
        return HALF[precision]
    if device.type == "cpu":
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def grad_scaler(half: torch.dtype | None, device: torch.device) -> torch.amp.GradScaler:
    """Return a scaler that keeps small gradients from vanishing in fp16 (Micikevicius 2018, 1710.03740)."""
    return torch.amp.GradScaler(device.type, enabled=half is torch.float16)
