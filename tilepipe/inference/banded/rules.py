"""Rules: which rows an operation keeps of its inputs, and which rows of its output it can give already.

Every rule sees the rows of its inputs once, from top to bottom, in pieces of any height. Rows are counted at the level
of the input, from the first row of the plane on. Tensors are (B, C, H, W); only H is cut.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name everyone uses

from tilepipe.inference.banded.rows import ROWS, Rows

Call = Callable[..., Tensor]
"""An operation on rows that lie in memory."""


class Rule(ABC):
    """One operation, and the rows that it keeps during one pass."""

    @abstractmethod
    def push(self, arrived: list[Tensor | None], last: bool) -> Tensor | None:
        """Take the next rows of each input (None: no rows), and return the next rows of the output, if there are any.

        `last` says that no further rows will come, so that all rows that remain are given.
        """


class Each(Rule):
    """An operation that makes each row from the same row of its inputs, such as an addition or an activation.

    It may make several rows of one. With more than one input it keeps the rows by which one is ahead of another.
    """

    def __init__(self, call: Call, inputs: int) -> None:
        """Take the operation and its number of inputs."""
        self.call, self.waiting = call, [Rows() for _ in range(inputs)]

    def push(self, arrived: list[Tensor | None], last: bool) -> Tensor | None:
        """Return the rows of which all inputs are there."""
        if len(arrived) == 1:
            return None if arrived[0] is None else self.call(arrived[0])
        for rows, new in zip(self.waiting, arrived, strict=True):
            rows.add(new)
        count = min(rows.end - rows.first for rows in self.waiting)
        return self.call(*(rows.take(count) for rows in self.waiting)) if count else None


@dataclass(frozen=True)
class KernelRows:
    """The input rows that a kernel covers for output row o: o * stride - padding + dilation * (0 .. kernel - 1)."""

    kernel: int
    """Rows of the kernel."""
    stride: int = 1
    """Input rows from one output row to the next."""
    padding: int = 0
    """Rows beyond each edge of the plane."""
    dilation: int = 1
    """Input rows from one row of the kernel to the next."""
    ceil: bool = False
    """Whether a last output row may see fewer rows, as poolings with `ceil_mode` do."""

    @property
    def extent(self) -> int:
        """Number of input rows from the first to the last one under an output row."""
        return self.dilation * (self.kernel - 1) + 1


class Kernel(Rule):
    """A convolution or a pooling. It keeps the input rows from the first one under its next output row on."""

    def __init__(self, call: Call, reach: KernelRows, fill: float = 0.0) -> None:
        """Take an operation that pads columns only, and the value of the rows beyond the plane."""
        self.call, self.reach, self.fill = call, reach, fill
        self.waiting, self.next = Rows(), 0

    def push(self, arrived: list[Tensor | None], last: bool) -> Tensor | None:
        """Return the output rows whose input rows are all there; at the end those that see rows beyond it too."""
        self.waiting.add(arrived[0])
        reach, end = self.reach, self.waiting.end
        seen = end + reach.padding * (2 if last else 1)  # rows below the first padded one, all of them known
        more = reach.stride - 1 if last and reach.ceil else 0
        stop = max(0, (seen - reach.extent + more) // reach.stride + 1)
        if more and (stop - 1) * reach.stride >= end + reach.padding:  # it would see no row of the plane
            stop -= 1
        if stop <= self.next:
            return None
        top = self.next * reach.stride - reach.padding
        bottom = (stop - 1) * reach.stride - reach.padding + reach.extent
        rows = self.waiting.between(max(top, 0), min(bottom, end))
        if top < 0 or bottom > end:
            rows = F.pad(rows, (0, 0, max(-top, 0), max(bottom - end, 0)), value=self.fill)
        self.next = stop
        result = self.call(rows)
        self.waiting.drop(max(0, min(stop * reach.stride - reach.padding, end)))
        return result


class Transposed(Rule):
    """A transposed convolution: input row i adds to output rows i * stride - padding + dilation * (0 .. kernel - 1)."""

    def __init__(self, call: Callable[[Tensor, int], Tensor], reach: KernelRows, extra: int) -> None:
        """Take an operation (rows, output padding) that crops columns only, and the plane's own output padding."""
        self.call, self.reach, self.extra = call, reach, extra
        self.waiting, self.next = Rows(), 0

    def push(self, arrived: list[Tensor | None], last: bool) -> Tensor | None:
        """Return the output rows that no later input row adds to."""
        self.waiting.add(arrived[0])
        reach, end = self.reach, self.waiting.end
        # Row `end` is the first that is not there. It adds to rows from here on, so these wait for it.
        stop = end * reach.stride - reach.padding
        if last:
            stop = (end - 1) * reach.stride - 2 * reach.padding + reach.extent + self.extra
        if stop <= self.next:
            return None
        above = min(self._above(self.next), end - 1)
        rows = self.waiting.between(above, end)
        made = self.call(rows, self.extra if last else 0)
        result = made.narrow(ROWS, self.next + reach.padding - above * reach.stride, stop - self.next)
        self.next = stop
        self.waiting.drop(min(self._above(stop), end - 1))
        return result

    def _above(self, row: int) -> int:
        """Return the first input row that adds to an output row."""
        reach = self.reach
        return max(0, -((reach.extent - 1 - row - reach.padding) // reach.stride))


class Bilinear(Rule):
    """Bilinear up-sampling by a whole factor, whose corners are not aligned."""

    def __init__(self, call: Call, factor: int) -> None:
        """Take the operation and its factor along the rows."""
        self.call, self.factor = call, factor
        self.waiting, self.next = Rows(), 0

    def push(self, arrived: list[Tensor | None], last: bool) -> Tensor | None:
        """Return the output rows that lie above the middle of the last input row; at the end all of them."""
        self.waiting.add(arrived[0])
        end, factor = self.waiting.end, self.factor
        # Output row r lies at (r + 1/2) / factor - 1/2 of the input, between two of its rows.
        stop = end * factor if last else max(0, end * factor - factor // 2)
        if stop <= self.next:
            return None
        above = self._above(self.next)
        # The operation repeats the edge rows of what it is given, which is right at the plane's own edges only; at
        # other edges these rows are cut off.
        made = self.call(self.waiting.between(above, end))
        result = made.narrow(ROWS, self.next - above * factor, stop - self.next)
        self.next = stop
        self.waiting.drop(min(self._above(stop), end))
        return result

    def _above(self, row: int) -> int:
        """Return the input row at or above the middle of an output row."""
        return max(0, (2 * row + 1 - self.factor) // (2 * self.factor))


class Padding(Rule):
    """Padding of the plane by rows that repeat or mirror its own, or by a value."""

    def __init__(self, columns: Call, before: int, after: int, how: tuple[str, float]) -> None:
        """Take the operation that pads columns, the rows before and after, and torch's padding mode with its value."""
        self.columns, self.before, self.after = columns, before, after
        self.mode, self.value = how
        self.waiting, self.given = Rows(), 0

    def push(self, arrived: list[Tensor | None], last: bool) -> Tensor | None:
        """Return padded rows as soon as the rows that they repeat are there."""
        self.waiting.add(arrived[0])
        end = self.waiting.end
        if end == 0 or not (self.given or last or end > self.before):
            return None
        parts = [self.waiting.between(self.given, end)] if end > self.given else []
        if not self.given and self.before:
            parts.insert(0, self._edge(range(self.before, 0, -1), 0))
        if last and self.after:
            parts.append(self._edge(range(end - 2, end - 2 - self.after, -1), end - 1))
        if not parts:
            return None
        self.given = end
        result = self.columns(torch.cat(parts, ROWS) if len(parts) > 1 else parts[0])
        # The end of the plane may mirror rows that were given long ago.
        self.waiting.drop(max(0, end - self.after - 1))
        return result

    def _edge(self, mirrored: range, nearest: int) -> Tensor:
        """Return the rows beyond an edge: those that lie as far inside, the nearest row again, or the value."""
        if self.mode == "reflect":
            return torch.cat([self.waiting.between(row, row + 1) for row in mirrored], ROWS)
        rows = self.waiting.between(nearest, nearest + 1).expand(-1, -1, len(mirrored), -1)
        return torch.full_like(rows, self.value) if self.mode == "constant" else rows
