"""Operations of torch as operators of ONNX. Each function adds one operation to a graph that is written.

Sizes of tiles are never written down, so a graph holds for tiles of any size. An operation that depends on the size of
the tile, or that has no entry in `OPERATORS`, is refused. Semantics: https://onnx.ai/onnx/operators (opset 20).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tilepipe.inference.banded.operation import Operation
from tilepipe.inference.runtimes.base import GraphError

END = (1 << 63) - 1
"""End of a slice that takes all that is there."""


class Into(Protocol):
    """The graph that is written."""

    def add(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Add an operator and return the name of its output."""

    def constant(self, values: NDArray[Any]) -> str:
        """Add a constant and return its name."""

    def value(self, given: Any) -> str:
        """Return the name of an argument of an operation: a node, a tensor or a number."""


Emit = Callable[[Into, Operation], str]


def _pair(value: Any) -> list[int]:
    values = [int(v) for v in (value if isinstance(value, list | tuple) else [value])]
    return [values[0], values[-1]]


def _twice(value: Any) -> list[int]:
    """Return padding as ONNX has it: rows and columns before, then rows and columns after."""
    return _pair(value) * 2


def _whole(into: Into, *values: int) -> str:
    return into.constant(np.array(values, np.int64))


def _convolution(into: Into, of: Operation) -> str:
    weight: Tensor = of["weight"]
    how: dict[str, Any] = {
        "strides": _pair(of["stride"]), "dilations": _pair(of["dilation"]), "group": int(of["groups"])
    }  # fmt: skip
    pads: dict[str, Any] = {}
    if of["padding"] == "same":
        spans = [d * (k - 1) for d, k in zip(how["dilations"], weight.shape[2:], strict=True)]
        # Where one side is padded more than the other, it is the end.
        pads["pads"] = [span // 2 for span in spans] + [span - span // 2 for span in spans]
    elif of["padding"] != "valid":
        pads["pads"] = _twice(of["padding"])
    inputs = [into.value(of["input"]), into.value(weight)]
    inputs += [into.value(of["bias"])] if of["bias"] is not None else []
    return into.add("Conv", inputs, kernel_shape=list(weight.shape[2:]), **how, **pads)


def _transposed(into: Into, of: Operation) -> str:
    weight: Tensor = of["weight"]
    inputs = [into.value(of["input"]), into.value(weight)]
    inputs += [into.value(of["bias"])] if of["bias"] is not None else []
    return into.add(
        "ConvTranspose", inputs, kernel_shape=list(weight.shape[2:]), strides=_pair(of["stride"]),
        dilations=_pair(of["dilation"]), group=int(of["groups"]), pads=_twice(of["padding"]),
        output_padding=_pair(of["output_padding"]),
    )  # fmt: skip


def _batch_norm(into: Into, of: Operation) -> str:
    if of.given.get("training"):
        raise GraphError("batch_norm with the statistics of the tile")
    mean, variance = of["running_mean"], of["running_var"]
    ones, zeros = np.ones(len(mean), np.float32), np.zeros(len(mean), np.float32)
    weight = into.constant(ones) if of["weight"] is None else into.value(of["weight"])
    bias = into.constant(zeros) if of["bias"] is None else into.value(of["bias"])
    inputs = [into.value(of["input"]), weight, bias, into.value(mean), into.value(variance)]
    return into.add("BatchNormalization", inputs, epsilon=float(of["eps"]))


def _max_pooling(into: Into, of: Operation) -> str:
    kernel = _pair(of["kernel_size"])
    return into.add(
        "MaxPool", [into.value(of["self"])], kernel_shape=kernel, strides=_pair(of["stride"] or kernel),
        pads=_twice(of["padding"]), dilations=_pair(of["dilation"]), ceil_mode=int(of["ceil_mode"]),
    )  # fmt: skip


def _mean_pooling(into: Into, of: Operation) -> str:
    kernel = _pair(of["kernel_size"])
    if of["ceil_mode"] or of["divisor_override"]:
        raise GraphError("avg_pool2d with ceil_mode or a divisor of its own")
    return into.add(
        "AveragePool", [into.value(of["self"])], kernel_shape=kernel, strides=_pair(of["stride"] or kernel),
        pads=_twice(of["padding"]), count_include_pad=int(of["count_include_pad"]),
    )  # fmt: skip


def _resizing(into: Into, of: Operation) -> str:
    factors = [after / before for after, before in zip(of.after[2:], of.before[2:], strict=True)]
    if any(factor % 1 for factor in factors) or of.given.get("align_corners"):
        raise GraphError(f"{of.name} with aligned corners or a factor that is no whole number")
    how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    if of.name == "upsample_bilinear2d":
        how = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    scales = into.constant(np.array([1, 1, *factors], np.float32))
    given = of.given.get("input", of.given.get("self"))
    return into.add("Resize", [into.value(given), "", scales], **how)


def _padding(into: Into, of: Operation) -> str:
    left, right, before, after = (*of["pad"], 0, 0, 0, 0)[:4]
    mode = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}.get(of.given.get("mode", "constant"))
    if mode is None or len(of["pad"]) > 4:
        raise GraphError(f"pad ({of.given.get('mode')}, {list(of['pad'])})")
    pads = _whole(into, 0, 0, before, left, 0, 0, after, right)
    value = into.constant(np.array(float(of.given.get("value") or 0.0), np.float32))
    return into.add("Pad", [into.value(of["self"]), pads, value], mode=mode)


def _cat(into: Into, of: Operation) -> str:
    return into.add("Concat", [into.value(one) for one in of["tensors"]], axis=int(of["dim"]))


def _slice(into: Into, of: Operation) -> str:
    dim = int(of["dim"])
    if of.name == "narrow":
        start, stop, step = int(of["start"]), int(of["start"]) + int(of["length"]), 1
    else:
        start, stop, step = int(of["start"] or 0), int(END if of["end"] is None else of["end"]), int(of["step"])
    places = [_whole(into, one) for one in (start, min(stop, END), dim, step)]
    return into.add("Slice", [into.value(of["self"]), *places])


def _softmax(into: Into, of: Operation) -> str:
    return into.add("LogSoftmax" if "log" in of.name else "Softmax", [into.value(of["self"])], axis=int(of["dim"]))


def _over_channels(into: Into, of: Operation) -> str:
    dims = of["dim"] if isinstance(of["dim"], list | tuple) else [of["dim"]]
    if any(dim not in (1, -3) for dim in dims):
        raise GraphError(f"{of.name} over rows or columns")
    kind = {"mean": "ReduceMean", "sum": "ReduceSum", "amax": "ReduceMax"}[of.name]
    return into.add(kind, [into.value(of["self"]), _whole(into, 1)], keepdims=int(of["keepdim"]))


def _pixel_shuffle(into: Into, of: Operation) -> str:
    return into.add("DepthToSpace", [into.value(of["self"])], blocksize=int(of["upscale_factor"]), mode="CRD")


def _plain(kind: str, **attributes: float) -> Emit:
    """Return what adds an operator of one input."""
    return lambda into, of: into.add(kind, [into.value(of.given.get("self", of.given.get("input")))], **attributes)


def _two(kind: str) -> Emit:
    """Return what adds an operator of two inputs; the second may be multiplied by `alpha` first."""

    def emit(into: Into, of: Operation) -> str:
        one, other = into.value(of["self"]), into.value(of["other"])
        if of.given.get("rounding_mode"):
            raise GraphError(f"{of.name} that rounds")
        if of.given.get("alpha", 1) != 1:
            other = into.add("Mul", [other, into.value(of["alpha"])])
        return into.add(kind, [one, other])

    return emit


def _clamp(into: Into, of: Operation) -> str:
    least, most = {"relu6": (0.0, 6.0), "hardtanh": (of.given.get("min_val"), of.given.get("max_val"))}.get(
        of.name, (of.given.get("min"), of.given.get("max"))
    )
    ends = ["" if end is None else into.value(end) for end in (least, most)]
    return into.add("Clip", [into.value(of["self"]), *ends])


def _leaky(into: Into, of: Operation) -> str:
    return into.add("LeakyRelu", [into.value(of["self"])], alpha=float(of["negative_slope"]))


def _elu(into: Into, of: Operation) -> str:
    if (of["scale"], of["input_scale"]) != (1, 1):
        raise GraphError("elu with a scale")
    return into.add("Elu", [into.value(of["self"])], alpha=float(of["alpha"]))


def _prelu(into: Into, of: Operation) -> str:
    weight: Tensor = of["weight"]
    return into.add("PRelu", [into.value(of["self"]), into.value(weight.reshape(-1, 1, 1))])


def _gelu(into: Into, of: Operation) -> str:
    return into.add("Gelu", [into.value(of["self"])], approximate=str(of["approximate"]))


def _silu(into: Into, of: Operation) -> str:
    x = into.value(of["self"])
    return into.add("Mul", [x, into.add("Sigmoid", [x])])


OPERATORS: dict[str, Emit] = {
    "conv2d": _convolution,
    "conv_transpose2d": _transposed,
    "batch_norm": _batch_norm,
    "_native_batch_norm_legit_no_training": _batch_norm,
    "max_pool2d": _max_pooling,
    "max_pool2d_with_indices": _max_pooling,
    "avg_pool2d": _mean_pooling,
    **dict.fromkeys(("upsample_nearest2d", "_upsample_nearest_exact2d", "upsample_bilinear2d"), _resizing),
    **dict.fromkeys(("pad", "constant_pad_nd"), _padding),
    "cat": _cat,
    **dict.fromkeys(("slice", "narrow"), _slice),
    **dict.fromkeys(("softmax", "_softmax", "log_softmax", "_log_softmax"), _softmax),
    **dict.fromkeys(("mean", "sum", "amax"), _over_channels),
    "pixel_shuffle": _pixel_shuffle,
    "add": _two("Add"), "sub": _two("Sub"), "mul": _two("Mul"), "div": _two("Div"),
    "maximum": _two("Max"), "minimum": _two("Min"),
    **dict.fromkeys(("clamp", "relu6", "hardtanh"), _clamp),
    "relu": _plain("Relu"), "sigmoid": _plain("Sigmoid"), "tanh": _plain("Tanh"), "neg": _plain("Neg"),
    "exp": _plain("Exp"), "log": _plain("Log"), "abs": _plain("Abs"), "sqrt": _plain("Sqrt"),
    "reciprocal": _plain("Reciprocal"), "mish": _plain("Mish"), "selu": _plain("Selu"),
    "hardswish": _plain("HardSwish"), "hardsigmoid": _plain("HardSigmoid", alpha=1 / 6, beta=0.5),
    "leaky_relu": _leaky, "elu": _elu, "prelu": _prelu, "gelu": _gelu, "silu": _silu,
}  # fmt: skip
"""What writes each operation."""
