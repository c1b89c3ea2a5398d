"""This module computes the labels of a region in memory, or what else the same pass over the region gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tilepipe.arrays import Array, Labels
from tilepipe.box import Box
from tilepipe.execution.block import BlockWorker
from tilepipe.execution.job import FAIL, Job
from tilepipe.execution.output_grid import label_map, layer_map
from tilepipe.inference.predictor import LOGITS
from tilepipe.products.label_map import LABELS, LabelMap, Legend, Measure
from tilepipe.sources.base import Source
from tilepipe.tiling.uncertainty import PROBABILITIES, probability_names


def region_labels(job: Job, full: Source) -> Labels:
    """Return the labels of the job's region on its output grid, (height, width) uint8 or uint16, in memory.

    Raises the errors of `region_maps`.
    """
    found = region_maps(job, full, LABELS)[0]
    return found.read(Box.of_shape(*found.shape))


def region_maps(job: Job, full: Source, returns: str) -> list[LabelMap]:
    """Return maps of the job's region on its output grid, in memory: of the labels, of a layer, or one of each class.

    `returns` is 'labels', 'logits', 'probabilities' or the name of a layer that the plan keeps. Raises `InputError` if
    the image cannot be read, `ModelError` if the model fails: a region in memory has no list of failed tiles.
    """
    # An array in memory cannot say which of its nodata pixels are failures.
    worker = BlockWorker(replace(job, on_tile_error=FAIL))
    try:
        planes = worker.region()[0][None] if returns == LABELS else worker.region_planes(returns)
    finally:
        worker.close()
    names = probability_names(job.plan.classes) if returns == PROBABILITIES else [returns] * len(planes)
    return [_on_output_grid(job, full, plane, name) for name, plane in zip(names, planes, strict=True)]


def _on_output_grid(job: Job, full: Source, values: Array, name: str) -> LabelMap:
    area, plan, card = job.plan.predicted_region, job.plan, job.model.card

    def read(box: Box) -> Array:
        return values[box.slices_in(area)]

    if name == LABELS:
        return label_map(plan, card, full, read, job.wanted)
    if name == LOGITS:
        found = label_map(plan, card, full, read, job.wanted, np.nan)
        return replace(found, dtype=values.dtype, legend=Legend(name, (), (), 0, Measure(1.0, "score of the class")))
    return layer_map(name, plan, card, full, read, job.wanted)
