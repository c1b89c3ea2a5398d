"""This module writes the graph of a torch module as an ONNX file, in milliseconds and for tiles of any size.

torch's own exporter writes the same operators, but it needs a further package, takes about ten seconds of a processor
for a U-Net, and fixes the size of the tile.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from tilepipe.inference.banded.operation import operation_of
from tilepipe.inference.runtimes.base import GraphError
from tilepipe.inference.runtimes.onnx_ops import OPERATORS

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

OPSET, IR = 20, 10
"""Versions of ONNX: of the operators, and of the file."""
SAME = ("clone", "alias", "detach", "contiguous", "dropout", "lift_fresh_copy")
"""Operations that give what they are given."""


def onnx_file(module: nn.Module, examples: Sequence[Tensor]) -> bytes:
    """Return a module as an ONNX file with inputs in0, in1, ... and outputs out0, out1, ...; all are float32.

    The graph is taken from `examples`; batch, rows and columns are free. Raises `GraphError` that names an operation
    which cannot be written.
    """
    from onnx import TensorProto, helper

    graph = _exported(module, examples)
    writer = _Writer()
    sources = [node for node in graph.graph.nodes if node.op == "placeholder"]
    inputs = []
    for k, (node, example) in enumerate(zip(sources, examples, strict=True)):
        writer.names[node] = f"in{k}"
        free: list[str | int | None] = [f"in{k}_batch", example.shape[1], f"in{k}_rows", f"in{k}_columns"]
        inputs.append(helper.make_tensor_value_info(f"in{k}", TensorProto.FLOAT, free))
    for node in graph.graph.nodes:
        writer.write(graph, node)
    (last,) = (node for node in graph.graph.nodes if node.op == "output")
    outputs = []
    for k, result in enumerate(last.args[0]):
        writer.nodes.append(helper.make_node("Identity", [writer.value(result)], [f"out{k}"]))
        outputs.append(helper.make_tensor_value_info(f"out{k}", TensorProto.FLOAT, [None] * 4))
    made = helper.make_graph(writer.nodes, "network", inputs, outputs, writer.constants)
    writer.constants.clear()  # each of these calls copies the weights
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    made.Clear()
    return bytes(model.SerializeToString())


def _exported(module: nn.Module, examples: Sequence[Tensor]) -> GraphModule:
    try:
        with warnings.catch_warnings(), torch.inference_mode(mode=False), torch.no_grad():
            warnings.simplefilter("ignore")
            exported = torch.export.export(module, tuple(examples), strict=False).run_decompositions({})
            graph = exported.module()
    except Exception as problem:  # a stranger's module may do what cannot be exported
        raise GraphError(f"torch.export fails: {' '.join(str(problem).split())[:160]}") from problem
    assert isinstance(graph, GraphModule)
    return graph


class _Writer:
    """A graph that is written, operation by operation."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self.names: dict[Node, str] = {}
        """Names of what depends on the image."""
        self.known: dict[Node, object] = {}
        """Values that do not depend on the image."""

    def add(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Add an operator and return the name of its output."""
        from onnx import helper

        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, values: NDArray[Any]) -> str:
        """Add a constant and return its name."""
        from onnx import numpy_helper

        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def value(self, given: Any) -> str:
        """Return the name of an argument: what depends on the image, or a constant."""
        if isinstance(given, Node):
            return self.names[given] if given in self.names else self.value(self.known[given])
        if isinstance(given, Tensor):
            if not given.is_floating_point():
                raise GraphError("a constant that is no floating-point number")
            # `reshape` takes what `ascontiguousarray` does to a single number back.
            return self.constant(given.detach().cpu().float().numpy())
        return self.constant(np.array(float(given), np.float32))

    def write(self, graph: GraphModule, node: Node) -> None:
        """Write a node of the graph of torch."""
        if node.op == "get_attr":
            self.known[node] = _attribute(graph, str(node.target))
        if node.op != "call_function":
            return
        of_many = node.target is operator.getitem and isinstance(node.args[0], Node)
        if of_many and node.args[0] in self.known:
            self.known[node] = self.known[node.args[0]][node.args[1]]  # type: ignore[index]
        elif all(each in self.known for each in node.all_input_nodes):
            self.known[node] = operation_of(node, self.known).run()
        elif node.users and isinstance(node.meta.get("val"), Tensor):  # an operation of several results has no tensor
            self.names[node] = self._emitted(node)

    def _emitted(self, node: Node) -> str:
        of = operation_of(node, self.known)
        if node.meta["val"].dtype != torch.float32:
            raise GraphError(f"{of.name} gives {str(node.meta['val'].dtype).removeprefix('torch.')}")
        if of.name in (*SAME, "_to_copy"):
            return self.names[of.rows[0]]
        if of.name not in OPERATORS:
            raise GraphError(of.name)
        if any(isinstance(value, Tensor) and _has_size(value) for value in _arguments(of.name, of.given)):
            raise GraphError(f"{of.name} with a value that depends on the size of the tile")
        return OPERATORS[of.name](self, of)


def _arguments(name: str, given: Any) -> list[object]:
    """Return the arguments of an operation that may not be as large as a tile; kernels may."""
    kernels = (
        ("weight", "bias", "running_mean", "running_var") if "conv" in name or "norm" in name or name == "prelu" else ()
    )
    return [value for key, value in given.items() if key not in kernels]


def _has_size(value: Tensor) -> bool:
    return value.ndim > 0 and max(value.shape[-2:]) > 1


def _attribute(graph: GraphModule, path: str) -> object:
    value: object = graph
    for name in path.split("."):
        value = getattr(value, name)
    return value
