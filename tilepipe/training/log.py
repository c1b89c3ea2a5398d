"""This module writes the log of a training: a table, the same as JSON lines, and its curves as a picture."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path

from tilepipe.models.card import DEFAULT_COLORS
from tilepipe.storage import write_durably
from tilepipe.text import JSON
from tilepipe.training.config import TrainConfig
from tilepipe.training.curves import Line, Panel, missing, picture
from tilepipe.training.state import State
from tilepipe.training.validation import best

BLACK = "#000000"


def log_files(state: State, config: TrainConfig) -> dict[str, bytes]:
    """Return log.csv, log.jsonl and curves.png of the steps done so far, as bytes by file name.

    If matplotlib is not installed, there are no curves (`curves.missing`).
    """
    lines = "".join(json.dumps(row) + "\n" for row in rows(state, config))
    found = {"log.csv": _table(state, config).encode(), "log.jsonl": lines.encode()}
    return found if missing() else {**found, "curves.png": picture(panels(state, config), "step")}


def write_log(state: State, config: TrainConfig, folder: Path) -> None:
    """Write the log into a folder. Raises `StorageError`."""
    for name, content in log_files(state, config).items():
        write_durably(folder / name, content)


def rows(state: State, config: TrainConfig) -> Iterator[JSON]:
    """Yield the rows of the log and the validations, in order of steps; a figure that is not a number is None."""
    steps = sorted({int(row[0]) for row in (*state.log, *state.validations)})
    losses = {int(step): (rate, loss) for step, rate, loss in state.log}
    scores = {int(row[0]): row[1:] for row in state.validations}
    for step in steps:
        row: JSON = {"step": step}
        if step in losses:
            row |= {"learning_rate": losses[step][0], "loss": _number(losses[step][1])}
        if step in scores:
            mean, *classes = (_number(value) for value in scores[step])
            row |= {"mean_iou": mean, "iou": dict(zip(config.classes, classes, strict=True))}
        yield row


def panels(state: State, config: TrainConfig) -> list[Panel]:
    """Return the curves of loss and learning rate, and of the IoU if there are validations."""
    loss = Line("training loss", "#d55e00", [(step, value) for step, _, value in state.log])
    rate = Line("learning rate", "#0072b2", [(step, value) for step, value, _ in state.log])
    found = [Panel("loss", [loss]), Panel("learning rate", [rate])]
    if state.validations:
        marked = state.validations[best(state.validations)]
        mean = Line("mean IoU", BLACK, [(row[0], row[1]) for row in state.validations], mark=(marked[0], marked[1]))
        classes = [
            Line(name, color, [(row[0], row[2 + k]) for row in state.validations])
            for k, (name, color) in enumerate(zip(config.classes, _colors(config), strict=False))
        ]
        found.append(Panel("validation IoU", [*classes, mean], (0.0, 1.0)))
    return found


def _colors(config: TrainConfig) -> list[str]:
    known = config.colors or DEFAULT_COLORS
    return [known[k % len(known)] for k in range(len(config.classes))]


def _number(value: float) -> float | None:
    # JSON has no nan.
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _table(state: State, config: TrainConfig) -> str:
    file = io.StringIO()
    scores = ["mean_iou", *(f"iou {name}" for name in config.classes)] if config.validation else []
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["step", "learning_rate", "loss", *scores])
    for row in rows(state, config):
        cells = [row.get("learning_rate"), row.get("loss")]
        if scores:
            cells += [row.get("mean_iou"), *row.get("iou", dict.fromkeys(config.classes)).values()]
        writer.writerow([row["step"], *("" if cell is None else f"{cell:.6g}" for cell in cells)])
    return file.getvalue()
