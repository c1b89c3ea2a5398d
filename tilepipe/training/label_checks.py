"""This module checks labels before the first step: every class has pixels, and polygons lie on their images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import InputError, TilepipeError
from tilepipe.sources.base import Source
from tilepipe.sources.geo_labels import Layer, Polygons
from tilepipe.sources.geojson import Features
from tilepipe.sources.geojson_place import placed, points_of
from tilepipe.sources.georeference import where
from tilepipe.training.config import TrainConfig
from tilepipe.training.raster_labels import Raster
from tilepipe.training.scenes import IGNORE, Scene
from tilepipe.training.validation import blocks, truth


def check_polygons(scenes: Sequence[Scene]) -> list[str]:
    """Return sentences about polygons that lie beside their images.

    One file may label many images. Raises `InputError` if a file's polygons lie on none of the images that it labels.
    """
    said: list[str] = []
    by_file: dict[str, dict[str, tuple[Scene, Polygons]]] = {}
    for scene in scenes:
        if isinstance(scene.labels, Polygons):
            # One file may label many images, and it is wrong only if its polygons lie on none of them.
            by_file.setdefault(scene.labels.file.path, {})[scene.name] = scene, scene.labels
    for pairs in by_file.values():
        scene, labels = next(iter(pairs.values()))
        if labels.file.skipped:
            said.append(labels.file.skipped)
        if not labels.file.polygons:
            said.append(f"{labels.file.path} holds no polygon; every pixel is of class 0")
            continue
        on = [int(touching(s, p).sum()) for s, p in pairs.values()]
        if not any(on):
            raise _elsewhere(scene, labels)
        # A file that labels many images has polygons off each of them, so only for one image this is worth saying.
        if len(pairs) == 1 and on[0] < len(labels.file.polygons):
            off = len(labels.file.polygons) - on[0]
            said.append(
                f"{off} of {len(labels.file.polygons)} polygons of {labels.file.path} lie off {scene.name}: "
                f"{_both(scene, labels)}"
            )
    return said


def check_positions(scenes: Sequence[Scene]) -> list[str]:
    """Return sentences about rasters without a position whose image (or label) has one: they are compared by pixel."""
    silent: dict[str, str] = {}
    for scene in scenes:
        if isinstance(scene.labels, Raster):
            labels, image = scene.labels.source, scene.whole
            if not _has_place(labels) and _has_place(image):
                silent[labels.name] = "the image's"
            if not _has_place(image) and _has_place(labels):
                silent[image.name] = "the label raster's"
    name = next(iter(silent), "")
    more = f" (so do {len(silent) - 1} more)" if len(silent) > 1 else ""
    return [f"{name} says no position; its pixels are taken as {silent[name]}{more}"] if silent else []


def _has_place(source: Source) -> bool:
    return source.georeference is not None and source.georeference.transform is not None


def touching(scene: Scene, labels: Polygons) -> NDArray[np.bool_]:
    """Return for each polygon whether its bounds meet the image."""
    layers = [labels.objects, *([labels.area] if labels.area else [])]
    # Bounds are enough here: the question is whether the polygons lie elsewhere altogether.
    y0, x0, y1, x1 = np.concatenate([layer.extents for layer in layers]).T
    height, width = scene.whole.shape[1:]
    return np.asarray((y1 > 0) & (x1 > 0) & (y0 < height) & (x0 < width))


def _elsewhere(scene: Scene, labels: Polygons) -> InputError:
    swapped = ""
    if _lies_on(scene, _swapped(labels.file)):
        swapped = " With x and y exchanged they would lie on it: GeoJSON has x, or the longitude, first."
    elif scene.whole.georeference is None and (labels.objects.extents[:, 2] <= 0).all():
        swapped = " Their rows are counted upwards from 0; rows count downwards."
    return InputError(
        f"the polygons of {labels.file.path} do not lie on {scene.name}: {_both(scene, labels)}.{swapped} "
        "Check the CRS of both, or give the labels of this image"
    )


def _both(scene: Scene, labels: Polygons) -> str:
    """Return the extents of the image and of the polygons as text, in the coordinates of the image."""
    points = np.concatenate([points_of(shape) for shape, _ in labels.objects.shapes + _area(labels).shapes])
    (x0, y0), (x1, y1) = points.min(0), points.max(0)
    height, width = scene.whole.shape[1:]
    image = "" if labels.file.pixels else where(scene.whole.georeference, height, width)
    image = image or f"x 0 to {width}, y 0 to {height} (pixels)"
    return f"they cover x {x0:.9g} to {x1:.9g}, y {y0:.9g} to {y1:.9g}, the image {image}"


def _area(labels: Polygons) -> Layer:
    return labels.area or Layer.of([], labels.objects.to_map)


def _swapped(file: Features) -> Features:
    """Return the polygons with x and y exchanged."""

    def turned(value: object) -> object:
        if isinstance(value, list) and value and isinstance(value[0], list):
            return [turned(part) for part in value]
        return value[::-1] if isinstance(value, list) else value

    return replace(
        file,
        polygons=tuple(
            replace(feature, geometry={**feature.geometry, "coordinates": turned(feature.geometry["coordinates"])})
            for feature in file.polygons
        ),
    )


def _lies_on(scene: Scene, file: Features) -> bool:
    labels = scene.labels
    assert isinstance(labels, Polygons)
    try:
        shapes = [(geometry, 1) for geometry in placed(file, scene.whole)]
    except TilepipeError:  # with x and y exchanged the coordinates do not exist
        return False
    return bool(touching(scene, replace(labels, objects=Layer.of(shapes, labels.objects.to_map), area=None)).any())


def check_classes(counts: NDArray[np.int64], config: TrainConfig, whole: bool) -> list[str]:
    """Return sentences about classes without a labelled pixel to train on; `counts` is per class.

    Raises `InputError` if a class has no pixel and `absent` does not name it; the message says so if images were not
    read `whole`.
    """
    table = table_of(counts, config.classes)
    empty = [name for name, count in zip(config.classes, counts, strict=True) if not count]
    empty = [name for name in empty if name not in config.absent]
    if not empty:
        return []
    sentence = f"class {empty[0]!r} has no labelled pixel in the images to train on ({table})"
    # Of a large image only some cells are counted, so a rare class may have been missed.
    if not whole:
        return [f"{sentence}, as far as they were looked at"]
    raise InputError(
        f"{sentence}{_reason(config, config.classes.index(empty[0]))}. Check the labels, leave the class out of "
        f"classes, or keep it without examples: absent: [{empty[0]}]"
    )


def _reason(config: TrainConfig, label: int) -> str:
    """Return the reason why a class may have no pixels, if the settings show it."""
    values = [value for value, k in (config.values or {label: label}).items() if k == label]
    ignored = [str(value) for value in values if value in config.ignore]
    if ignored:
        return f": its value {', '.join(ignored)} is under ignore"
    if config.values is not None and not values and config.other != label:
        return ": no value under values is of this class"
    return ""


def count_kept_apart(scenes: Sequence[Scene], config: TrainConfig, purpose: str) -> NDArray[np.int64]:
    """Return the number of labelled pixels of each class of images to validate or score on, each read once.

    Raises `InputError` if the images hold no labelled pixels.
    """
    # A mistake in these labels would be found only when they are scored, which is after hours of training.
    counts = np.zeros(len(config.classes), np.int64)
    for scene in scenes:
        for box in blocks(scene.full):
            labels = truth(scene, box)
            counts += np.bincount(labels[labels != IGNORE], minlength=len(counts))
    if not counts.any():
        raise InputError(f"{scenes[0].name} and the other images to {purpose} on hold no labelled pixel")
    return counts


def without_truth(counts: NDArray[np.int64], classes: Sequence[str], purpose: str) -> list[str]:
    """Return a sentence about the classes that images to validate or score on have no pixel of."""
    empty = [name for name, count in zip(classes, counts, strict=True) if not count]
    said = f"to {purpose} on there are no labelled pixels of {', '.join(empty)}, so they have no IoU unless predicted"
    return [said] if empty else []


def table_of(counts: NDArray[np.int64], classes: Sequence[str]) -> str:
    """Return the number of pixels of each class as text."""
    total = max(int(counts.sum()), 1)
    return ", ".join(f"{name} {int(n):,} ({n / total:.1%})" for name, n in zip(classes, counts, strict=True))
