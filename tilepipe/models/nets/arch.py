"""Arch: the parameters of an architecture, as they stand in a model card's `arch`. This module imports no torch.

    {"name": "unet", "encoder": "plain", "width": 16, "depth": 4, "up": "nearest", ...}

Every value is a JSON value. An unknown name or value raises `ModelError` that names the nearest known one.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from tilepipe.errors import ModelError

Norm = Literal["batch", "instance", "group", "none"]
"""Normalisation. Instance and group norm use the statistics of the whole tile: no halo makes them seamless."""

Down = Literal["max", "average", "strided", "blur"]
"""Subsampling by 2: 2 x 2 maximum, 2 x 2 mean, 3 x 3 convolution of stride 2, maximum then blur (Zhang 2019)."""

Up = Literal[
    "nearest",
    "bilinear",
    "nearest_conv",
    "bilinear_conv",
    "deconv2",
    "deconv3",
    "deconv4",
    "shuffle",
    "shuffle_icnr",
    "shuffle_icnr_blur",
    "unpool",
]
"""Up-sampling by 2. nearest, bilinear: a resize, which the decoder's block convolves together with the skip. _conv: a
resize and a 3 x 3 convolution of its own (Odena 2016). deconvK: a transposed convolution of kernel K. shuffle: a
sub-pixel convolution with ICNR start (Aitken 2017) and 2 x 2 blur (Sugawara 2018). unpool: maxima return to their
places."""

EncoderName = Literal["plain", "resnet18", "resnet34", "resnet50"]


class Arch(BaseModel):
    """Base of every architecture's parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    def __init__(self, /, **values: Any) -> None:
        """Check the values. Raises `ModelError` that names the first wrong value."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ModelError(self._sentence(error.errors()[0])) from None

    def _sentence(self, problem: ErrorDetails) -> str:
        if not problem["loc"]:
            return "architecture: " + problem["msg"].removeprefix("Value error, ")
        key, value = str(problem["loc"][0]), problem["input"]
        if problem["type"] == "extra_forbidden":
            return unknown("parameter", key, type(self).model_fields)
        if problem["type"] == "literal_error":
            choices = str(problem["ctx"]["expected"]).replace("'", "").replace(" or ", ", ").split(", ")
            return unknown(key, str(value), choices)
        return f"architecture parameter {key} is {value!r}: {problem['msg'].lower()}"


class Blocks(Arch):
    """Parameters that every architecture of convolution blocks has."""

    width: int = Field(default=16, ge=1, le=512)
    """Number of channels at full resolution; it doubles at every halving."""
    depth: int = Field(default=4, ge=1, le=7)
    """Number of halvings."""
    norm: Norm = "batch"
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Probability of dropout in training, after each of our blocks; blocks of a ResNet have no dropout."""
    dropout_kind: Literal["element", "channel"] = "element"
    """Whether dropout drops single values or whole channels (Tompson 2015)."""


class Body(Blocks):
    """Parameters that every architecture with a choice of encoders has."""

    encoder: EncoderName = "plain"
    """Encoder: convolution blocks of `width` and `depth`, or a ResNet (He 2016). With a ResNet, `depth` is at most 5
    and `width` is the decoder's."""
    down: Down = "max"
    """Subsampling of the plain encoder; a ResNet has its own."""

    @model_validator(mode="after")
    def _fits_the_encoder(self) -> Body:
        if self.encoder != "plain":
            if self.depth > 5:
                raise ValueError(f"a ResNet halves 5 times at most, depth is {self.depth}; use depth 5 or less")
            if self.down != "max":
                raise ValueError(f"a ResNet has its own subsampling, down is {self.down!r}; leave it out")
            if getattr(self, "up", "") == "unpool":
                raise ValueError("up 'unpool' needs the maxima of the plain encoder; use encoder 'plain' or another up")
        return self


def unknown(what: str, value: str, choices: Iterable[str]) -> str:
    """Return a sentence that names all `choices`, and the one nearest to `value`."""
    names = list(choices)
    # Without a cutoff there always is a nearest name.
    near = get_close_matches(value, names, n=1, cutoff=0.0)
    return f"unknown {what} {value!r}; nearest is {near[0]!r} ({', '.join(names)})"
