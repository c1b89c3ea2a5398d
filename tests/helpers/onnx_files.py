"""ONNX files for tests: exported from torch, or made by hand."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from tilepipe.models.card import ModelCard

FREE = {0: "b", 2: "h", 3: "w"}


def export(module: nn.Module, path: Path, bands: int = 3, *, free: bool = True, side: int = 64, batch: int = 1) -> Path:
    """Write a module as ONNX, with free or fixed batch, height and width."""
    axes = {"x": FREE, "y": FREE} if free else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's remarks on this exporter
        torch.onnx.export(
            module.eval(), (torch.zeros(batch, bands, side, side),), str(path), dynamo=False,
            input_names=["x"], output_names=["y"], dynamic_axes=axes,
        )  # fmt: skip
    return path


def write_card(path: Path, **fields: Any) -> Path:
    """Write a card of 3 bands and 2 classes beside a file, with other fields."""
    card = ModelCard(**{"bands": 3, "classes": ["other", "thing"], **fields})
    path.with_suffix(".json").write_text(card.to_json())
    return path


def pointwise(last: str = "Identity", channels: int = 2, domain: str = "", dtype: int = TensorProto.FLOAT) -> Any:
    """Return a model whose scores are +-10 (x0 - x1) of a tile (B, 3, H, W), then `last`."""
    plus = np.array([10, -10, 0], np.float32)
    weight = np.stack([-plus, plus][-channels:])[..., None, None]
    nodes = [helper.make_node("Conv", ["x", "w"], ["s"]), helper.make_node(last, ["s"], ["y"], domain=domain)]
    if last == "Softmax":
        nodes[1] = helper.make_node(last, ["s"], ["y"], axis=1)
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", dtype, ["b", 3, "h", "w"])],
        [helper.make_tensor_value_info("y", dtype, ["b", channels, "h", "w"])],
        [numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def save(model: Any, path: Path) -> Path:
    """Write a model as it is."""
    path.write_bytes(model.SerializeToString())
    return path


def external(where: str) -> onnx.TensorProto:
    """Return a tensor whose data are said to lie in another file."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2, 3, 1, 1])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", where), ("offset", "0"), ("length", "24")):
        tensor.external_data.add(key=key, value=value)
    return tensor
