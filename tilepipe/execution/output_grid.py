"""This module makes a `LabelMap` on the output grid from labels on the prediction grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tilepipe.arrays import Labels
from tilepipe.box import Box
from tilepipe.models.card import ModelCard
from tilepipe.planning.plan import Plan
from tilepipe.planning.resolution import nearest_pixel
from tilepipe.planning.wanted import Wanted
from tilepipe.products.label_map import LabelMap, Legend, Measure, probability_legend
from tilepipe.sources.base import Georeference, Resolution, Source
from tilepipe.sources.georeference import moved_rpcs
from tilepipe.sources.world_grid import inner_of, without_canvas
from tilepipe.sources.wrapped import frame_of
from tilepipe.tiling.uncertainty import LAYERS, PROBABILITIES, STEPS, VOID

Read = Callable[[Box], Labels]


def label_map(
    plan: Plan, card: ModelCard, source: Source, read: Read, wanted: Wanted | None = None, nodata: float | None = None
) -> LabelMap:
    """Return the plan's region of the output grid; `read` returns labels of a prediction box.

    An output pixel takes the label of the prediction-grid pixel under its centre; each axis has one exact scale. An
    output pixel that is not `wanted` is `nodata`, by default the plan's nodata label.
    """
    region, zone = plan.output_region, plan.grid
    scale = plan.shape[0] / plan.output[0], plan.shape[1] / plan.output[1]
    block = zone.y.zone * plan.output[0] // plan.predicted[0], zone.x.zone * plan.output[1] // plan.predicted[1]

    def read_output(box: Box) -> Labels:
        box = box.shift(region.y0, region.x0)
        # Nothing is resampled here, and pixels that are not wanted are nodata already.
        if plan.output == plan.predicted:
            return read(box)
        rows = _under(box.y0, box.y1, plan.predicted[0], plan.output[0])
        columns = _under(box.x0, box.x1, plan.predicted[1], plan.output[1])
        # The whole image has one exact scale. A scale rounded for each block would shift the block's labels by a pixel
        # against its neighbour's.
        labels = read(Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1))
        labels = labels[(rows - rows[0])[:, None], (columns - columns[0])[None, :]]
        if wanted is None:
            return np.asarray(labels)
        outside = labels.dtype.type(plan.nodata if nodata is None else nodata)
        return np.asarray(np.where(wanted.labelled(box), labels, outside))

    canvas, source = inner_of(source), without_canvas(source)
    own = region.shift(-canvas.y0, -canvas.x0)  # of the image itself; a world grid has no other pixels than the image
    return LabelMap(
        shape=region.shape, dtype=np.dtype(plan.label_dtype), read=read_output,
        legend=Legend(card.name, card.classes, card.palette, card.nodata),
        block=(max(1, block[0]), max(1, block[1])),
        georeference=_georeference(source.georeference, own, scale),
        resolution=source.resolution and output_resolution(plan, source.resolution),
        origin=(round(own.y0 * scale[0]), round(own.x0 * scale[1])), scale=scale, frame=frame_of(source),
    )  # fmt: skip


def layer_map(
    name: str, plan: Plan, card: ModelCard, source: Source, read: Read, wanted: Wanted | None = None
) -> LabelMap:
    """Return an uncertainty layer, or the probability of a class, on the grid of `label_map`.

    `read` returns codes of a box of the prediction grid.
    """
    if name.startswith(PROBABILITIES):
        k = int(name.rpartition("/")[2])
        legend = probability_legend(card.classes[k])
    else:
        legend = Legend(name, (), (), VOID, Measure(1 / STEPS, LAYERS[name]))
    return replace(label_map(plan, card, source, read, wanted, VOID), dtype=np.dtype("uint8"), legend=legend)


def _under(start: int, stop: int, size: int, of: int) -> NDArray[np.int64]:
    return nearest_pixel(np.arange(start, stop, dtype=np.int64), size, of)


def output_resolution(plan: Plan, resolution: Resolution) -> Resolution:
    """Return the size of a pixel of the output grid; `resolution` is the image's resolution."""
    y, x = plan.shape[0] / plan.output[0], plan.shape[1] / plan.output[1]
    return replace(resolution, y=resolution.y * y, x=resolution.x * x)


def _georeference(known: Georeference | None, region: Box, scale: tuple[float, float]) -> Georeference | None:
    """Return the position of a region of the output grid. If nothing moves, it is exactly the source's."""
    if known is None or (region.y0 == region.x0 == 0 and scale == (1.0, 1.0)):
        return known
    transform = None
    if known.transform is not None:
        a, b, c, d, e, f = known.transform
        y, x = region.y0 * scale[0], region.x0 * scale[1]
        transform = (a * scale[1], b * scale[0], a * x + b * y + c, d * scale[1], e * scale[0], d * x + e * y + f)
    gcps = tuple(
        (row / scale[0] - region.y0, column / scale[1] - region.x0, x, y, z) for row, column, x, y, z in known.gcps
    )
    rpcs = moved_rpcs(known.rpcs, (region.y0 * scale[0], region.x0 * scale[1]), scale)
    return replace(known, transform=transform, gcps=gcps, rpcs=rpcs)
