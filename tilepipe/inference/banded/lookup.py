"""Lookup: finds the rule of an operation, or says that it has none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name everyone uses

from tilepipe.inference.banded.held import NAME, Held
from tilepipe.inference.banded.operation import Operation
from tilepipe.inference.banded.rules import Bilinear, Each, Kernel, KernelRows, Padding, Rule, Transposed
from tilepipe.inference.statistics.operations import Operation as Statistical

Make = Callable[[], Rule]
"""Makes the rule of an operation for one pass."""

SAME_ROW = {
    *("relu", "relu6", "sigmoid", "tanh", "silu", "gelu", "hardtanh", "hardswish", "hardsigmoid", "leaky_relu", "elu"),
    *("selu", "celu", "softplus", "mish", "prelu", "neg", "exp", "log", "log1p", "abs", "sqrt", "rsqrt", "reciprocal"),
    *("clamp", "clamp_min", "clamp_max", "pow", "add", "sub", "rsub", "mul", "div", "maximum", "minimum", "where"),
    *("batch_norm", "_native_batch_norm_legit_no_training", "_to_copy", "pixel_shuffle"),
}
"""Operations that make each row of their result, or several rows, from one row."""
OVER_CHANNELS = ("softmax", "_softmax", "log_softmax", "_log_softmax", "cat", "mean", "sum", "amax", "slice", "select")
"""Operations that make each pixel from the values of the same pixel if their dimension is that of the channels."""
CHANNELS = 1


class NotBandedError(Exception):
    """An operation has no rule; the message names it."""


def rule_of(of: Operation) -> Make:
    """Return what makes the rule of an operation. Raises `NotBandedError` if it has none."""
    special = RULES.get(of.name)
    if of.name == NAME:
        return _held(of)
    if of.name == "relu" and of.fresh:
        return lambda: Each(torch.relu_, 1)
    if special is not None:
        return special(of)
    if of.name in OVER_CHANNELS and not _over_channels(of):
        raise NotBandedError(f"{of.name} over rows or columns")
    if of.name in SAME_ROW or of.name in OVER_CHANNELS:
        if any(_changes_by_row(value) for value in of.given.values()):
            raise NotBandedError(f"{of.name} with values that differ from row to row")
        return lambda: Each(of.run, len(of.rows))
    raise NotBandedError(of.name)


def _held(of: Operation) -> Make:
    names = ("groups", "weight", "bias", "eps")
    settings = {name: of[name] for name in names}
    return lambda: Held(lambda x: Statistical(x, **settings), of["first"])


def _over_channels(of: Operation) -> bool:
    if of.name == "cat" and len(of.rows) < 2:
        return False
    if of.name == "slice" and of.before == of.after:  # the whole of any dimension
        return True
    dims = of.given.get("dim", 0)
    return all(dim in (CHANNELS, CHANNELS - 4) for dim in (dims if isinstance(dims, list | tuple) else [dims])) and (
        of.name != "select" and len(of.after) == 4
    )


def _changes_by_row(value: object) -> bool:
    return isinstance(value, Tensor) and value.ndim > 1 and value.shape[-2] > 1


def _pair(value: Any) -> tuple[int, int]:
    """Return (rows, columns) of a setting that may be one number for both."""
    values = [int(v) for v in (value if isinstance(value, list | tuple) else [value])]
    return values[0], values[-1]


def _convolution(of: Operation) -> Make:
    stride, dilation = _pair(of["stride"]), _pair(of["dilation"])
    weight: Tensor = of["weight"].contiguous(memory_format=torch.channels_last)
    kernel = (weight.shape[2], weight.shape[3])
    if isinstance(of["padding"], str):
        extents = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        if of["padding"] == "same" and any(extent % 2 for extent in extents):
            raise NotBandedError("conv2d that pads one side more than the other")
        padding = (extents[0] // 2, extents[1] // 2) if of["padding"] == "same" else (0, 0)
    else:
        padding = _pair(of["padding"])
    across = (0, padding[1])

    def call(x: Tensor) -> Tensor:
        return torch.conv2d(x, weight, of["bias"], stride, across, dilation, of["groups"])

    reach = KernelRows(kernel[0], stride[0], padding[0], dilation[0])
    return lambda: Kernel(call, reach)


def _unpooling(of: Operation) -> Make:
    rows, columns = of.after[2] // of.before[2], of.after[3] // of.before[3]

    def call(x: Tensor, below: Tensor) -> Tensor:
        """Put each value of x at its place; an index of `below` counts from the first row that its value may lie in."""
        batch, channels, height, width = x.shape
        base = torch.arange(height, device=x.device)[:, None] * (rows * columns * width)
        flat = x.new_zeros(batch, channels, rows * columns * height * width)
        flat = flat.scatter(2, (below + base).flatten(2), x.flatten(2))
        return flat.reshape(batch, channels, rows * height, columns * width)

    return lambda: Each(call, 2)


def _indices(of: Operation) -> Make:
    kernel, stride = _pair(of["kernel_size"]), _pair(of["stride"] or of["kernel_size"])
    if kernel != stride or _pair(of["padding"]) != (0, 0) or _pair(of["dilation"]) != (1, 1) or of["ceil_mode"]:
        raise NotBandedError("indices of a max_pool2d whose kernels do not lie side by side")

    def call(x: Tensor) -> Tensor:
        _, indices = F.max_pool2d(x, kernel, return_indices=True)
        base = torch.arange(indices.shape[2], device=x.device)[:, None] * (kernel[0] * x.shape[3])
        # They count from the first row under their own kernel, so that they stay right in a piece of any height.
        return indices - base

    return lambda: Kernel(call, KernelRows(kernel[0], kernel[0]))


def _transposed(of: Operation) -> Make:
    stride, dilation, padding = _pair(of["stride"]), _pair(of["dilation"]), _pair(of["padding"])
    extra = _pair(of["output_padding"])
    weight: Tensor = of["weight"].contiguous(memory_format=torch.channels_last)
    reach = KernelRows(weight.shape[2], stride[0], padding[0], dilation[0])
    if reach.extent < reach.stride:
        raise NotBandedError("conv_transpose2d whose kernel is smaller than its stride")

    def call(x: Tensor, more: int) -> Tensor:
        outside = (more, extra[1])
        return torch.conv_transpose2d(x, weight, of["bias"], stride, (0, padding[1]), outside, of["groups"], dilation)

    return lambda: Transposed(call, reach, extra[0])


def _max_pooling(of: Operation) -> Make:
    kernel, padding, dilation = _pair(of["kernel_size"]), _pair(of["padding"]), _pair(of["dilation"])
    stride, ceil = _pair(of["stride"] or kernel), bool(of["ceil_mode"])

    def call(x: Tensor) -> Tensor:
        return F.max_pool2d(x, kernel, stride, (0, padding[1]), dilation, ceil)

    reach = KernelRows(kernel[0], stride[0], padding[0], dilation[0], ceil)
    return lambda: Kernel(call, reach, float("-inf"))


def _mean_pooling(of: Operation) -> Make:
    kernel, padding = _pair(of["kernel_size"]), _pair(of["padding"])
    stride = _pair(of["stride"] or kernel)
    if of["ceil_mode"] or (padding[0] and not of["count_include_pad"]):
        raise NotBandedError("avg_pool2d with ceil_mode or without its padding in the mean")

    def call(x: Tensor) -> Tensor:
        across = (0, padding[1])
        return F.avg_pool2d(x, kernel, stride, across, False, of["count_include_pad"], of["divisor_override"])

    return lambda: Kernel(call, KernelRows(kernel[0], stride[0], padding[0]))


def _resizing(of: Operation) -> Make:
    (height, width), (rows, columns) = of.before[2:], of.after[2:]
    factors = rows // height, columns // width
    if (height * factors[0], width * factors[1]) != (rows, columns) or of.given.get("align_corners"):
        how = "aligned corners" if of.given.get("align_corners") else "a factor that is no whole number"
        raise NotBandedError(f"{of.name} with {how}")
    mode = {"upsample_nearest2d": "nearest", "_upsample_nearest_exact2d": "nearest-exact"}.get(of.name, "bilinear")

    def call(x: Tensor) -> Tensor:
        scale = [float(f) for f in factors]
        corners = False if mode == "bilinear" else None
        return F.interpolate(x, scale_factor=scale, mode=mode, align_corners=corners)

    return (lambda: Bilinear(call, factors[0])) if mode == "bilinear" else (lambda: Each(call, 1))


def _padding(of: Operation) -> Make:
    left, right, before, after = (*of["pad"], 0, 0, 0, 0)[:4]
    mode = of.given.get("mode", "constant")
    if mode not in ("constant", "reflect", "replicate") or len(of["pad"]) > 4 or min(before, after, left, right) < 0:
        raise NotBandedError(f"pad ({mode}, {list(of['pad'])})")
    value = float(of.given.get("value") or 0.0)

    def call(x: Tensor) -> Tensor:
        if not (left or right):
            return x
        filling = {"value": value} if mode == "constant" else {}
        return F.pad(x, (left, right, 0, 0), mode, **filling)

    return lambda: Padding(call, before, after, (mode, value))


RULES: dict[str, Callable[[Operation], Make]] = {
    "conv2d": _convolution,
    "conv_transpose2d": _transposed,
    "max_pool2d": _max_pooling,
    "max_pool2d_with_indices": _max_pooling,
    "max_pool2d_with_indices[1]": _indices,
    "max_unpool2d": _unpooling,
    "avg_pool2d": _mean_pooling,
    "upsample_nearest2d": _resizing,
    "_upsample_nearest_exact2d": _resizing,
    "upsample_bilinear2d": _resizing,
    "pad": _padding,
    "constant_pad_nd": _padding,
}
"""Rules of operations that see other rows than their own."""
