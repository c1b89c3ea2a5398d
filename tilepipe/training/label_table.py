"""This module makes the table of labels that is shown before the first step, and warns if there are few labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilepipe.sources.geo_labels import Polygons
from tilepipe.text import table_lines
from tilepipe.training.config import TrainConfig
from tilepipe.training.label_checks import touching
from tilepipe.training.scenes import Scene

FEW_CROPS = 20
"""Number of crops that the labelled pixels should fill at least."""
FEW_POLYGONS = 20
"""Number of polygons of a class that should be there at least."""
RARE = 0.01
"""Share of the labelled pixels below which a class is rare."""


@dataclass(frozen=True)
class Part:
    """The labels of the images for one purpose."""

    purpose: str
    """Purpose of the images: 'train', 'validate' or 'score'."""
    scenes: Sequence[Scene]
    counts: NDArray[np.int64]
    """Number of labelled pixels of each class."""
    examined: int
    """Number of pixels that were examined, labelled or not."""
    whole: bool = True
    """Whether all pixels of the images were examined."""


def label_table(parts: Sequence[Part], config: TrainConfig) -> list[str]:
    """Return the lines of the table: labelled pixels of each class, and their share, for each purpose."""
    rows = [["class", *(f"to {part.purpose} on" for part in parts)]]
    for k, name in enumerate(config.classes):
        shares = [part.counts[k] / max(int(part.counts.sum()), 1) for part in parts]
        rows.append([name, *(f"{int(p.counts[k]):,} px {s:6.1%}" for p, s in zip(parts, shares, strict=True))])
    rows.append(["labelled", *(_share(part) for part in parts)])
    rows.append(["pixels of", *(_size(part, config) for part in parts)])
    return table_lines(rows, "   ")


def _share(part: Part) -> str:
    images = len({(scene.name, scene.picked) for scene in part.scenes})
    share = int(part.counts.sum()) / max(part.examined, 1)
    about = "" if part.whole else "about "
    return f"{about}{share:.1%} of {images} image{'s' if images > 1 else ''}"


def _size(part: Part, config: TrainConfig) -> str:
    """Return the size of the pixels that were counted: training pixels, or those of the images if they are scored."""
    if part.purpose == "train" and config.resolution is not None:
        return f"{config.resolution:g} {config.unit}"
    sizes = {str(scene.whole.resolution) for scene in part.scenes}
    return sizes.pop().removesuffix("/px") if len(sizes) == 1 and sizes != {"None"} else "the images"


def about_crops(train: Part, config: TrainConfig, pixel: float | None) -> list[str]:
    """Return sentences about the size of a crop, and about where polygons lie; `pixel` is the pixel size in the
    configuration's unit, if it is known."""
    side, labelled = config.crop, int(train.counts.sum())
    length = f", {side * pixel:.4g} x {side * pixel:.4g} {config.unit}" if pixel else ", of unknown size on the ground"
    seen = config.steps * config.batch * side**2 / max(labelled, 1)
    said = [
        f"a crop is {side} x {side} pixels{length}; {config.steps} steps of {config.batch} crops read each labelled "
        f"pixel about {f'{seen:,.0f}' if seen >= 10 else f'{seen:.2g}'} times"
    ]
    found = [(scene, scene.labels) for scene in train.scenes if isinstance(scene.labels, Polygons)]
    if found:
        on, there = _polygons(found)
        said.append(f"{on:,} of {there:,} polygons lie on the images")
    small = [scene for scene in train.scenes if min(scene.region.shape) < side]
    if small:
        said.append(
            f"{small[0].name} has {small[0].region.shape[0]} x {small[0].region.shape[1]} pixels to train on and is "
            "smaller than a crop, so it is mirrored at its edges; a smaller crop may be better"
        )
    return said


def _polygons(found: Sequence[tuple[Scene, Polygons]]) -> tuple[int, int]:
    """Return the number of polygons that lie on an image, and of all polygons; one file may label many images."""
    files = {labels.file.path: len(labels.file.polygons) for _, labels in found}
    on = {labels.file.path: np.zeros(len(labels.file.polygons), bool) for _, labels in found}
    for scene, labels in found:
        # The area's polygons come after the others, so places are the same for all images of a file.
        on[labels.file.path] |= touching(scene, labels)
    return int(sum(some.sum() for some in on.values())), sum(files.values())


def few_labels(parts: Sequence[Part], config: TrainConfig) -> Iterator[str]:
    """Yield a warning for each reason why a training may learn little or wrongly, or its scores may say little."""
    train, crop = parts[0], config.crop**2
    labelled = int(train.counts.sum())
    if labelled < FEW_CROPS * crop:
        yield (
            f"few labels: the {labelled:,} labelled pixels fill {labelled / crop:.3g} crops of {config.crop} x "
            f"{config.crop} pixels, and below {FEW_CROPS} a network soon knows them by heart. Label more, or take a "
            "smaller crop"
        )
    files = {scene.labels.file.path: scene.labels for scene in train.scenes if isinstance(scene.labels, Polygons)}
    for path, labels in files.items():
        if labels.unnamed:
            yield (
                f"{labels.unnamed} polygon{'s' if labels.unnamed > 1 else ''} of {path} have no class and others have, "
                f"so they count as {config.classes[1]}; classify or remove them if they are something else"
            )
    for k, name in enumerate(config.classes):
        count = int(train.counts[k])
        if count and (count < crop or count < RARE * labelled):
            yield (
                f"few labels: {name} has {count:,} labelled pixels ({count / labelled:.2%}), {count / crop:.3g} crops. "
                f"Label more of it; balance (now {config.balance:g}) draws rare classes more often"
            )
        polygons = _of_class(train.scenes, k)
        if k and polygons is not None and 0 < polygons < FEW_POLYGONS:
            yield (
                f"few labels: {polygons} polygon{'s' if polygons > 1 else ''} of {name} to train on; label "
                f"{FEW_POLYGONS} or more, so that it is seen how they differ"
            )
    if len(parts) == 1:
        yield (
            "no image is kept apart, so nothing will say how good the model is; name images, or rows of one, under "
            "score"
        )
    for part in parts[1:]:
        for scene in part.scenes:
            for other in train.scenes:
                shared = scene.full & other.full
                if part.purpose == "score" and shared and scene.same_image(other):
                    yield (
                        f"score and train share {shared.area:,} pixels of {scene.name}{scene.picked} (rows {shared.y0} "
                        f"to {shared.y1}), so the scores will be too good; give score other rows or images"
                    )


def _of_class(scenes: Sequence[Scene], label: int) -> int | None:
    """Return the number of polygons of a class on the parts of images that are trained on; None without polygons."""
    found = [(scene, scene.labels.objects) for scene in scenes if isinstance(scene.labels, Polygons)]
    if len(found) < len(scenes):
        return None
    count = 0
    for scene, layer in found:
        y0, x0, y1, x1 = layer.extents.T
        box, values = scene.full, np.array([value for _, value in layer.shapes], int)
        count += int(((values == label) & (y1 > box.y0) & (x1 > box.x0) & (y0 < box.y1) & (x0 < box.x1)).sum())
    return count
