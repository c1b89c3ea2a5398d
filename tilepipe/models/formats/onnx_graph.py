"""ONNX files are read as data: this module refuses unsafe files and reads input, output and metadata.

Only single files of standard operators are read: paths of tensors in other files have often led outside the folder
(CVE-2022-25882, CVE-2024-27318, CVE-2026-27489, CVE-2026-34446, CVE-2026-34447).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tilepipe.errors import ModelError
from tilepipe.models.card import ModelCard
from tilepipe.models.formats.onnx_limits import refuse_endless, refuse_huge
from tilepipe.models.formats.opaque import first_line, missing_extra
from tilepipe.models.output import NAMES

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from onnx import GraphProto, ModelProto, ValueInfoProto

DOMAINS = ("", "ai.onnx", "ai.onnx.ml")
_FLOATS = {1: "float32", 10: "float16", 11: "float64"}  # TensorProto.DataType
_WHOLE = {2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool"}
_SHARES = ("Softmax", "Sigmoid", "HardSigmoid")
_PASS_ON = ("Identity", "Cast", "Transpose", "Clip", "Squeeze", "Unsqueeze", "Reshape", "Resize", "Slice", "Upsample")


@dataclass(frozen=True)
class Graph:
    """What an ONNX file says about itself; free sizes are None."""

    bands: int | None
    """Number of channels of the input."""
    height: int | None
    """Number of rows of the input."""
    width: int | None
    """Number of columns of the input."""
    channels: int | None
    """Number of channels of the output; None also if the output has no such axis."""
    chosen: str
    """Name of the output that holds the scores."""
    last: tuple[bool, bool]
    """Whether channels are the last axis (NHWC): of the input, and of the output."""
    shares: bool
    """Whether the last operator is a softmax or sigmoid, so that the output holds probabilities."""
    softmax: bool
    """Whether it is a softmax, so that the probabilities of all classes sum to 1."""
    metadata: Mapping[str, str]
    """Metadata of the file, by key."""


def read_graph(data: bytes, path: Path, card: ModelCard | None = None) -> Graph:
    """Return what a file says; `card` helps to tell channels from rows, and one output from another.

    Raises `ModelError` if the file is damaged, not self-contained, endless, too large or no segmentation.
    """
    try:
        import onnx
    except ImportError as error:
        raise missing_extra("onnx", "onnx", error) from None
    try:
        # From bytes and not from the path: `onnx.load` would read the other files that a tensor may name.
        model = onnx.load_model_from_string(data)
        _refuse_outside(model, path)
        refuse_endless(model, path)
        onnx.checker.check_model(model)
    except ModelError:
        raise
    except Exception as error:  # protobuf and the checker have errors of their own
        raise ModelError(
            f"{path} is not a valid ONNX file: {first_line(error)}; export, copy or download it again"
        ) from None
    held = {tensor.name for tensor in model.graph.initializer}
    inputs, outputs = [i for i in model.graph.input if i.name not in held], list(model.graph.output)
    if len(inputs) != 1 or not outputs:
        raise ModelError(
            f"{path} has {len(inputs)} inputs and {len(outputs)} outputs; export it with one image in and one map out"
        )
    output = _chosen(outputs, card, path)
    given, wanted = _shape(inputs[0], path, "input"), _shape(output, path, "output")
    last = _is_last(given, (card.bands,) if card else ()), _is_last(wanted, (len(card.classes), 1) if card else ())
    if card is not None and card.layout is not None:
        last = (card.layout == "NHWC",) * 2
    bands, height, width = (given[3], given[1], given[2]) if last[0] else given[1:]
    refuse_huge(model, path, bands or (card.bands if card else None), last=last[0])
    words = {entry.key: entry.value for entry in model.metadata_props}
    channels = None if len(wanted) == 3 else wanted[3 if last[1] else 1]
    end = _end(model.graph, output.name)
    shares, softmax = end in _SHARES, end == "Softmax"
    return Graph(bands, height, width, channels, output.name, last, shares, softmax, words)


def _refuse_outside(model: ModelProto, path: Path) -> None:
    own = {(function.domain, function.name) for function in model.functions}
    for message in _walk(model):
        kind = message.DESCRIPTOR.name
        if kind == "TensorProto" and (message.external_data or message.data_location == 1):
            raise ModelError(
                f"{path} keeps tensor {message.name!r} in another file, which is refused; save it as a single file "
                "(onnx.save_model with save_as_external_data=False)"
            )
        if kind == "SparseTensorProto":
            raise ModelError(f"{path} keeps a sparse tensor, which is refused; save it with dense weights")
        if kind == "NodeProto" and message.domain not in DOMAINS and (message.domain, message.op_type) not in own:
            raise ModelError(
                f"{path} uses the operator {message.domain}.{message.op_type}, which is not standard ONNX; export it "
                "with standard operators"
            )


def _walk(message: Message) -> Iterator[Message]:
    """Yield a message and all messages within it: tensors may lie deep in attributes, subgraphs and functions."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in [value] if hasattr(value, "ListFields") else value:
                yield from _walk(inner)


def _chosen(outputs: list[ValueInfoProto], card: ModelCard | None, path: Path) -> ValueInfoProto:
    """Return the output that the card names, the one called like scores, or the only one. Raises `ModelError`."""
    by_name = {output.name: output for output in outputs}
    if card is not None and isinstance(card.key, str):
        if card.key not in by_name:
            raise ModelError(f"{path} has no output {card.key!r}; its outputs are {', '.join(map(repr, by_name))}")
        return by_name[card.key]
    named = [name for name in NAMES if name in by_name]
    if len(outputs) > 1 and not named:
        raise ModelError(
            f"{path} has {len(outputs)} outputs ({', '.join(map(repr, by_name))}); name the one that holds the scores "
            f'in the card: "key": "{outputs[0].name}"'
        )
    return by_name[named[0]] if named else outputs[0]


def _is_last(dims: list[int | None], wanted: tuple[int, ...]) -> bool:
    """Return whether channels are the last axis: by their number, or if that is unknown, because they are few."""
    if len(dims) != 4 or dims[3] is None or dims[1] in (wanted or (1, 2, 3, 4)):
        return False
    return dims[3] in (wanted or (1, 2, 3, 4))


def _shape(value: ValueInfoProto, path: Path, what: str) -> list[int | None]:
    """Return the sizes of an input (four) or output (four, or three without channels); a free size is None."""
    tensor, given = value.type.tensor_type, what == "input"
    dims = [d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in tensor.shape.dim]
    types, axes = (_FLOATS, (4,)) if given else (_FLOATS | _WHOLE, (3, 4))
    if tensor.elem_type not in types or len(dims) not in axes:
        raise ModelError(
            f"{path}: its {what} {value.name!r} has {len(dims)} axes of ONNX type {tensor.elem_type}; tilepipe reads "
            f"(B, {'bands' if given else 'classes'}, H, W) of {', '.join(_FLOATS.values())}"
            f"{'' if given else ', or labels (B, H, W) of whole numbers'}"
        )
    return dims


def _end(graph: GraphProto, name: str) -> str:
    """Return the last operator before the output `name` that computes something; '' if there is none."""
    made_by = {out: node for node in graph.node for out in node.output}
    node = made_by.get(name)
    while node is not None and node.op_type in _PASS_ON:
        node = made_by.get(node.input[0])
    return "" if node is None else str(node.op_type)
