"""A model card is written as a STAC item with the extension MLM (1.5), which `stac_mlm` reads. No torch is imported."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tilepipe.models.card import ModelCard
from tilepipe.models.stac_mlm import KEPT
from tilepipe.text import JSON

SCHEMAS = [f"https://stac-extensions.github.io/{name}/schema.json" for name in ("mlm/v1.5.0", "classification/v2.0.0")]
FIRST, LAST = "1900-01-01T00:00:00Z", "9999-12-31T23:59:59Z"
"""Time of a model that says nothing of the time of its images."""


def item_of(card: ModelCard, weights: str, parameters: int, geometry: JSON | None = None) -> JSON:
    """Return the item of a model of `parameters` values whose file `weights` lies beside the item."""
    stated = card.model_dump(mode="json", exclude_unset=True)
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", card.name).strip("-_.")
    names = [{"name": band} for band in card.band_names]
    free = {"dim_order": ["batch", "channel", "height", "width"], "data_type": "float32"}
    given: JSON = {
        "name": "tile", "bands": names,
        "input": {**free, "shape": [-1, card.bands, -1, -1]}, "resize_type": None, "pre_processing_function": None,
    }  # fmt: skip
    if card.mean or card.std:
        pairs = zip(card.mean or (0.0,) * card.bands, card.std or (1.0,) * card.bands, strict=True)
        given["value_scaling"] = [{"type": "z-score", "mean": mean, "stddev": std} for mean, std in pairs]
    gives: JSON = {
        "name": "scores", "tasks": ["semantic-segmentation"],
        "result": {**free, "shape": [-1, len(card.classes), -1, -1]},
        "classification:classes": list(_listed(card.classes, card.palette)), "post_processing_function": None,
    }  # fmt: skip
    kept = {key: stated[key] for key in (*KEPT, "dtype") if stated.get(key) is not None}
    properties: JSON = {
        "datetime": None, "start_datetime": FIRST, "end_datetime": LAST,
        "description": card.description or f"The model {card.name}.",
        "mlm:name": name if len(name) > 2 else f"model-{name}", "mlm:architecture": _architecture(card),
        "mlm:tasks": ["semantic-segmentation"], "mlm:framework": "ONNX" if weights.endswith(".onnx") else "PyTorch",
        "mlm:total_parameters": parameters, "mlm:input": [given], "mlm:output": [gives],
        **({"mlm:hyperparameters": kept} if kept else {}),
    }  # fmt: skip
    if card.resolution is not None:
        properties["gsd"] = card.resolution if card.unit == "m" else float(f"{card.resolution * 1e-6:.9g}")
    return {
        "type": "Feature", "stac_version": "1.1.0", "stac_extensions": SCHEMAS, "id": name or "model",
        "geometry": geometry, "properties": properties, "links": [],
        "assets": {
            "model": {
                "href": f"./{weights}", "type": "application/octet-stream", "title": card.name,
                "roles": ["mlm:model", "mlm:weights"], "mlm:artifact_type": weights.rpartition(".")[2],
            },
        },
    }  # fmt: skip


def _architecture(card: ModelCard) -> str:
    return str((card.arch or {}).get("name") or "encoder-decoder")


def _listed(classes: Sequence[str], palette: Sequence[tuple[int, int, int]]) -> list[JSON]:
    listed = []
    for value, (name, color) in enumerate(zip(classes, palette, strict=True)):
        plain = re.sub(r"[^0-9A-Za-z_-]+", "-", name).strip("-") or f"class-{value}"
        listed.append({"value": value, "name": plain, "title": name, "color_hint": "{:02X}{:02X}{:02X}".format(*color)})
    return listed
