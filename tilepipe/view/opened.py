"""What is shown over an image: labels, layers of uncertainty and the truth, opened and put in their place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from tilepipe.arrays import Labels
from tilepipe.box import Box
from tilepipe.errors import InputError, UsageError
from tilepipe.evaluation.accuracy.class_map import ClassMap, RawMap, class_table, open_raw
from tilepipe.execution.export import image_of
from tilepipe.paths import labels_file
from tilepipe.products.formats import layer_path, product_of
from tilepipe.products.label_map import LABELS, LabelMap, Legend
from tilepipe.products.labels import open_label_file, open_map
from tilepipe.products.smaller import smaller_maps
from tilepipe.sources.base import Source
from tilepipe.text import setting
from tilepipe.tiling.uncertainty import LAYERS
from tilepipe.view.map_tiles import MapTiles
from tilepipe.view.small_map import SmallMap, small_map_of
from tilepipe.view.working_run import WorkingRun, working_run

TRUTH = "truth"
NO_LABEL = 65535
"""Value of pixels without a label in maps of other programs."""


@dataclass(frozen=True)
class Truth:
    """The truth, as a user names it."""

    path: str | Path
    """File of labels, of tilepipe or of another program."""
    values: Mapping[int, int] | None = None
    """Class of each value of the file; None if values are classes."""
    ignore: int | None = 255
    """Value of pixels that nobody labelled."""


@dataclass
class Opened:
    """Maps in tiles of the screen, by name."""

    tiles: dict[str, MapTiles] = field(default_factory=dict)
    """Labels under `LABELS`, truth under `TRUTH`, layers under their own names."""
    run: WorkingRun | None = None
    """Run that computes the labels; None if they are finished."""


def open_maps(image: Source, labels: str | Path | None, truth: Truth | None) -> Opened:
    """Open the labels with their layers, and the truth. Raises `InputError` or `UsageError` if they do not fit."""
    if labels is None:
        if truth is not None:
            raise UsageError(f"`truth` is shown beside labels; name them too, or show {truth.path} as the labels")
        return Opened()
    run = working_run(Path(labels))
    opened = working(image, run) if run else finished(image, labels_file(labels))
    if truth is not None:
        opened.tiles[TRUTH] = _tiles(image, [_truth(image, opened.tiles[LABELS].map, truth)])
    return opened


def working(image: Source, run: WorkingRun) -> Opened:
    """Return the maps of a run that is not finished."""
    if run.plan.shape != image.shape[1:]:
        raise UsageError(
            f"{image.name} is not the image of {run.directory}: it has {image.shape[1]} x {image.shape[2]} pixels, and "
            f"the run's image ({run.plan.source}) has {run.plan.shape[0]} x {run.plan.shape[1]}"
        )
    maps, shape = run.maps(), (image.shape[1], image.shape[2])
    return Opened({name: MapTiles([found], shape, SmallMap(found)) for name, found in maps.items()}, run)


def finished(image: Source, path: Path) -> Opened:
    """Return the labels in a file, and the layers that the run has written beside it."""
    try:
        found = open_label_file(path)
    except InputError:
        # Labels of another program have no names, and may lie on the image or on a part of it.
        return Opened({LABELS: _tiles(image, [_placed(_of_other_program(open_raw(path, set())), image)])})
    image_of(found, image, path)
    opened = Opened({LABELS: _tiles(image, smaller_maps(found, path))})
    for name in LAYERS if product_of(path) else ():
        beside = layer_path(path, name)
        if beside.exists():
            layer = open_map(beside)
            if (layer.shape, layer.origin, layer.scale) == (found.shape, found.origin, found.scale):
                opened.tiles[name] = _tiles(image, smaller_maps(layer, beside))
    return opened


def _tiles(image: Source, levels: list[LabelMap]) -> MapTiles:
    return MapTiles(levels, (image.shape[1], image.shape[2]), small_map_of(levels))


def _of_other_program(raw: RawMap) -> LabelMap:
    legend = Legend("labels", (), (), NO_LABEL)
    return LabelMap(raw.shape, np.dtype("uint16"), legend, partial(_values, raw), (512, 512), raw.georeference)


def _values(raw: RawMap, box: Box) -> Labels:
    """Return the values of a box; those that are no label, or none of 16 bits, become `NO_LABEL`."""
    values, valid = raw.read(box), raw.valid(box)
    known = (values >= 0) & (values < NO_LABEL)
    return np.where(known if valid is None else known & valid, values, NO_LABEL).astype(np.uint16)


def _truth(image: Source, labels: LabelMap, truth: Truth) -> LabelMap:
    raw = open_raw(labels_file(truth.path), set() if truth.ignore is None else {truth.ignore})
    legend = replace(labels.legend, name=TRUTH)
    if not legend.classes:
        found = _of_other_program(raw)
    else:
        nodata, classes = legend.nodata, len(legend.classes)
        table = class_table(truth.values, raw.without_label, nodata, classes)
        remedy = f"say of which class it is with {setting(values={1: 0})}, or leave it out with `ignore`"
        meant = ClassMap(raw, table, nodata, remedy, raw.nodata in (truth.values or {}))
        found = LabelMap(raw.shape, np.dtype("uint16"), legend, meant.read, (512, 512), raw.georeference)
    if raw.shape == labels.shape:
        return replace(found, origin=labels.origin, scale=labels.scale)
    return _placed(found, image)


def _placed(found: LabelMap, image: Source) -> LabelMap:
    """Return labels of another program at their place on the image. Raises `UsageError` if they are not of its size."""
    if found.shape != image.shape[1:]:
        raise UsageError(
            f"{found.legend.name} of {found.shape[0]} x {found.shape[1]} pixels are not on the grid of {image.name} "
            f"({image.shape[1]} x {image.shape[2]}); bring them onto it first: gdalwarp -r near -te ... -ts ..."
        )
    return found
