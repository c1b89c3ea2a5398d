"""This module gives the labels of an image as a lazy array: a part is computed when it is asked for."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any, Unpack

from tilepipe.arrays import Labels as Values
from tilepipe.box import Box
from tilepipe.errors import public
from tilepipe.execution.block import BlockWorker
from tilepipe.execution.job import FAIL, Job, make_job
from tilepipe.execution.like_given import is_data_array, like_given
from tilepipe.execution.output_grid import label_map
from tilepipe.execution.predict import refuse_useless
from tilepipe.models.identity import identities_held
from tilepipe.models.unread import AnyModel
from tilepipe.planning.fit_table import warn
from tilepipe.planning.planner import Image, opened
from tilepipe.planning.settings import Choices, Request
from tilepipe.planning.signature import with_settings
from tilepipe.products.label_map import LABELS
from tilepipe.products.labels import Labels


class _Computed:
    """Labels of boxes of the prediction grid, computed when they are read. A copy in another process computes there."""

    def __init__(self, job: Job) -> None:
        self.job = replace(job, on_tile_error=FAIL)
        self._begin()

    def _begin(self) -> None:
        self._worker: BlockWorker | None = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"job": self.job}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.job = state["job"]
        self._begin()

    def __call__(self, box: Box) -> Values:
        with self._lock:  # the model is brought to its device once
            self._worker = self._worker or BlockWorker(self.job)
        return self._worker.labels(box)


@with_settings(Choices)
@public
@identities_held()
def labels(source: Image, model: AnyModel, **choices: Unpack[Choices]) -> Any:
    """Return the labels of an image as a lazy dask array, whose tiles are computed when a part is computed.

    The labels are those of `segment` and `predict` with the same settings. Nothing is written, and no label is kept:
    what is computed twice is predicted twice. One chunk is one block of the run. Chunks of a lazy image are kept as
    long as the result (128 MiB at most): call `labels` again if what lies below it has changed.

    Args:
        source: The image: a path, a `Source`, or an array of shape (bands, height, width) or (height, width).
        model: The name of a bundled model, the path of a model, a `Model`, or a list of these, which are averaged.
        **choices: See `Choices`. They have the names of the command line's options.

    Returns:
        A dask array (height, width) of uint8, or uint16 for more than 255 classes; pixels without image data are 255 or
        65535. For an xarray.DataArray it is a lazy DataArray on the same coordinates, with the CRS.

    Raises:
        TilepipeError: As `predict` does; what a tile raises is raised when the tile is computed.

    Example:
        >>> import tilepipe as tp
        >>> lazy = tp.labels("pipelines/sample/Amazon_24_20.tif", "forest", tile=256)
        >>> lazy.shape, lazy[:50, :80].compute().shape
        ((512, 512), (50, 80))
    """
    refuse_useless(choices, "labels")
    request = Request.of(choices)
    model, image = opened(source, model, request)
    job = make_job(image, model, request)
    warn(job.plan, decorators=2)
    found = label_map(job.plan, model.card, image, _Computed(job), job.wanted)
    lazy = Labels(found).dask
    return like_given(source, lazy, found, LABELS, model.card.classes) if is_data_array(source) else lazy
