"""The usual tile settings of other tools against the automatic ones: cost, and labels that depend on the cut.

    python benchmarks/seams.py buildings landcover=runs/landcover-0.model nuclei:256 forest:256

reads the scored images of pipelines/train_NAME.yaml and prints a Markdown table for each model. `:256` is the tile of
the other tools, 512 by default. The truth of "flips" is one forward pass over the whole image, which must fit memory.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import tilepipe as tp
from tilepipe.evaluation.metrics.confusion import Confusion
from tilepipe.evaluation.metrics.seams import Flips, flips
from tilepipe.planning.certify import certificate_of
from tilepipe.planning.plan import Plan
from tilepipe.training.config import TrainConfig
from tilepipe.training.scenes import Scene, open_scenes
from tilepipe.training.validation import compared

PIPELINES = Path(__file__).parents[1] / "pipelines"


@dataclass(frozen=True)
class Found:
    """What one setting gives; sums of images equal all of them."""

    seen: int
    """Pixels that the model sees."""
    flips: Flips
    """Against one pass over the whole image."""
    moved: Flips
    """Against the same setting on a grid moved by half a core."""
    confusion: Confusion
    """Against the labels, where the model was not trained."""

    def __add__(self, other: Found) -> Found:
        return Found(
            self.seen + other.seen, self.flips + other.flips, self.moved + other.moved, self.confusion + other.confusion
        )


def settings(tile: int, stride: int) -> dict[str, dict[str, Any]]:
    """Return tile settings by name."""

    def share(percent: int) -> int:
        return tile * percent // 100 // stride * stride

    return {
        "auto": {},
        f"auto, tile {tile}": {"tile": tile},
        "no overlap": {"tile": tile, "overlap": 0, "window_shape": "crop"},
        "25 % constant (MONAI's default)": {"tile": tile, "overlap": share(25), "window_shape": "constant"},
        "25 % Gaussian": {"tile": tile, "overlap": share(25), "window_shape": "gaussian"},
        "50 % Gaussian (nnU-Net's default)": {"tile": tile, "overlap": share(50), "window_shape": "gaussian"},
        "50 % Hann": {"tile": tile, "overlap": share(50), "window_shape": "hann"},
    }


def measure(scene: Scene, pixels: NDArray[Any], whole: NDArray[Any], model: tp.Model, plan: Plan) -> Found:
    """Return what the tiles of a plan give for a scene, whose pixels and whole answer are given."""
    cut: dict[str, Any] = {
        "tile": plan.tiling.tile, "overlap": plan.tiling.overlap, "window_shape": plan.tiling.window,
    }  # fmt: skip
    labels = tp.predict(pixels, model, **cut)
    grid, edge = plan.grid, model.card.halo or 0
    half = [axis.step // 2 // axis.stride * axis.stride if axis.count > 1 else 0 for axis in (grid.y, grid.x)]
    again = tp.predict(np.ascontiguousarray(pixels[:, half[0] :, half[1] :]), model, **cut)
    y, x = (edge if by else 0 for by in half)  # the moved image's own edges are not compared
    moved = flips(labels[half[0] + y :, half[1] + x :], again[y:, x:])
    everything, classes = tp.Box.of_shape(*labels.shape), len(model.card.classes)
    confusion = compared(
        labels[scene.region.slices_in(everything)], scene.label(tp.Box.of_shape(*scene.region.shape)), classes
    )
    return Found(plan.tile_count * grid.y.tile * grid.x.tile, flips(labels, whole), moved, confusion)


def table(name: str, model: tp.Model, tile: int, only: str) -> Iterator[str]:
    """Yield the lines of one model's table as they are measured."""
    config = TrainConfig.load(PIPELINES / f"train_{name}.yaml")
    scenes = open_scenes(config.score, config)
    images = [scene.source.read(tp.Box.of_shape(*scene.source.shape[1:])) for scene in scenes]
    side = -(-max(max(image.shape) for image in images) // model.card.stride) * model.card.stride
    wholes = [tp.predict(image, model, tile=side) for image in images]
    sizes = sorted({f"{image.shape[1]} x {image.shape[2]}" for image in images})
    yield f"| {name}, {len(images)} x {', '.join(sizes)} px | tiles | mode | work | flips | moved grid | mean IoU |"
    yield "|---|---|---|---|---|---|---|"
    for setting, cut in settings(tile, model.card.stride).items():
        if not setting.startswith(only):
            continue
        plans = [tp.plan(image, model, **cut) for image in images]
        each = [measure(*one, model, plan) for *one, plan in zip(scenes, images, wholes, plans, strict=True)]
        total, first = sum(each[1:], each[0]), plans[0]
        work = total.seen / sum(image[0].size for image in images)
        tiles, mode = f"{first.tile_count} of {first.grid.y.tile}", certificate_of(first, model).mode
        cells = (tiles, mode, f"{work:.2f}", share(total.flips), share(total.moved))
        yield f"| {setting} | {' | '.join(cells)} | {total.confusion.mean_iou:.4f} |"


def share(found: Flips) -> str:
    """Return flips as text; 0 only where there are none."""
    return f"{found.share:.4%}" if found.different else "0"


def main() -> None:
    """Read the command line and print the tables."""
    words = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    words.add_argument("models", nargs="+", metavar="NAME[=MODEL][:TILE]")
    words.add_argument("--only", default="", help="rows that begin like this, for instance auto")
    asked = words.parse_args()
    for one in asked.models:
        what, _, tile = one.partition(":")
        name, _, folder = what.partition("=")
        for line in table(name, tp.load_model(folder or name), int(tile or 512), asked.only):
            print(line, flush=True)
        print()


if __name__ == "__main__":
    main()
