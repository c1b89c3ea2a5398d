"""This module gives the labels of a region in memory, or what else the same pass gives. Nothing is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Unpack

import numpy as np

from tilepipe.box import Box
from tilepipe.errors import UsageError, public
from tilepipe.execution.job import make_job
from tilepipe.execution.like_given import is_data_array, like_given
from tilepipe.execution.region_labels import region_maps
from tilepipe.inference.predictor import LOGITS
from tilepipe.models.identity import identities_held
from tilepipe.models.model import Model
from tilepipe.models.unread import AnyModel
from tilepipe.planning.check_settings import KINDS
from tilepipe.planning.fit_table import warn
from tilepipe.planning.planner import Image, opened
from tilepipe.planning.settings import Choices, Request
from tilepipe.planning.signature import with_settings
from tilepipe.products.label_map import LABELS
from tilepipe.text import setting
from tilepipe.tiling.uncertainty import LAYERS, PROBABILITIES


@with_settings(Choices)
@public
@identities_held()
def predict(
    source: Image,
    model: AnyModel,
    region: Box | tuple[int, int, int, int] | None = None,
    *,
    returns: str = LABELS,
    **choices: Unpack[Choices],
) -> Any:
    """Return the labels of a region, or what else the same pass gives, as an array in memory. Nothing is written.

    The labels equal the same crop of the full run with the same settings, bit for bit on the same device. A warning is
    given if the image's pixels are more than twice as large as those of the model, or if `bounds` reach beyond the
    image.

    Args:
        source: The image: a path, a `Source`, or an array of shape (bands, height, width) or (height, width).
        model: The name of a bundled model, the path of a model, a `Model`, or a list of these, which are averaged.
        region: Full-resolution pixels, as a `Box` or its (y0, x0, y1, x1). All of the image if it is left out.
        returns: What is returned: 'labels', 'probabilities', 'logits', or the name of a layer ('margin', 'entropy',
            'disagreement', 'mutual-information').
        **choices: See `Choices`. They have the names of the command line's options.

    Returns:
        Labels from 0, (height, width) uint8, or uint16 for more than 255 classes; pixels without image data are 255 or
        65535. Probabilities are (classes, height, width) uint8 and a layer is (height, width) uint8, as a run stores
        them: the value over 254 is from 0 to 1, and 255 is nodata. Logits are (classes, height, width) float32
        (float64 in fp64) of the tile that keeps a pixel, with NaN for nodata; no run stores them.
        For an xarray.DataArray this is a DataArray on the same coordinates, with the CRS; else a numpy array.

    Raises:
        UsageError: A setting is wrong, or the region has no pixels or lies outside the image.
        InputError: The image cannot be read, or does not fit the model.
        ModelError: The model is refused, or fails on a tile.
        DeviceError: The device is not there, or its memory ran out.

    Example:
        >>> import tilepipe as tp
        >>> labels = tp.predict("pipelines/sample/Amazon_24_20.tif", "forest", tp.Box(0, 0, 64, 96))
        >>> labels.shape, labels.dtype
        ((64, 96), dtype('uint8'))
    """
    if choices.get("layers"):
        raise UsageError("predict returns one array; name one layer as `returns`, or use segment for several")
    refuse_useless(choices, "predict")
    kinds = (LABELS, PROBABILITIES, LOGITS, *LAYERS)
    if returns not in kinds:
        raise UsageError(f"`returns` {returns!r} cannot be used; give one of {', '.join(kinds)}")
    request = Request.of({**choices, "region": region})
    request = replace(
        request,
        layers=(returns,) if returns in LAYERS else (),
        products=(PROBABILITIES,) if returns == PROBABILITIES else (),
    )
    model, image = opened(source, model, request)
    if returns == LOGITS and (model.answers_often or model.card.output == "labels"):
        raise UsageError(f"{model.name} gives no logits: its answer is {_answer(model)}; ask for another array")
    job = make_job(image, model, request)
    warn(job.plan, decorators=2)
    if returns == LOGITS and job.plan.grid.blended:
        raise UsageError(
            "tiles are blended here, as probabilities, so a pixel has no logits of its own; ask for probabilities, or "
            f"give {setting(window_shape='crop')}"
        )
    maps = region_maps(job, image, returns)
    arrays = [found.read(Box.of_shape(*found.shape)) for found in maps]
    array = np.stack(arrays) if returns in (PROBABILITIES, LOGITS) else arrays[0]
    return like_given(source, array, maps[0], returns, model.card.classes) if is_data_array(source) else array


def refuse_useless(choices: Mapping[str, object], function: str) -> None:
    """Raise `UsageError` for a setting that a function has no use for, because it writes nothing."""
    for name in choices:
        if name in KINDS and name not in Choices.__annotations__:
            raise UsageError(
                f"{function} writes nothing and computes in this process, so it has no use for {name!r}; leave it out, "
                "or use segment"
            )


def _answer(model: Model) -> str:
    return "finished labels" if model.card.output == "labels" else "a mean of probabilities"
