"""This module computes the labels of a region in memory, or what else the same pass over the region gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tilepipe.arrays import Array, Labels
from tilepipe.box import Box
from tilepipe.execution.block import BlockWorker
from tilepipe.execution.job import FAIL, Job
from tilepipe.execution.output_grid import label_map
from tilepipe.inference.predictor import LOGITS
from tilepipe.sources.base import Source
from tilepipe.tiling.uncertainty import VOID


def region_labels(job: Job, full: Source) -> Labels:
    """Return the labels of the job's region on its output grid, (height, width) uint8 or uint16, in memory.

    Raises `InputError` if the image cannot be read, `ModelError` if the model fails: a region in memory has no list of
    failed tiles.
    """
    # An array in memory cannot say which of its nodata pixels are failures.
    worker = BlockWorker(replace(job, on_tile_error=FAIL))
    try:
        labels, _ = worker.region()
    finally:
        worker.close()
    return _on_output_grid(job, full, labels, job.plan.nodata)


def region_planes(job: Job, full: Source, returns: str) -> Array:
    """Return scores, probabilities or a layer of the job's region on its output grid, (planes, height, width).

    `returns` is 'logits', 'probabilities' or the name of a layer that the plan keeps. Raises the errors of
    `region_labels`.
    """
    worker = BlockWorker(replace(job, on_tile_error=FAIL))
    try:
        planes = worker.region_planes(returns)
    finally:
        worker.close()
    nodata = np.nan if returns == LOGITS else VOID
    return np.stack([_on_output_grid(job, full, plane, nodata) for plane in planes])


def _on_output_grid(job: Job, full: Source, values: Array, nodata: float) -> Array:
    area = job.plan.predicted_region
    view = label_map(job.plan, job.model.card, full, lambda box: values[box.slices_in(area)], job.wanted, nodata)
    return view.read(Box.of_shape(*view.shape))
