"""Limits of ONNX files: loops must end and tensors must fit; both are checked before anything is allocated.

Sizes come from ONNX's own shape inference, for one small tile. Nothing in the file is run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from tilepipe.errors import ModelError

if TYPE_CHECKING:
    from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto

    Scope: TypeAlias = GraphProto | FunctionProto

MAX_TRIPS = 10_000
"""Largest number of passes through a loop, or through all loops that lie within each other."""
MAX_VALUES = 1 << 28
"""Largest number of values of one tensor, for a tile of `SIDE` pixels per side."""
MAX_NODES = 200_000
"""Largest number of operators; the operators of a function are counted at every call."""
SIDE = 96
_GROWING = ("Concat", "Tile", "Expand", "Pad", "Resize", "Upsample", "ConstantOfShape", "SequenceInsert")
_SMALL = 1024  # a constant with more values is no shape


def refuse_endless(model: ModelProto, path: Path) -> None:
    """Raise `ModelError` for loops without a small constant number of passes, and for too many operators."""
    functions = {(function.domain, function.name): function for function in model.functions}
    for scope in (model.graph, *model.functions):
        _loops(scope, {}, 1, path)
    counts: dict[tuple[str, str], int] = {}
    if (count := _count(model.graph.node, functions, counts)) > MAX_NODES:
        raise ModelError(f"{path} has {count} operators, at most {MAX_NODES} are run; export a smaller network")


def refuse_huge(model: ModelProto, path: Path, bands: int | None, *, last: bool) -> None:
    """Raise `ModelError` for tensors with more than `MAX_VALUES` values, stored, made or computed for a small tile.

    `last` says that the bands are the input's last axis.
    """
    import onnx

    size = model.ByteSize()
    for tensor in _constants(model.graph):
        # The smallest numbers have 4 bits, two to a byte: a file cannot hold more values than this.
        if math.prod(tensor.dims) > 2 * size:
            raise _too_large(path, tensor.name, tensor.dims)
    small = onnx.ModelProto()
    small.CopyFrom(model)
    for tensor in _constants(small.graph):
        # Weights decide no shape. Without them the copy is small, and inference is quick.
        if math.prod(tensor.dims) > _SMALL:
            for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
                tensor.ClearField(field)
    del small.graph.value_info[:]  # what the file declares may be wrong
    for value in small.graph.output:
        value.type.tensor_type.ClearField("shape")
    held = {tensor.name for tensor in small.graph.initializer}
    image = next(value for value in small.graph.input if value.name not in held)
    wanted = (1, SIDE, SIDE, bands) if last else (1, bands, SIDE, SIDE)
    for dim, number in zip(image.type.tensor_type.shape.dim, wanted, strict=True):
        if number and not (dim.HasField("dim_value") and dim.dim_value > 0):
            dim.dim_value = number
    try:
        inferred = onnx.shape_inference.infer_shapes(small, data_prop=True)
    except Exception:  # onnx's errors have no common base; shapes that cannot be inferred are not judged here
        return
    for value in (*inferred.graph.value_info, *inferred.graph.output):
        dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if dims and math.prod(max(1, dim) for dim in dims) > MAX_VALUES:
            raise _too_large(path, value.name, dims)


def _too_large(path: Path, name: str, dims: Iterable[int]) -> ModelError:
    shape = " x ".join(map(str, dims))
    return ModelError(
        f"{path} is refused: its tensor {name[:80]!r} would have {shape} values, at most {MAX_VALUES} are taken for a "
        f"tile of {SIDE} px"
    )


def _loops(scope: Scope, outer: Mapping[str, int], trips: int, path: Path) -> None:
    """Check the loops of a graph or function; `outer` holds the integers known around it, `trips` counts its passes."""
    known = {**outer, **_numbers(scope)}
    for node in scope.node:
        own = trips
        if node.op_type == "Loop":
            own = trips * _passes(known.get(node.input[0]) if node.input else None, path, "Loop")
            body = next(attribute.g for attribute in node.attribute if attribute.name == "body")
            if growing := next((one.op_type for one in body.node if one.op_type in _GROWING), None):
                raise ModelError(
                    f"{path} has {growing} inside a Loop, whose size could grow without end; unroll the loop"
                )
        elif node.op_type == "Scan":
            own = trips * _passes(_scanned(scope, node), path, "Scan")
        if own > MAX_TRIPS:
            raise ModelError(f"{path} has loops of {own} passes, at most {MAX_TRIPS} are run; export it without loops")
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                if graph.node:
                    _loops(graph, known, own, path)


def _passes(count: int | None, path: Path, kind: str) -> int:
    if count is None:
        raise ModelError(
            f"{path} has a {kind} whose number of passes is no constant: it might never end; export the network "
            "without loops (torch.onnx.export unrolls them when it traces)"
        )
    return max(1, count)


def _scanned(scope: Scope, node: NodeProto) -> int | None:
    """Return the largest size of the axis that a Scan goes through; None if the file does not say it."""
    inner = next((a.i for a in node.attribute if a.name == "num_scan_inputs"), 0)
    names = list(node.input)[len(node.input) - inner :]
    shapes = {tensor.name: list(tensor.dims) for tensor in getattr(scope, "initializer", ())}
    for value in (*getattr(scope, "value_info", ()), *(v for v in scope.input if not isinstance(v, str))):
        shapes.setdefault(value.name, [dim.dim_value for dim in value.type.tensor_type.shape.dim])
    found = [max(shapes.get(name) or [0]) for name in names]
    return max(found) if found and all(found) else None


def _numbers(scope: Scope) -> dict[str, int]:
    """Return the constants of a graph or function that are single whole numbers, by name."""
    from onnx import numpy_helper

    named = [(tensor.name, tensor) for tensor in getattr(scope, "initializer", ())]
    for node in scope.node:
        if node.op_type == "Constant":
            named += [(node.output[0], a.t) for a in node.attribute if a.name == "value"]
    # ONNX counts the passes of a loop in int64, which is type 7.
    found = {
        n: int(numpy_helper.to_array(t).reshape(-1)[0]) for n, t in named if math.prod(t.dims) == 1 and t.data_type == 7
    }
    whole = [(node.output[0], a.i) for node in scope.node for a in node.attribute if a.name == "value_int"]
    return found | dict(whole)


def _count(
    nodes: Iterable[NodeProto], functions: Mapping[tuple[str, str], FunctionProto], counts: dict[tuple[str, str], int]
) -> int:
    total = 0
    for node in nodes:
        total += 1
        key = (node.domain, node.op_type)
        if key in functions:
            if key not in counts:
                counts[key] = MAX_NODES + 1  # a function that calls itself is refused
                counts[key] = _count(functions[key].node, functions, counts)
            total += counts[key]
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                total += _count(graph.node, functions, counts)
        if total > MAX_NODES:
            return total
    return total


def _constants(graph: GraphProto) -> Iterable[TensorProto]:
    """Yield the tensors that a graph and its branches hold."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    yield from _constants(inner)
