"""This module is the training loop, to be read from top to bottom."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tilepipe.errors import UsageError, public
from tilepipe.events import Event, Listener, silent
from tilepipe.inference.device import resolve_device
from tilepipe.models.formats.directory import save_model
from tilepipe.models.model import Model
from tilepipe.models.nets.zoo import build
from tilepipe.models.probe.certificate_file import with_certificate
from tilepipe.models.probe.procedure import probe_once
from tilepipe.paths import refuse_inputs
from tilepipe.training.augment import augmented
from tilepipe.training.broken_loss import no_number
from tilepipe.training.config import TrainConfig
from tilepipe.training.curves import missing
from tilepipe.training.dataset import Dataset
from tilepipe.training.finished import check_finished, finished_file
from tilepipe.training.log import log_files, write_log
from tilepipe.training.losses import total_loss
from tilepipe.training.preview import check_preview, write_preview
from tilepipe.training.progress import Progress
from tilepipe.training.record import judged, record
from tilepipe.training.sampling import Sampler, class_weights
from tilepipe.training.scenes import Scene, files_read
from tilepipe.training.state import State, learning_rate, snapshot
from tilepipe.training.transfer import Origin
from tilepipe.training.validation import best, score, stopped

Callback = Callable[[dict[str, Any]], object]
"""Function of the caller's that is told of each step and each validation."""
LOG_EVERY = 10
"""Number of steps per row of the log."""


@public
def fit(
    config: TrainConfig | str | Path,
    listener: Listener = silent,
    *,
    preview: str | Path | None = None,
    overwrite: bool = False,
    callback: Callback | None = None,
) -> Path:
    """Train a model, and return the path of its directory; see `training.fit.fit`."""
    config = config if isinstance(config, TrainConfig) else TrainConfig.load(config)
    output = config.path(config.output)
    # A finished training is recognised by the settings as they were given, before the start model completes them.
    asked, folder = config, output.with_name(f".{output.name}.training")
    if output.exists():
        check_finished(output, config)
        # A process may have died after it saved the model and before it removed its checkpoints.
        shutil.rmtree(folder, ignore_errors=True)
        listener(Event("done", message="already complete, nothing to do"))
        return output
    refuse_inputs([output, folder], files_read(config))
    origin = Origin.of(config)
    dataset = Dataset(origin.completed(config), origin)
    config = dataset.config
    if preview is not None:
        check_preview(dataset, Path(preview), overwrite)
    for said in dataset.check():
        listener(Event("labels", message=said))
    for note in dataset.notes:
        listener(Event("images", message=note))
    for said in write_preview(dataset, Path(preview)) if preview is not None else ():
        listener(Event("labels", message=said))
    if said := missing():
        listener(Event("train", message=said))
    state = start(dataset.scenes, config, origin)
    state.data = dataset.content()
    if said := state.resume(folder, config):
        listener(Event("train", state.step, config.steps, said))
    train(state, dataset, folder, listener, callback)
    model = finished(state, dataset)
    ended = f"stopped at step {state.step}, validation got no better; " if state.step < config.steps else ""
    listener(Event("train", config.steps, config.steps, f"{ended}scoring on {len(dataset.scored)} images"))
    training = model.card.training | judged(model, dataset.scenes, dataset.scored, config.device)
    model = with_certificate(Model(model.card.model_copy(update={"training": training}), model.module))
    more = log_files(state, config) | finished_file(asked, origin, dataset, model)
    # The log and training.json are written together with the model: the directory holds all of them or does not exist.
    save_model(model, output, half=config.half, more=more)
    shutil.rmtree(folder, ignore_errors=True)
    return output


def start(scenes: Sequence[Scene], config: TrainConfig, origin: Origin | None = None) -> State:
    """Return the state before the first step: weights drawn by the seed, then an origin's weights if there is one.

    The caller's random generator stays unchanged.
    """
    # No GPU draws numbers here, and without `devices` torch would save the generators of all GPUs.
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


def train(state: State, dataset: Dataset, folder: Path, listener: Listener, callback: Callback | None = None) -> None:
    """Take the remaining steps, or stop earlier when validation does not improve any more."""
    config, found = dataset.config, dataset.found
    sampler = Sampler(dataset.scenes, found, config)
    mean, std = (torch.tensor(values, dtype=torch.float32) for values in (found.mean, found.std))
    device = next(state.module.parameters()).device
    weights = class_weights(found, config)
    weight = torch.tensor(weights, device=device) if weights else None
    state.module.train()
    # The context follows from the network's layers, so it is measured once and not with each validation.
    context = halo(snapshot(state.average, dataset, None).module, dataset.bands) if config.validation else None
    progress = Progress(state, config, listener)
    while state.step < config.steps and not stopped(state.validations, config):
        # A step draws from a generator of its own, so a training that goes on draws what it would have drawn.
        random = torch.Generator().manual_seed(config.seed * 1_000_003 + state.step)
        images, labels = augmented(*sampler.batch(state.step), std, config.augment, random)
        images = (images - mean.view(1, -1, 1, 1)) / std.view(1, -1, 1, 1)
        loss = step(state, images.to(device), labels.to(device), weight, config)
        if not isfinite(loss):
            # Scenes that are held in memory know neither their place in the file nor its resolution.
            places = [(dataset.opened[k], box) for k, box in sampler.boxes(state.step)]
            raise no_number(state.step, places, images, mean, std)
        state.recent.append(loss)
        if callback is not None:
            callback({"step": state.step, "loss": loss, "learning_rate": learning_rate(state.step - 1, config)})
        if config.validation and (state.step % config.validate_every == 0 or state.step == config.steps):
            validate(state, dataset, context)
            progress.validated()
            if callback is not None:
                at, all_classes, *each = state.validations[-1]
                iou = dict(zip(config.classes, each, strict=True))
                callback({"step": int(at), "mean_iou": all_classes, "iou": iou})
        last = state.step == config.steps or stopped(state.validations, config)
        if state.step % LOG_EVERY == 0 or last:
            loss, state.recent = sum(state.recent) / len(state.recent), []
            # The row belongs to the step that was just taken.
            state.log.append([state.step, learning_rate(state.step - 1, config), loss])
            progress.stepped(loss)
        if state.step % config.checkpoint == 0 or last:
            state.save(folder, config)
            write_log(state, config, folder)


def step(state: State, images: Tensor, labels: Tensor, weight: Tensor | None, config: TrainConfig) -> float:
    """Take one step on a normalised batch (B, C, H, W) with classes (B, H, W) and return its loss.

    If the loss or the gradient is not finite, nothing changes, and the returned loss is not finite.
    """
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(state.step, config)
    with torch.random.fork_rng(devices=[]), torch.autocast(images.device.type, state.half, enabled=bool(state.half)):
        torch.manual_seed(config.seed * 1_000_003 + state.step)  # the seed of dropout
        logits = state.module(images.contiguous(memory_format=torch.channels_last))
    # Losses sum over many pixels, for which half precision has too few digits.
    loss = total_loss(config.losses, logits.float(), labels, weight)
    value = float(loss.detach())
    if not isfinite(value):
        return value
    state.optimizer.zero_grad(set_to_none=True)
    state.scaler.scale(loss).backward()
    # The limit on the norm is meant for gradients as they are, not for scaled ones.
    state.scaler.unscale_(state.optimizer)
    norm = float(torch.nn.utils.clip_grad_norm_(state.module.parameters(), config.clip))
    if not isfinite(norm) and not state.scaler.is_enabled():  # an enabled scaler leaves out such a step itself
        return norm
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.step += 1
    state.update_average(config.ema)
    return value


def validate(state: State, dataset: Dataset, context: int | None) -> None:
    """Score the averaged weights, as they would be stored, and keep these weights if they are the best so far."""
    confusion = score(snapshot(state.average, dataset, context), dataset.validated, dataset.config.device)
    state.validations.append([state.step, confusion.mean_iou, *confusion.iou])
    if best(state.validations) == len(state.validations) - 1:
        # The average goes on changing in place, so what is kept of it is a copy.
        state.best = {name: tensor.detach().cpu().clone() for name, tensor in state.average.items()}


def finished(state: State, dataset: Dataset) -> Model:
    """Return the model with its card: the best validated weights, or the averaged weights after the last step."""
    model = snapshot(state.best or state.average, dataset, None)
    card = model.card.model_copy(update={"halo": halo(model.module, dataset.bands), "training": record(state, dataset)})
    return Model(card, model.module, model.name)


def halo(module: nn.Module, bands: int) -> int | None:
    """Return the context that a network needs on every side (pixels); None if no context is enough."""
    found = probe_once(module.eval(), bands, int(getattr(module, "stride", 1))).halo
    return max(found) if found else None
