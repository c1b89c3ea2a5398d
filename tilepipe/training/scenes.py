"""This module defines a scene: an image of any size and its labels at the training resolution, both read by box.

Labels lie on the image's full-resolution pixels; at another resolution each pixel takes the label under its centre.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.arrays import Pixels
from tilepipe.box import Box
from tilepipe.errors import InputError, UsageError
from tilepipe.execution.filled_image import FilledImage
from tilepipe.planning.region import image_data
from tilepipe.sources.array import ArraySource
from tilepipe.sources.band_choice import Reader, choose_bands
from tilepipe.sources.bands import with_picked
from tilepipe.sources.base import Source
from tilepipe.sources.geo_labels import IGNORE as IGNORE  # noqa: PLC0414 - others take it from here
from tilepipe.sources.geo_labels import ClassRules, polygons
from tilepipe.sources.geo_vectors import is_vector, vector_files
from tilepipe.sources.geojson import OTHER_FORMATS
from tilepipe.sources.handles import content_sha256, stamp
from tilepipe.sources.open import CHOICE, open_source
from tilepipe.sources.resample import Resampled, at_resolution
from tilepipe.sources.sample import fill_value, sample_of
from tilepipe.text import JSON, missing
from tilepipe.training.config import TrainConfig
from tilepipe.training.config_parts import Scenes
from tilepipe.training.given import is_path
from tilepipe.training.part import Part
from tilepipe.training.raster_labels import raster

HELD_VALUES = 64 << 20
"""Largest number of values (pixels x bands at the training resolution) of an image that is held in memory."""
ReadLabels = Callable[[Box], NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class Scene:
    """One image with labels, confined to a region; boxes are relative to the region's corner."""

    name: str
    """Path of the image."""
    source: Source
    """The whole image at the training resolution."""
    region: Box
    """Box of `source` that is trained on or scored."""
    full: Box
    """The same box in full-resolution pixels."""
    labels: ReadLabels
    """Function that returns the classes of a box of full-resolution pixels inside the image: (height, width) int64, -1
    to ignore."""
    labels_identity: Callable[[], object] = dict
    """Function that returns what decides the labels, by content; JSON types only."""
    notes: tuple[str, ...] = ()
    """Sentences about what was chosen from a file that holds several images."""
    selected: Mapping[str, int | str] = field(default_factory=dict)
    """Image and plane that were chosen from a file that holds several: scene, z, t."""

    @property
    def picked(self) -> str:
        """Text that messages and the card add to the image's name if its file holds several: ' (scene 1, z 3)', or
        ''."""
        picks = ", ".join(f"{name} {self.selected[name]}" for name in CHOICE if name in self.selected)
        return picks and f" ({picks})"

    def same_image(self, other: Scene) -> bool:
        """Return whether both scenes are of one image of one file."""
        # One file may be named by two paths, or through a link.
        if os.path.realpath(self.name) != os.path.realpath(other.name):
            return False
        # A file of one image offers no choice, which is the same as choosing the first.
        return all(self.selected.get(name, 0) == other.selected.get(name, 0) for name in CHOICE)

    def image(self, box: Box) -> Pixels:
        """Return the pixels in `box`, (C, box.height, box.width); outside the region they are mirrored."""
        return Part(self.source, self.region).read(box)

    def pixels(self, mean: Iterable[float]) -> FilledImage:
        """Return the region as prediction reads an image; pixels without data have `mean` (per band)."""
        return FilledImage(Part(self.source, self.region), tuple(float(value) for value in mean))

    def identity(self) -> JSON:
        """Return what decides the pixels and labels of this scene, by content; JSON types only."""
        return {"image": self.source.identity(), "labels": self.labels_identity(), "window": self.region.to_list()}

    def label(self, box: Box) -> NDArray[np.int64]:
        """Return classes (box.height, box.width) int64; -1 outside the region, for ignored and for invalid pixels."""
        result = np.full(box.shape, IGNORE, np.int64)
        inside = box & Box.of_shape(*self.region.shape)
        if inside is not None:
            part = inside.shift(self.region.y0, self.region.x0)
            found = read_nearest(self.labels, part, self.scale)
            # Validity is read only if the box has labels.
            valid = self.source.valid(part) if (found != IGNORE).any() else None
            result[inside.slices_in(box)] = found if valid is None else np.where(valid, found, IGNORE)
        return result

    @property
    def whole(self) -> Source:
        """The image at full resolution."""
        return self.source.source if isinstance(self.source, Resampled) else self.source

    @property
    def scale(self) -> tuple[float, float]:
        """Number of full-resolution pixels per pixel of the training grid, (y, x)."""
        return self.source.scale if isinstance(self.source, Resampled) else (1.0, 1.0)


def read_nearest(read: ReadLabels, box: Box, scale: tuple[float, float]) -> NDArray[np.int64]:
    """Return what `read` holds under the centre of each pixel of `box`; such a pixel is `scale` (y, x) full pixels
    wide."""
    y = ((np.arange(box.y0, box.y1) + 0.5) * scale[0]).astype(np.intp)
    x = ((np.arange(box.x0, box.x1) + 0.5) * scale[1]).astype(np.intp)
    hull = Box(int(y[0]), int(x[0]), int(y[-1]) + 1, int(x[-1]) + 1)
    return read(hull)[(y - hull.y0)[:, None], (x - hull.x0)[None]]


def open_scenes(entries: tuple[Scenes, ...], config: TrainConfig) -> list[Scene]:
    """Open all scenes of a configuration, in the order of their names. Raises `InputError`, `UsageError`."""
    return [_open(entry, image, label, config) for entry in entries for image, label in pairs(entry, config)]


def pairs(entry: Scenes, config: TrainConfig) -> list[tuple[Any, Any]]:
    """Return the (image, label) paths or arrays that an entry names. Raises `InputError` if a file does not exist."""
    if not is_path(entry.image):
        label = config.path(entry.label) if is_path(entry.label) else entry.label
        return [(entry.image, label)]
    if not is_path(entry.label):
        return [(config.path(entry.image), entry.label)]
    pattern = config.path(entry.image)
    # Crops are drawn by the number of a scene, so the order must not depend on how a system lists a folder.
    images = sorted(pattern.parent.glob(pattern.name)) if set("*?") & set(pattern.name) else [pattern]
    found = [(image, _label_path(entry.label, image, config)) for image in images]
    labels = {label for _, label in found}  # a label raster may match the pattern too
    found = [(image, label) for image, label in found if image not in labels]
    named = (((i, entry.image), (k, entry.label.replace("{stem}", i.stem))) for i, k in found)
    lost, text = next((one for pair in named for one in pair if not one[0].exists()), (None, entry.image))
    if lost or not found:
        where = f"paths start from the configuration's folder, {config.path('').absolute()}"
        raise InputError(
            config.only_here(text)
            or f"{missing(lost) if lost else f'no image matches {pattern}'}; {where}, and TILEPIPE_DATA names the "
            "folder of the data"
        )
    return found


def files_read(config: TrainConfig) -> list[Path]:
    """Return all files and folders that a training reads, including those of its start model. Raises `InputError`."""
    entries = (*config.train, *config.validation, *config.score)
    named = [
        config.path(name) for name in (config.start, config.encoder_weights) if name and config.path(name).exists()
    ]
    given = [what for entry in entries for pair in pairs(entry, config) for what in pair]
    return [*(what for what in given if isinstance(what, Path)), *named]


def _label_path(label: str, image: Path, config: TrainConfig) -> Path:
    text = label.replace("{stem}", image.stem)
    path, beside = config.path(text), image.with_name(Path(text).name)
    with_folder = Path(text).parent != Path(".") or text.startswith("./")
    return path if with_folder or (path.exists() and not beside.exists()) else beside


def _open(entry: Scenes, image: Any, label: Any, config: TrainConfig) -> Scene:
    full = _image(image, entry, config)
    _, height, width = full.shape
    source = full if config.resolution is None else at_resolution(full, config.resolution, config.unit)
    labels, identity = _labels(label, full, entry, config)
    rows, columns = entry.rows or (0, height), entry.columns or (0, width)
    region = Box(rows[0], columns[0], rows[1], columns[1])
    if not Box.of_shape(height, width).contains(region):
        raise UsageError(f"{full.name}: rows {rows}, columns {columns} are not inside its {height} x {width} pixels")
    notes = (*getattr(full, "notes", ()), *_fill(full, config))
    selected = getattr(full, "selected", {})
    name = str(image) if is_path(image) else _name_of(full)
    return Scene(name, source, _scaled(region, source, full), region, labels, identity, notes, selected)


def _name_of(array: Source) -> str:
    """Return a name that tells an array from others by its pixels."""
    return f"array {hashlib.sha256(json.dumps(array.identity(), sort_keys=True).encode()).hexdigest()[:8]}"


def _fill(image: Source, config: TrainConfig) -> Iterator[str]:
    """Yield a warning if a value that looks like nodata is trained on, since it would spoil the mean, too."""
    if config.mask == "none" or image.dtype == np.uint8:
        return
    if found := fill_value(image, sample_of(image)):
        remedy = f"gdal_edit.py -a_nodata {found.value:.9g} {image.name}"
        yield found.said(image.name, remedy)


def _labels(path: Any, image: Source, entry: Scenes, config: TrainConfig) -> tuple[ReadLabels, Callable[[], object]]:
    """Return the labels of an image, and a function that returns what decides them."""
    if is_path(path) and (is_vector(path) or path.suffix.lower() in OTHER_FORMATS):
        rules = ClassRules(
            config.classes, entry.attribute, entry.area, entry.layer, config.values, config.other, config.ignore
        )
        return polygons(path, image, rules), partial(_content_of, path)
    if entry.attribute or entry.area or entry.layer:
        raise InputError(
            f"{path} is read as a raster, which has no attribute, no area and no layer; give polygons or leave them out"
        )
    found = raster(path, image, config)
    if found.source.shape[1:] == image.shape[1:]:
        return found, found.source.identity
    scale = found.source.shape[1] / image.shape[1], found.source.shape[2] / image.shape[2]
    return (lambda box: read_nearest(found, box, scale)), found.source.identity


def _content_of(path: Path) -> list[str]:
    return [content_sha256(stamp(file)) for file in vector_files(path)]


def _image(path: Any, entry: Scenes, config: TrainConfig) -> Source:
    """Open an image with the bands that are trained on. The rule is the same as for prediction, with no model yet."""
    unit = "mpp" if config.unit == "um" else "resolution"
    asked = {unit: entry.resolution, "scene": entry.scene, "z": entry.z, "t": entry.t, "driver": entry.driver}
    opened = open_source(path, **{name: value for name, value in asked.items() if value is not None})
    picked = choose_bands(opened, Reader(), config.bands, masked=config.mask != "none")
    return image_data(with_picked(opened, picked), config.mask)


def _scaled(region: Box, source: Source, full: Source) -> Box:
    """Return the box of the pixels of `source` that lie wholly in `region` of `full`."""
    (_, height, width), (_, full_height, full_width) = source.shape, full.shape
    y, x = height / full_height, width / full_width
    # A pixel at the edge would also hold pixels beyond the region, which may be kept apart for scores.
    return Box(math.ceil(region.y0 * y), math.ceil(region.x0 * x), int(region.y1 * y), int(region.x1 * x))


def held(scene: Scene) -> Scene:
    """Return the scene with its image in memory if the image is small, so that crops need no decoding."""
    if scene.source.shape[0] * scene.region.area > HELD_VALUES:
        return scene
    region = Box.of_shape(*scene.region.shape)
    image, valid = scene.source.read(scene.region), scene.source.valid(scene.region)
    labels = scene.label(region)
    return Scene(
        scene.name, ArraySource(image, valid=valid, name=scene.name), region, region, lambda b: _crop(labels, b)
    )


def _crop(array: NDArray[np.int64], box: Box) -> NDArray[np.int64]:
    return array[box.y0 : box.y1, box.x0 : box.x1]
