"""A STAC item with the extension MLM is read as a model card; `stac_item` writes one.

https://github.com/stac-extensions/mlm describes the extension (1.5). Fields of a card that it has no word for, such as
the stride, are written as hyperparameters and read from there. This module imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tilepipe.errors import ModelError
from tilepipe.text import JSON

KEPT = ("stride", "halo", "tile", "pad", "threshold", "channels", "output", "arch", "license", "key")
"""Fields of a card that are hyperparameters of an item."""
_TASKS = ("semantic-segmentation", "segmentation")
_DTYPES = ("uint8", "uint16", "int16", "float32")
_FINE = 1e-3
"""Pixel size in metres below which a card says micrometres."""


def is_item(fields: Mapping[str, Any]) -> bool:
    """Return whether the content of a JSON file is a STAC item."""
    return fields.get("type") == "Feature" and "stac_version" in fields


def fields_of(item: Mapping[str, Any], name: str) -> JSON:
    """Return the fields of a card that an item makes; messages call it `name`.

    Raises `ModelError` if it describes no segmentation, or names a step that tilepipe cannot do.
    """
    properties: Any = item.get("properties")
    try:
        if "mlm:name" not in properties:
            raise ModelError(f"{name} is a STAC item without mlm:name, so it describes no model")
        (given,), (gives,) = properties["mlm:input"], properties["mlm:output"]
        tasks = [*properties.get("mlm:tasks", ()), *gives.get("tasks", ())]
        if not set(tasks) & set(_TASKS):
            raise ModelError(f"{name} is a model for {', '.join(map(str, tasks))}; tilepipe reads {_TASKS[0]}")
        for step in ("pre_processing_function", "post_processing_function"):
            if said := given.get(step) or gives.get(step):
                raise ModelError(f"{name}: {step} {str(said)[:100]} is not run; write a card of your own")
        found = _axes(given["input"], name)
        if names := [band["name"] if isinstance(band, Mapping) else str(band) for band in given.get("bands", ())]:
            found["band_names"] = names
        found |= _scaling(given, found["bands"], name) | _classes(gives, name)
        dtype = given["input"]["data_type"]
        own = properties.get("mlm:hyperparameters") or {}
        found |= {key: own[key] for key in KEPT if own.get(key) is not None}
        dtype = own.get("dtype", dtype if dtype in _DTYPES and dtype != "float32" else None)
        found |= {"dtype": dtype} if dtype else {}
        found |= _pixel_size(properties.get("gsd"))
        words = {"name": properties["mlm:name"], "description": properties.get("description", "")}
        return found | words | ({"license": properties["license"]} if "license" in properties else {})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(
            f"{name} is a STAC item whose mlm fields cannot be read ({type(error).__name__}: {error}); tilepipe reads "
            "one input and one output, with shape, dim_order, data_type and classification:classes"
        ) from None


def _axes(given: Mapping[str, Any], name: str) -> JSON:
    order = ["channel" if axis in ("band", "bands", "channels") else str(axis) for axis in given["dim_order"]]
    sizes = dict(zip(order, given["shape"], strict=True))
    if order not in (["batch", "channel", "height", "width"], ["batch", "height", "width", "channel"]):
        raise ModelError(
            f"{name}: the input has the axes {', '.join(order)}; tilepipe reads batch, channel, height, width"
        )
    found: JSON = {"bands": sizes["channel"]} | ({"layout": "NHWC"} if order[-1] == "channel" else {})
    if sizes["height"] == sizes["width"] and sizes["height"] > 0:
        found["tile"] = sizes["height"]
    return found


def _scaling(given: Mapping[str, Any], bands: int, name: str) -> JSON:
    steps = given.get("value_scaling")
    if steps is None and given.get("norm_type") == "z-score":  # the words of MLM 1.0
        steps = [{"type": "z-score", **one} for one in given.get("statistics") or ()]
    elif steps is None and given.get("norm_type"):
        raise ModelError(f"{name}: norm_type {given['norm_type']} has no place in a card; write mean and std yourself")
    if not steps:
        return {}
    if len(steps) not in (1, bands):
        raise ModelError(f"{name}: value_scaling has {len(steps)} entries for {bands} bands; it needs one, or one each")
    pairs = [_pair(step, name) for step in (steps if len(steps) == bands else steps * bands)]
    return {"mean": [mean for mean, _ in pairs], "std": [std for _, std in pairs]}


def _pair(step: Mapping[str, Any], name: str) -> tuple[float, float]:
    kind = step.get("type")
    if kind == "z-score":
        return float(step["mean"]), float(step["stddev"])
    if kind == "min-max":
        return float(step["minimum"]), float(step["maximum"]) - float(step["minimum"])
    if kind == "offset":
        return float(step["value"]), 1.0
    if kind == "scale":
        return 0.0, float(step["value"])
    raise ModelError(f"{name}: value_scaling {kind} has no place in a card; z-score, min-max, offset and scale have")


def _classes(gives: Mapping[str, Any], name: str) -> JSON:
    listed = sorted(gives.get("classification:classes") or (), key=lambda one: one["value"])
    if [one["value"] for one in listed] != list(range(len(listed))) or not listed:
        raise ModelError(f"{name}: classification:classes are not numbered from 0 without a gap; tilepipe needs that")
    hints = [one.get("color_hint", one.get("color-hint")) for one in listed]
    colors = {"colors": [f"#{hint.lstrip('#').lower()}" for hint in hints]} if all(hints) else {}
    return {"classes": [one.get("title") or one.get("name") or str(one["value"]) for one in listed], **colors}


def _pixel_size(gsd: Any) -> JSON:
    if not isinstance(gsd, int | float) or isinstance(gsd, bool) or not math.isfinite(gsd) or gsd <= 0:
        return {}
    return {"resolution": float(f"{gsd * 1e6:.9g}"), "unit": "um"} if gsd < _FINE else {"resolution": gsd, "unit": "m"}
