"""Steps before and after the network of a BioImage Model Zoo package, in the words of a card: mean, std, threshold.

https://bioimage.io/docs describes the steps. A step that has no place in a card is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tilepipe.arrays import Array
from tilepipe.errors import ModelError
from tilepipe.text import JSON

_SAMPLED = ("zero_mean_unit_variance", "scale_range")
_JOINT = ({"batch", "channel", "y", "x"}, {"channel", "y", "x"})
_BY_BAND = ({"batch", "y", "x"}, {"y", "x"})


@dataclass(frozen=True)
class Step:
    """A step and its arguments."""

    name: str
    """Name of the step, such as 'scale_linear'."""
    values: JSON
    """Its arguments by name."""

    @property
    def measures(self) -> bool:
        """Whether the step measures every image anew."""
        return self.name in _SAMPLED


def scaling(
    steps: Sequence[Step], bands: int, dtype: str, place: str, sample: Array | None = None
) -> tuple[Array, Array]:
    """Return gain and offset (bands,) of the whole pre-processing: the network sees gain x pixel + offset.

    Steps that measure an image measure `sample` (bands, H, W). Raises `ModelError` for any other step.
    """
    gain, offset = np.ones(bands), np.zeros(bands)
    for step in steps:
        if step.name == "scale_linear":
            factor, plus = (_by_band(step, key, bands, place) for key in ("gain", "offset"))
            gain, offset = gain * factor, offset * factor + plus
        elif step.name == "fixed_zero_mean_unit_variance":
            mean, std = (_by_band(step, key, bands, place) for key in ("mean", "std"))
            gain, offset = gain / std, (offset - mean) / std
        elif step.measures and sample is not None:
            lowest, spread = _measured(step, sample * gain[:, None, None] + offset[:, None, None], place)
            gain, offset = gain / spread, (offset - lowest) / spread
        elif not _changes_nothing(step, dtype, gain, offset):
            raise ModelError(
                f"{place}: pre-processing {step.name} {_shown(step)} has no place in a card; scale_linear, "
                "fixed_zero_mean_unit_variance and ensure_dtype to floats have"
            )
    if not (gain > 0).all():
        raise ModelError(f"{place}: the pre-processing turns bright pixels into dark ones (gain {min(gain):g})")
    return gain, offset


def _by_band(step: Step, key: str, bands: int, place: str) -> Array:
    axis = step.values.get("axis")
    value = np.asarray(step.values[key], np.float64)
    if (axis is not None and str(axis) != "channel") or value.size not in (1, bands):
        raise ModelError(f"{place}: {step.name} {_shown(step)} is not one number, nor one for each of {bands} channels")
    return np.broadcast_to(value, (bands,)).astype(np.float64)


def _measured(step: Step, values: Array, place: str) -> tuple[Array, Array]:
    """Return what is subtracted and what is divided by, (bands,), for values (bands, H, W)."""
    axes = step.values.get("axes")
    named = set(map(str, axes)) if axes is not None else _JOINT[0]
    if (named not in _JOINT and named not in _BY_BAND) or step.values.get("reference_tensor") is not None:
        raise ModelError(f"{place}: {step.name} {_shown(step)} measures axes that tilepipe does not know")
    flat = values.reshape(1, -1) if named in _JOINT else values.reshape(len(values), -1)
    eps = step.values["eps"]
    if step.name == "scale_range":
        low, high = np.percentile(flat, [step.values["min_percentile"], step.values["max_percentile"]], axis=1)
        found = low, high - low + eps
    else:
        found = flat.mean(1), flat.std(1) + eps
    lowest, spread = (np.broadcast_to(one, (len(values),)) for one in found)
    return lowest, spread


def _changes_nothing(step: Step, dtype: str, gain: Array, offset: Array) -> bool:
    if step.name == "ensure_dtype":
        return str(step.values["dtype"]).startswith("float") or bool(
            step.values["dtype"] == dtype and (gain == 1).all() and not offset.any()
        )
    if step.name == "clip" and dtype == "uint8":  # of pixels of 8 bits it is known where they lie
        low, high = step.values.get("min"), step.values.get("max")
        whole = all(step.values.get(f"{end}_percentile") is None for end in ("min", "max"))
        ends = np.stack([offset, 255 * gain + offset])
        return whole and (low is None or low <= ends.min() + 1e-9) and (high is None or high >= ends.max() - 1e-9)
    return False


def decision(
    steps: Sequence[Step], channels: Sequence[str], data: Any, place: str
) -> tuple[Literal["logits", "probabilities", "labels"] | None, JSON]:
    """Return what the output is after post-processing, and the card's classes, output and threshold.

    `data` is the description of the output's values. Raises `ModelError` for steps that no card can say.
    """
    done = [step for step in steps if step.name != "ensure_dtype"]
    called = [step.name for step in done]
    single = len(channels) == 1
    values = [str(value) for value in getattr(data, "values", ())]
    if not done and values and single:
        names = values if not all(value.isdigit() for value in values) else [f"class {value}" for value in values]
        return "labels", {"classes": names, "output": "labels"}
    classes = ["background", str(channels[0])] if single else [str(name) for name in channels]
    fields: JSON = {"classes": classes}
    if not done:
        shares = tuple(getattr(data, "range", ())) == (0, 1)
        return None, fields | ({"output": "probabilities"} if shares else {})
    if called == ["softmax"] and not single and str(done[0].values.get("axis", "channel")) == "channel":
        return "probabilities", fields | {"output": "logits"}
    if called == ["sigmoid"] and not single:
        raise ModelError(no_classes(channels, place))
    if called == ["sigmoid"]:
        return "probabilities", fields | {"output": "logits"}
    if single and called in (["sigmoid", "binarize"], ["binarize"]):
        limit = done[-1].values["threshold"]
        limit = float(limit[0] if isinstance(limit, list) else limit)
        if 0 < limit < 1:
            output = "logits" if len(called) == 2 else "probabilities"
            return "labels", fields | {"output": output} | ({} if limit == 0.5 else {"threshold": limit})
        if called == ["binarize"]:  # of a logit, since no probability is above 1 or below 0
            return "labels", fields | {"output": "logits"} | ({} if not limit else {"threshold": _sigmoid(limit)})
    listed = ", ".join(f"{step.name} {_shown(step)}".strip() for step in done)
    raise ModelError(
        f"{place}: post-processing {listed} of {len(channels)} channels has no place in a card; sigmoid and binarize "
        "of one channel and softmax of several have"
    )


def no_classes(channels: Sequence[str], place: str) -> str:
    """Return why channels that do not add up to 1 are no classes."""
    return (
        f"{place}: the channels {', '.join(map(str, channels))} have a probability each, without one for the "
        "background, so a pixel may be of several or of none; tilepipe's labels are one class per pixel"
    )


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def _shown(step: Step) -> str:
    return ", ".join(f"{key} {value}" for key, value in step.values.items() if value is not None)
