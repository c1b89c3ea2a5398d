"""Convolutions in double precision, for which torch has no quick way on a processor."""

from __future__ import annotations

import itertools

import torch
from torch import nn

from tilepipe.models.torch_calls import Call, Calls

_SETTINGS = ((3, "stride", 1), (4, "padding", 0), (5, "dilation", 1))


class ByTaps(Calls):
    """Computes convolutions in double precision as a sum of products, one for each tap of the kernel. torch unfolds
    their whole input otherwise, which takes more memory than everything else of a network, and is slower."""

    def made(self, call: Call) -> object:
        """Make the call, or add up the product of each tap's weights with the pixels that it reads."""
        x, weight = call.argument(0, "input"), call.argument(1, "weight")
        if call.name != "conv2d" or not torch.is_tensor(x) or x.dtype != torch.float64 or x.dim() != 4:
            return call()
        stride, padding, dilation = (call.argument(k, name, default) for k, name, default in _SETTINGS)
        if padding == "same":
            return call()
        pad, step, apart = (_pair(0 if value == "valid" else value) for value in (padding, stride, dilation))
        bias, groups = call.argument(2, "bias"), call.argument(6, "groups", 1)
        reach = [apart[k] * (weight.shape[2 + k] - 1) for k in (0, 1)]
        rows, columns = ((x.shape[2 + k] + 2 * pad[k] - reach[k] - 1) // step[k] + 1 for k in (0, 1))
        # Pixels that one tap may read are gathered once, and rows are kept whole: a tap reads one piece of memory, and
        # the result has columns to cut off. One row is added, as the last piece ends behind the image.
        height, width = rows + reach[0] // step[0] + 1, columns + reach[1] // step[1]
        below, right = (n * step[k] - x.shape[2 + k] - pad[k] for k, n in enumerate((height, width)))
        x = nn.functional.pad(x, (pad[1], right, pad[0], below))
        x = x.unflatten(3, (width, step[1])).unflatten(2, (height, step[0])).permute(3, 5, 0, 1, 2, 4)
        pixels = x.flatten(4).unflatten(3, (groups, -1))
        weights = weight.unflatten(0, (groups, -1))
        total = x.new_zeros((x.shape[2], groups, weights.shape[1], rows * width))
        for tap in itertools.product(*map(range, weight.shape[2:])):
            (row, down), (column, across) = (divmod(tap[k] * apart[k], step[k]) for k in (0, 1))
            read = pixels[down, across].narrow(3, row * width + column, rows * width)
            for image, out in zip(read, total, strict=True):
                out.baddbmm_(weights[..., *tap], image)
        y = total.view(len(total), -1, rows, width)[..., :columns]
        return y.contiguous() if bias is None else y + bias.view(-1, 1, 1)


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])
