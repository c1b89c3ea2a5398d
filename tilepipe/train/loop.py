"""The training loop, to be read from top to bottom."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tilepipe.errors import UsageError
from tilepipe.events import Event, Listener, silent
from tilepipe.models.card import ModelCard
from tilepipe.models.model import Model
from tilepipe.models.weights import save_model, stored
from tilepipe.models.zoo import build
from tilepipe.predict import resolve_device
from tilepipe.probe import probe
from tilepipe.quality.confusion import Confusion
from tilepipe.train.augment import augmented
from tilepipe.train.baseline import best_threshold
from tilepipe.train.config import TrainConfig
from tilepipe.train.data import Scene, held, open_scenes
from tilepipe.train.losses import total_loss
from tilepipe.train.sampling import Sampler, Survey, survey
from tilepipe.train.score import score
from tilepipe.train.state import State, learning_rate
from tilepipe.train.transfer import Origin

LOG_EVERY = 10
"""Steps per row of the log."""
FILES = {"train", "score", "output", "start", "encoder_weights"}
"""Settings that name files; the card names what they held."""


def fit(config: TrainConfig | str | Path, listener: Listener = silent) -> Path:
    """Train a model as the configuration (or YAML file) says and return its directory.

    Checkpoints and log.csv lie in `.<output>.training` beside the output; a run that was interrupted goes on there.
    Raises `UsageError` for a wrong configuration or an output that exists, `InputError` for wrong images or labels.
    """
    config = config if isinstance(config, TrainConfig) else TrainConfig.load(config)
    output = Path(config.output)
    if output.exists():
        raise UsageError(f"{output} exists; delete it or give another output")
    folder = output.with_name(f".{output.name}.training")
    origin = Origin.of(config)
    config = origin.completed(config)
    scored = open_scenes(config.score, config)
    scenes = [held(scene) for scene in open_scenes(config.train, config)]
    state = start(scenes, config, origin)
    found = origin.scaled(survey(scenes, len(config.classes)), scenes[0].source, config)
    state.resume(folder, config)
    train(state, Sampler(scenes, found, config), found, config, folder, listener)
    model = finished(state, scenes, found, config)
    listener(Event("train", config.steps, config.steps, f"scoring on {len(scored)} images"))
    record = model.card.training | judged(model, scenes, scored)
    save_model(Model(model.card.model_copy(update={"training": record}), model.module), output, half=config.half)
    shutil.rmtree(folder, ignore_errors=True)
    return output


def start(scenes: Sequence[Scene], config: TrainConfig, origin: Origin | None = None) -> State:
    """Return the state before the first step: weights drawn by the seed, then those of the origin, where there is one.

    The caller's generator is left alone.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        module = build(config.arch, scenes[0].source.shape[0], len(config.classes))
    said = (origin or Origin.of(config)).begin(module, scenes[0].source, config)
    stride = int(getattr(module, "stride", 1))
    if config.crop % stride:
        right = -(-config.crop // stride) * stride
        raise UsageError(f"crop {config.crop} is not a multiple of the network's total stride {stride}; use {right}")
    module = module.to(resolve_device(config.device)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return State.new(module, config, said)


def train(state: State, sampler: Sampler, found: Survey, config: TrainConfig, folder: Path, listener: Listener) -> None:
    """Take the remaining steps."""
    mean, std = (torch.tensor(values, dtype=torch.float32) for values in (found.mean, found.std))
    device = next(state.module.parameters()).device
    weight = torch.tensor(config.class_weights, device=device) if config.class_weights else None
    state.module.train()
    recent: list[float] = []
    while state.step < config.steps:
        random = torch.Generator().manual_seed(config.seed * 1_000_003 + state.step)
        images, labels = augmented(*sampler.batch(state.step), std, config.augment, random)
        images = (images - mean.view(1, -1, 1, 1)) / std.view(1, -1, 1, 1)
        recent.append(step(state, images.to(device), labels.to(device), weight, config))
        if state.step % LOG_EVERY == 0 or state.step == config.steps:
            loss, recent = sum(recent) / len(recent), []
            state.log.append([state.step, learning_rate(state.step - 1, config), loss])
            data = {"step": state.step, "loss": loss}
            listener(Event("train", state.step, config.steps, f"step {state.step}: loss {loss:.4f}", data))
        if state.step % config.checkpoint == 0 or state.step == config.steps:
            state.save(folder, config)


def step(state: State, images: Tensor, labels: Tensor, weight: Tensor | None, config: TrainConfig) -> float:
    """Take one step on a normalised batch (B, C, H, W) with classes (B, H, W) and return its loss."""
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(state.step, config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed * 1_000_003 + state.step)  # for dropout
        logits = state.module(images.contiguous(memory_format=torch.channels_last))
    loss = total_loss(config.losses, logits, labels, weight)
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(state.module.parameters(), config.clip)
    state.optimizer.step()
    state.step += 1
    state.update_average(config.ema)
    return float(loss.detach())


def finished(state: State, scenes: Sequence[Scene], found: Survey, config: TrainConfig) -> Model:
    """Return the model of the averaged weights, rounded as they will be stored, with its card."""
    module = build(config.arch, scenes[0].source.shape[0], len(config.classes))
    module.load_state_dict({k: stored(t, half=config.half) for k, t in state.average.items()})
    measured = probe(module.eval(), scenes[0].source.shape[0], declared_stride=int(getattr(module, "stride", 1)))
    card = ModelCard(
        name=config.name,
        description=config.description,
        license=config.license,
        bands=scenes[0].source.shape[0],
        classes=config.classes,
        colors=config.colors,
        mean=[round(float(v), 3) for v in found.mean],
        std=[round(float(v), 3) for v in found.std],
        dtype=scenes[0].source.dtype.name,
        resolution=config.resolution,
        unit=config.unit,
        stride=int(getattr(module, "stride", 1)),
        halo=max(measured.halo) if measured.halo else None,
        tile=config.tile,
        arch=config.arch,
        training=record(state, scenes, found, config),
    )
    return Model.from_torch(module, card, config.name)


def record(state: State, scenes: Sequence[Scene], found: Survey, config: TrainConfig) -> dict[str, Any]:
    """Return what the card says about the training."""
    return {
        "images": [Path(scene.name).name for scene in scenes],
        "pixels": dict(zip(config.classes, found.counts.sum(0).tolist(), strict=True)),
        **state.origin,
        "configuration": configured(config),
        "final_loss": round(state.log[-1][2], 4),
        "software": {"tilepipe": version("tilepipe"), "torch": torch.__version__},
    }


def configured(config: TrainConfig) -> dict[str, Any]:
    """Return the settings that differ from the defaults, but for files."""
    return config.model_dump(mode="json", exclude_defaults=True, exclude=FILES)


def judged(model: Model, scenes: Sequence[Scene], scored: Sequence[Scene]) -> dict[str, Any]:
    """Return the model's scores beside those of the majority class and of the best threshold found on `scenes`."""
    if not scored:
        return {}
    confusion = score(model, scored)
    answers = {"model": confusion, "majority": confusion.majority()}
    result: dict[str, Any] = {"scored_images": [f"{Path(s.name).name} {s.full.to_list()}" for s in scored]}
    if len(model.card.classes) == 2:
        answers["threshold"], result["threshold_rule"] = best_threshold(scenes, scored)
    result["scores"] = {name: figures(found, model.card.classes) for name, found in answers.items()}
    return result


def figures(confusion: Confusion, classes: Sequence[str]) -> dict[str, Any]:
    """Return IoU per class, mean IoU and pixel accuracy, rounded to 4 digits."""
    iou = {name: round(value, 4) for name, value in zip(classes, confusion.iou, strict=True)}
    return {"iou": iou, "mean_iou": round(confusion.mean_iou, 4), "accuracy": round(confusion.accuracy, 4)}
