"""This module computes the labels of a region in memory."""

from __future__ import annotations

from dataclasses import replace

from tilepipe.arrays import Labels
from tilepipe.box import Box
from tilepipe.execution.block import BlockWorker
from tilepipe.execution.job import FAIL, Job
from tilepipe.execution.output_grid import label_map
from tilepipe.sources.base import Source


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
    area = job.plan.predicted_region
    view = label_map(job.plan, job.model.card, full, lambda box: labels[box.slices_in(area)], job.wanted)
    return view.read(Box.of_shape(*view.shape))
