"""This module says how a training has ended: its scores beside simple answers, and the command to type next."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from math import isnan
from pathlib import Path

from tilepipe.models.formats.directory import load_model
from tilepipe.text import JSON
from tilepipe.training.config import TrainConfig
from tilepipe.training.scenes import pairs

ANSWERS = {"majority": "the commonest class everywhere", "threshold": "the best threshold"}
"""Words for the simple answers that a model is compared with."""


def summary(output: Path, config: TrainConfig) -> Iterator[str]:
    """Yield the scores of a finished model in lines, and the command that uses it."""
    training = load_model(output).card.training
    scores: JSON = training.get("scores", {})
    images = training.get("scored_images", [])
    if scores:
        yield f"scores on {len(images)} image{'s' if len(images) > 1 else ''} kept apart ({', '.join(images[:3])}):"
        wide = max(map(len, (*config.classes, "mean")))
        own = scores["model"]
        for name, iou in own["iou"].items():
            objects = own.get("object_f1", {})  # models that were trained before have no such scores
            whole = f"  object F1 {_text(objects[name])}" if name in objects else ""
            yield f"  {name:<{wide}}  IoU {_text(iou)}  Dice {_text(2 * iou / (1 + iou))}{whole}"
        yield f"  {'mean':<{wide}}  IoU {_text(own['mean_iou'])}; {own['accuracy']:.1%} of the pixels are right"
        beside = [f"{words} {_text(scores[key]['mean_iou'])}" for key, words in ANSWERS.items() if key in scores]
        yield f"  mean IoU of simple answers: {', '.join(beside)}"
        best = max(scores[key]["mean_iou"] for key in ANSWERS if key in scores)
        if own["mean_iou"] <= best:
            yield "  so the network is no better than a simple answer: look at the labels (--preview), take more steps"
    elif found := training.get("validation"):
        yield (
            f"mean IoU {found['mean_iou']:.3f} on the images to validate on (best step {found['best_step']}); these "
            "images have chosen the weights, so name others under score"
        )
    else:
        yield "no scores: no image was kept apart; name images under score, and the next training says how good it is"
    image, _ = pairs((config.score or config.validation or config.train)[0], config)[0]
    # The command is typed in the working directory.
    shown = (os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path) for path in (image, output))
    yield f"next: tilepipe segment {' -m '.join(map(shlex.quote, shown))}"


def _text(value: float) -> str:
    return "-" if isnan(value) else f"{value:.3f}"  # a class that is in neither map has no score
