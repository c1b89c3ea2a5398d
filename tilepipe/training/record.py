"""This module makes the part of a model's card that is about its training and its scores."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from math import isnan
from pathlib import Path

import torch

from tilepipe.evaluation.metrics.confusion import Confusion
from tilepipe.models.model import Model
from tilepipe.products.label_map import background_of
from tilepipe.text import JSON
from tilepipe.training.config import TrainConfig
from tilepipe.training.dataset import Dataset
from tilepipe.training.scenes import Scene
from tilepipe.training.state import State
from tilepipe.training.threshold_baseline import best_threshold
from tilepipe.training.validation import best, judge

FILES = {"train", "validation", "score", "output", "start", "encoder_weights"}
"""Settings that name files; the card names the content of the files instead."""


def record(state: State, dataset: Dataset) -> JSON:
    """Return the part of the card that is about the training."""
    config, counts = dataset.config, dataset.found.counts.sum(0).tolist()
    validation: JSON = {}
    if state.validations:
        chosen = state.validations[best(state.validations)]
        iou = {n: round(value, 4) for n, value in zip(config.classes, chosen[2:], strict=True) if not isnan(value)}
        validation = {
            "images": [place(scene) for scene in dataset.validated],
            "best_step": int(chosen[0]),
            "mean_iou": round(chosen[1], 4),
            "iou": iou,
            "stopped_at": state.step,
        }
    return {
        # A model is given to others, so the card has the names of files without their folders.
        "images": [f"{Path(scene.name).name}{scene.picked}" for scene in dataset.opened],
        "pixels": dict(zip(config.classes, counts, strict=True)),
        **state.origin,
        "configuration": configured(config),
        "final_loss": round(state.log[-1][2], 4),
        **({"validation": validation} if validation else {}),
        "software": {"tilepipe": version("tilepipe"), "torch": torch.__version__},
    }


def place(scene: Scene) -> str:
    """Return the name of a scene's file, the image picked from it, and the scene's part of it in full-resolution
    pixels."""
    return f"{Path(scene.name).name}{scene.picked} {scene.full.to_list()}"


def configured(config: TrainConfig) -> JSON:
    """Return the settings that differ from the defaults, except names of files."""
    return config.model_dump(mode="json", exclude_defaults=True, exclude=FILES)


def judged(model: Model, scenes: Sequence[Scene], scored: Sequence[Scene], device: str = "cpu") -> JSON:
    """Return the model's scores, and the scores of the majority class and of the best threshold found on `scenes`.

    The model's scores hold the F1 of its connected pixels as objects, which match above an IoU of one half.
    """
    if not scored:
        return {}
    confusion, objects = judge(model, scored, device)
    answers = {"model": confusion, "majority": confusion.majority()}
    result: JSON = {"scored_images": [place(scene) for scene in scored]}
    # One threshold cuts into two classes only.
    if len(model.card.classes) == 2:
        answers["threshold"], result["threshold_rule"] = best_threshold(scenes, scored)
    result["scores"] = {name: scores_of(found, model.card.classes) for name, found in answers.items()}
    background = background_of(model.card.classes)
    result["scores"]["model"]["object_f1"] = {
        name: round(found.f1, 4)
        for k, (name, found) in enumerate(zip(model.card.classes, objects, strict=True))
        # The background is one wide region; whether it matches says nothing about objects.
        if k != background and not isnan(found.f1)
    }
    return result


def scores_of(confusion: Confusion, classes: Sequence[str]) -> JSON:
    """Return IoU per class, mean IoU and pixel accuracy, rounded to 4 digits."""
    iou = {name: round(value, 4) for name, value in zip(classes, confusion.iou, strict=True)}
    return {"iou": iou, "mean_iou": round(confusion.mean_iou, 4), "accuracy": round(confusion.accuracy, 4)}
