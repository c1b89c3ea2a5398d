"""This module handles a loss that is not a number: training stops, and the message names the image and the crop."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tilepipe.box import Box
from tilepipe.errors import InputError, ModelError, TilepipeError
from tilepipe.training.scenes import Scene

FAR = 1e4
"""Distance from the mean beyond which no sensor has measured a value (standard deviations)."""


def no_number(
    step: int, places: Sequence[tuple[Scene, Box]], images: Tensor, mean: Tensor, std: Tensor
) -> TilepipeError:
    """Return the error to raise; it names the crop whose values lie farthest from the mean.

    `images` is the batch (B, C, H, W) as the network got it, (x - `mean`) / `std`; `places` names each crop's scene and
    its box in the scene.
    """
    # What is no number lies farther off than any number.
    far = images.abs().nan_to_num(nan=math.inf).flatten(2)  # (B, C, H * W)
    worst = int(far.amax((1, 2)).argmax())
    scene, box = places[worst]
    crop = in_full_pixels(scene, box)
    name = f"{scene.name}{scene.picked}"
    where = f"rows {crop.y0} to {crop.y1}, columns {crop.x0} to {crop.x1}"
    said = f"the loss of step {step} is not a number"
    if float(far[worst].max()) > FAR:
        # The batch is scaled and changed at random, so the values that the message names are read again.
        values = scene.image(box)
        finite = values[torch.from_numpy(values).isfinite().numpy()] if values.dtype.kind == "f" else values
        largest = float(abs(finite.astype("float64")).max()) if finite.size else math.inf
        return InputError(
            f"{said}: {name} holds values up to {largest:.2g} in {where}, where the labelled pixels have a mean "
            f"of {_texts(mean)} and a standard deviation of {_texts(std)}. If they stand for missing data, say so in "
            "the file: gdal_edit.py -a_nodata VALUE in.tif. Nothing of this step is kept"
        )
    return ModelError(
        f"{said}, though no value is out of range (first crop: {name}, {where}): the weights ran away; "
        "give a smaller learning_rate or clip. Nothing of this step is kept"
    )


def in_full_pixels(scene: Scene, box: Box) -> Box:
    """Return the full-resolution pixels that a box of a scene's region lies on, cut to the region."""
    inside = (box & Box.of_shape(*scene.region.shape)) or box
    part, (y, x) = inside.shift(scene.region.y0, scene.region.x0), scene.scale
    return Box(int(part.y0 * y), int(part.x0 * x), math.ceil(part.y1 * y), math.ceil(part.x1 * x))


def _texts(values: Tensor) -> str:
    return ", ".join(f"{value:.3g}" for value in values.tolist())
