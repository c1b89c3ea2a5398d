"""This module scores a model in training: agreement, outlines, fragments and checkerboard on scenes kept apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from time import process_time

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tilepipe.arrays import Labels
from tilepipe.box import Box
from tilepipe.evaluation.metrics.boundary import boundary_of
from tilepipe.evaluation.metrics.checkerboard import Spectrum, one_hot, spectrum_of
from tilepipe.evaluation.metrics.components import components_of
from tilepipe.evaluation.metrics.confusion import Confusion, confusion_of, mean_present
from tilepipe.evaluation.metrics.pair import Pair, pair
from tilepipe.models.card import ModelCard
from tilepipe.models.model import Model
from tilepipe.models.probe.upsampling_lint import lint
from tilepipe.text import JSON
from tilepipe.training.scenes import IGNORE, Scene
from tilepipe.training.validation import blocks, hull, spread, training_pixels, truth

PATCH, PATCHES = 256, 12
"""Side of the patches whose spectrum is taken (pixels of the training grid), and their largest number per scene."""
SCORED_BLOCK = 1024
"""Side of the area that is predicted at once, without its halo (pixels of the training grid)."""
SIDE, ROUNDS = 512, 9
"""Side of the tile that is timed (pixels), and number of repetitions."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Answer:
    """The output of a model on one scene."""

    labels: NDArray[np.uint8]
    """Labels of the scene's region at full resolution, (height, width)."""
    probabilities: Floats
    """Probabilities of the same area on the training grid, (classes, rows, columns)."""
    area: Box
    """Box of `probabilities` on the training grid."""


def answer(model: Model, scene: Scene) -> Answer:
    """Return labels and probabilities of a scene's region; each tile has its whole halo as real context."""
    rows, columns = training_pixels(scene, scene.full)
    area = hull(rows, columns)
    found = np.empty((len(model.card.classes), *area.shape), np.float32)
    winners = np.empty(area.shape, np.uint8)
    for box in blocks(area, SCORED_BLOCK):
        tile = tile_around(box, scene.source.shape[1:], model.card)
        with torch.inference_mode():
            logits = model.module(model.normalise(torch.from_numpy(scene.source.read(tile)[None])))[0]
        y, x = box.slices_in(tile)
        found[(slice(None), *box.slices_in(area))] = logits.softmax(0)[:, y, x].numpy()
        # Labels come from the logits, as in a run: rounded probabilities could tie.
        winners[box.slices_in(area)] = logits.argmax(0)[y, x].numpy()
    return Answer(spread(winners, rows, columns), found, area)


def tile_around(box: Box, shape: tuple[int, int], card: ModelCard) -> Box:
    """Return `box` with the halo around it, on multiples of the stride, cut at the edges of the padded image."""
    s, halo = card.stride, card.halo or 0
    aligned = Box(box.y0 // s * s, box.x0 // s * s, -(-box.y1 // s) * s, -(-box.x1 // s) * s)
    inside = aligned.pad(halo) & Box(0, 0, -(-shape[0] // s) * s, -(-shape[1] // s) * s)
    assert inside is not None, "the box lies in the image"
    return inside


def figures_of_model(model: Model, scenes: Sequence[Scene], width: float) -> JSON:
    """Return the model's figures over all scenes together; foreground is every class but the first.

    Labels are compared at full resolution, with outlines `width` pixels wide. Checkerboards are measured on the
    probabilities of the training grid, because the network up-samples there. Memory grows with the scenes' size.
    """
    answers = [answer(model, scene) for scene in scenes]
    truths = [truth(scene, scene.full) for scene in scenes]
    maps = sheet([a.labels for a in answers], truths, len(model.card.classes))
    scores, fragments = agreement(confusion_of(maps)), components_of(maps)
    strides = [2**k for k in range(1, model.card.stride.bit_length())]
    return {
        **scores,
        "boundary_iou": mean_present(boundary_of(maps, width).iou[1:]),
        "component_ratio": fragments.ratio,
        "split": fragments.split,
        "merge": fragments.merge,
        **lines([(a.probabilities[1:], a.area) for a in answers], strides),
    }


def agreement(confusion: Confusion) -> dict[str, float]:
    """Return mean IoU over all classes and over the foreground."""
    return {"mean_iou": confusion.mean_iou, "iou": mean_present(confusion.iou[1:])}


def sheet(labels: Sequence[Labels], truths: Sequence[NDArray[np.int64]], classes: int) -> Pair:
    """Return the maps of several scenes as one map, below each other, with unscored rows between them."""
    wide = max(map_.shape[1] for map_ in labels)

    def pasted(maps: Sequence[NDArray[np.integer]]) -> NDArray[np.int64]:
        # The row without labels keeps components and outlines of two scenes apart.
        padded = [np.pad(m.astype(np.int64), ((0, 1), (0, wide - m.shape[1])), constant_values=IGNORE) for m in maps]
        return np.concatenate(padded)

    return pair(pasted(labels), pasted(truths), classes, ignore=IGNORE, nodata=IGNORE)


def lines(maps: Sequence[tuple[NDArray[np.floating], Box]], strides: Sequence[int]) -> JSON:
    """Return the checkerboard of (channels, height, width) maps with their boxes: one value per stride, and the
    largest."""
    found: dict[int, Spectrum] = {}
    for k, patch in patches([area for _, area in maps], max(strides)):
        values, area = maps[k]
        part = values[(slice(None), *patch.slices_in(area))]
        for s in strides:
            if s == 2 or patch.height >= 16 * s:  # for stride 2, a patch that is too small raises an error
                found[s] = found[s] + spectrum_of(part, s) if s in found else spectrum_of(part, s)
    boards = [spectrum.checkerboard() for spectrum in found.values()]
    return {
        "line_db": max(b.line_db for b in boards),
        "peak_db": max(b.peak_db for b in boards),
        "strides": {str(b.stride): {"line_db": b.line_db, "peak_db": b.peak_db, "phase": b.phase} for b in boards},
    }


def patches(areas: Sequence[Box], stride: int) -> Iterator[tuple[int, Box]]:
    """Yield (index of the area, patch). Patches have one size, overlap by half and start at multiples of `stride`."""
    # A phase of the pattern is counted from pixel 0 of the scene, so patches begin on multiples of the stride.
    inner = [Box(-(-a.y0 // stride) * stride, -(-a.x0 // stride) * stride, a.y1, a.x1) for a in areas]
    side = min(PATCH, *(min(area.shape) for area in inner))
    step = max(side // 2 // stride, 1) * stride
    for k, area in enumerate(inner):
        rows, columns = range(area.y0, area.y1 - side + 1, step), range(area.x0, area.x1 - side + 1, step)
        places = list(product(rows, columns))
        for y, x in places[:: -(-len(places) // PATCHES)]:
            yield k, Box(y, x, y + side, x + side)


def truth_lines(scenes: Sequence[Scene], classes: int, stride: int) -> JSON:
    """Return the checkerboard of the true labels on the training grid."""
    maps = []
    for scene in scenes:
        label = scene.label(Box.of_shape(*scene.region.shape))
        maps.append((one_hot(label, classes)[1:], scene.region))
    return lines(maps, [2**k for k in range(1, stride.bit_length())])


def unevenness(module: nn.Module) -> tuple[float, float]:
    """Return the largest overlap and imbalance of the up-sampling layers' weights; 1 and 0 if none is found."""
    found = lint(module)
    return max((f.overlap for f in found), default=1.0), max((f.imbalance for f in found), default=0.0)


def speeds(
    modules: Mapping[str, nn.Module], bands: int, *, rounds: int = ROUNDS, clock: Callable[[], float] = process_time
) -> dict[str, float]:
    """Return the processor time of each network's forward pass (seconds per million pixels), the least of `rounds`.

    The networks take turns on one tile of SIDE x SIDE pixels, so that changes in the machine's speed affect all of them
    alike.
    """
    tile, best = torch.rand(1, bands, SIDE, SIDE), dict.fromkeys(modules, float("inf"))
    with torch.inference_mode():
        for _ in range(rounds):
            for name, module in modules.items():
                begin = clock()
                module.eval()(tile)
                # Other programs only add time, so the least is nearest to what the network takes.
                best[name] = min(best[name], clock() - begin)
    return {name: seconds / (SIDE * SIDE / 1e6) for name, seconds in best.items()}
