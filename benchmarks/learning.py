"""What the networks have learned: IoU on pixels not trained on, several seeds, beside trivial and classical answers.

    python benchmarks/learning.py buildings nuclei forest --runs runs --seeds 0 1 2

reads pipelines/train_NAME.yaml and prints a Markdown table for each. Models are the directories NAME-SEED.model in the
folder `--runs`; those that are missing are trained first. Without numbers behind `--seeds` there are no networks.
Every answer is computed by the same tiled pipeline.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import tilepipe as tp
from tilepipe.evaluation.metrics.confusion import Confusion
from tilepipe.models.classical import Classical
from tilepipe.models.classical_fit import METHODS, fit
from tilepipe.training.config import TrainConfig
from tilepipe.training.fit_classical import PATCH, PATCHES, as_model
from tilepipe.training.scenes import IGNORE, Scene, open_scenes
from tilepipe.training.threshold_baseline import best_threshold
from tilepipe.training.validation import compared, hull, spread, training_pixels, truth

PIPELINES = Path(__file__).parents[1] / "pipelines"
CLUSTERS = {"threshold": (2, 3, 4, 5), "watershed": (2, 3, 4, 5)}
MORE_CLUSTERS = (2, 3, 4, 8, 16)
Sample = tuple[NDArray[np.generic], NDArray[np.int64]]


def trained(name: str, runs: Path, seeds: Sequence[int]) -> Iterator[tp.Model]:
    """Yield the model of each seed; one that is missing is trained."""
    for seed in seeds:
        folder = runs / f"{name}-{seed}.model"
        if not folder.exists():
            config = TrainConfig.load(PIPELINES / f"train_{name}.yaml")
            tp.fit(config.model_copy(update={"seed": seed, "output": str(folder)}))
        yield tp.load_model(folder)


def score(model: tp.Model, scenes: Sequence[Scene]) -> Confusion:
    """Return the confusion on full-resolution pixels of the scored windows; each image goes through tiles."""
    total = Confusion.zero(len(model.card.classes))
    for scene in scenes:
        rows, columns = training_pixels(scene, scene.full)
        part = hull(rows, columns)
        labels = tp.predict(scene.source, model, part, resolution="model")
        total += compared(spread(labels, rows, columns), truth(scene, scene.full), len(model.card.classes))
    return total


def commonest(scenes: Sequence[Scene], classes: int) -> Confusion:
    """Return the confusion of the commonest class of the scored pixels."""
    truths = [truth(scene, scene.full) for scene in scenes]
    right = [compared(np.maximum(true, 0).astype(np.uint8), true, classes) for true in truths]
    return sum(right, Confusion.zero(classes)).majority()


def sample(scenes: Sequence[Scene]) -> Sample:
    """Return (windows, bands, side, side) pixels and (windows, side, side) classes, spread over the training scenes."""
    places = [(scene, box) for scene in scenes for box in squares(scene)]
    chosen = places[:: -(-len(places) // (2 * PATCHES))]
    pixels = np.stack([scene.image(box) for scene, box in chosen])
    return pixels, np.stack([scene.label(box) for scene, box in chosen])


def squares(scene: Scene) -> list[tp.Box]:
    """Return the squares of a scene's window that hold a label."""
    height, width = scene.region.shape
    ys, xs = range(0, height - PATCH + 1, PATCH), range(0, width - PATCH + 1, PATCH)
    boxes = [tp.Box(y, x, y + PATCH, x + PATCH) for y in ys for x in xs]
    return [box for box in boxes if (scene.label(box) != IGNORE).any()]


def classical(method: str, taken: Sample, classes: Sequence[str]) -> tuple[tp.Model, int]:
    """Return the method with the number of clusters that is best on the training windows, and that number."""
    pixels, labels = taken
    tried = []
    for clusters in CLUSTERS.get(method, MORE_CLUSTERS):
        if clusters >= len(classes):
            found = fit(method, pixels, clusters, labels, len(classes))
            tried.append((on_sample(found, taken).mean_iou, clusters, found))
    _, clusters, best = max(tried, key=lambda one: one[:2])
    return as_model(best, tuple(classes), pixels.shape[1]), clusters


def on_sample(found: Classical, taken: Sample) -> Confusion:
    """Return the confusion on the training windows."""
    total = Confusion.zero(found.classes)
    for pixels, labels in zip(*taken, strict=True):
        total += compared(found.scores(pixels).argmax(0).astype(np.uint8), labels, found.classes)
    return total


def row(name: str, found: Sequence[Confusion]) -> str:
    """Return a line of the table: mean, and the range where there are several."""
    columns = np.array([(*one.iou, one.mean_iou, one.accuracy) for one in found]).T
    cells = [f"{c.mean():.3f}" + (f" ({c.min():.3f} to {c.max():.3f})" if len(c) > 1 else "") for c in columns]
    return f"| {name} | {' | '.join(cells)} |"


def table(name: str, runs: Path, seeds: Sequence[int]) -> Iterator[str]:
    """Yield the lines of one set's table as they are measured."""
    config = TrainConfig.load(PIPELINES / f"train_{name}.yaml")
    scenes, scored = open_scenes(config.train, config), open_scenes(config.score, config)
    yield f"| {name} | {' | '.join(config.classes)} | mean IoU | accuracy |"
    yield "|---" * (len(config.classes) + 3) + "|"
    if seeds:
        yield row(f"network, {len(seeds)} seeds", [score(model, scored) for model in trained(name, runs, seeds)])
    yield row("commonest class", [commonest(scored, len(config.classes))])
    if len(config.classes) == 2:
        found, rule = best_threshold(scenes, scored)
        yield row(f"best threshold: {rule}", [found])
    taken = sample(scenes)
    for method in METHODS:
        model, clusters = classical(method, taken, config.classes)
        yield row(f"{method}, {clusters} clusters", [score(model, scored)])


def main() -> None:
    """Read the command line and print the tables."""
    words = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    words.add_argument("names", nargs="+", help="buildings, nuclei, forest, landcover")
    words.add_argument("--runs", type=Path, default=Path("runs"))
    words.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    asked = words.parse_args()
    for name in asked.names:
        for line in table(name, asked.runs, asked.seeds):
            print(line, flush=True)
        print()


if __name__ == "__main__":
    main()
