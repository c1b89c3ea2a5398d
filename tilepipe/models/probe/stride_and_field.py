"""Total stride and reach are measured on a model that is taken as a black box.

Stride: shifted inputs must give shifted outputs; they are compared in fp64 away from borders. Reach: half of a strip
becomes NaN (or other numbers); the reach is the distance of the farthest kept column that changes. Size: a longer strip
must have the same answer wherever both borders are far. Both axes are measured. Strips keep the time to seconds.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from time import process_time

import torch
from torch import Tensor

from tilepipe.box import Sides
from tilepipe.models.probe.subject import Subject

LARGEST_INPUT = 8192  # px; a model that reaches across half of this is called global
LARGEST_STRIDE = 384  # px; every power of two up to 128, and three times each, is tried
PATIENCE = 60.0  # s of processor time that one more doubling of the input may take, whatever else runs
LONGER = (1, 3, 10)  # quanta that a strip is made longer by, to see whether its size alone changes answers
TOLERANCES = {torch.float32: 1e-3, torch.float64: 1e-10}  # parts of an output's spread; fp32 cheaply says no first
AXES = (3, 2)  # columns, rows of (B, C, H, W)
Fill = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Measured:
    """Stride and reach of one subject; see `Probe` for what None means."""

    stride: int | None
    reach: Sides | None
    side: int
    """Length of the longest strip in pixels."""
    draws: int
    """Number of replacements that were tried per side."""
    note: str = ""
    """Reason why there is no reach or no stride; '' otherwise."""
    at_least: int | None = None
    """Lower bound of the reach in pixels if measuring it would have taken too long."""


def measure(subject: Subject, declared: int | None, many: bool) -> Measured:
    """Measure the stride, then the reach at cuts that are multiples of the stride.

    `many` adds finite draws, for models that may hide NaN.
    """
    rough, side = rough_reach(subject)
    stride = total_stride(subject, rough, declared)
    if rough is None:
        early = 2 * side <= LARGEST_INPUT
        least = side // 2 - subject.quantum
        note = f"every output within {least} px of a cut depends on it"
        note += "; wider inputs take too long to measure" if early else ""
        return Measured(stride, None, side, 1, note, least if early else None)
    if stride is None:
        return Measured(None, None, side, 1, "outputs depend on the position, whatever the shift up to 384 px")
    while True:
        sides, side, draws = reach(subject, stride, rough, many)
        if max(sides) + stride <= side // 2:
            if any(_grows(subject, axis, stride, sides) for axis in AXES):
                return Measured(stride, None, side, draws, "outputs depend on the size of the input")
            return Measured(stride, sides, side, draws)
        if side >= LARGEST_INPUT:
            return Measured(stride, None, side, draws, f"the reach grows with the input up to {side} px")
        rough = side


def rough_reach(subject: Subject) -> tuple[int | None, int]:
    """Return the reach over all sides (None if it has no bound) and the side of the input that it took.

    The side is doubled from 4 quanta on, and cuts lie at multiples of the quantum. The result is within one total
    stride of the true reach.
    """
    side, found = 4 * subject.quantum, 0
    while True:
        began = process_time()
        found = max(max(_both(subject, axis, subject.quantum, side // 2, _nan)) for axis in AXES)
        if found < side // 2 - subject.quantum:
            return found, side
        if 2 * side > LARGEST_INPUT or 2 * (process_time() - began) > PATIENCE:
            return None, side
        side *= 2


def reach(subject: Subject, stride: int, rough: int, many: bool) -> tuple[Sides, int, int]:
    """Return the largest reach per side over all draws, the strip's length and the number of draws.

    Draws differ in height, phase of the cut and in the values that replace the half plane: NaN, or strong noise.
    """
    quantum = math.lcm(subject.quantum, stride)
    half = -(-(rough + 2 * stride) // quantum) * quantum
    fills: list[tuple[int, int, Fill]] = [(1, 0, _nan), (2, stride, _nan), (1, 0, _noise(1e12, 1))]
    fills += [(1 + seed % 2, seed * stride, _noise(1e3, seed)) for seed in range(3)] if many else []
    sides = dict.fromkeys(AXES, (0, 0))
    for axis in AXES:
        for tall, moved, fill in fills:
            drawn = _both(subject, axis, tall * subject.quantum, half, fill, moved % half)
            sides[axis] = max(sides[axis][0], drawn[0]), max(sides[axis][1], drawn[1])
    (left, right), (top, bottom) = sides[3], sides[2]
    return Sides(top, bottom, left, right), 2 * half, len(fills)


def total_stride(subject: Subject, rough: int | None, declared: int | None) -> int | None:
    """Return the smallest multiple of `declared` by which shifts shift the output, in both axes; None if none does."""
    margin = 4 * subject.quantum - 64 if rough is None else rough
    divisors = {n for base in (LARGEST_STRIDE, declared or 1) for n in range(1, base + 1) if base % n == 0}
    small = sorted(n for n in divisors if n <= 64)
    large = sorted(n for n in divisors if n > 64)
    odd = [n for n in range(5, 65) if n not in divisors]
    stride = declared or 1  # this is tried first: if it holds, no smaller stride matters
    for axis in AXES:
        # Small strides come first: a strip is as long as its largest candidate asks for.
        found = _first_shift(subject, axis, margin, [stride, *small]) or _first_shift(subject, axis, margin, large)
        found = found or _first_shift(subject, axis, margin, odd)
        if not found:
            return None
        stride = math.lcm(stride, found)
    steps = range(stride, LARGEST_STRIDE + 1, stride) if rough is not None else (stride,)
    return next((s for s in steps if rough is None or _footprint_moves(subject, rough, s)), stride)


def _footprint_moves(subject: Subject, rough: int, shift: int) -> bool:
    """Return whether the lines that one NaN line spoils move by `shift` if the NaN line does.

    This says nothing about values, but it sees levels whose values are too weak, as in untrained deep networks.
    """
    half = -(-(rough + 2 * shift + 8) // subject.quantum) * subject.quantum

    def spoiled(axis: int, at: int) -> Tensor:
        x = subject.noise(*((subject.quantum, 2 * half) if axis == 3 else (2 * half, subject.quantum)))
        x.narrow(axis, at, 1).fill_(torch.nan)
        return subject(x).isnan().amax(dim=(0, 1, 5 - axis)).nonzero()

    pairs = ((spoiled(axis, half + phase), spoiled(axis, half + phase + shift)) for axis in AXES for phase in (0, 1))
    return all(torch.equal(before + shift, after) for before, after in pairs)


def _first_shift(subject: Subject, axis: int, margin: int, candidates: list[int]) -> int:
    """Return the first s with f(x[s : s + N]) equal to f(x[0 : N]) shifted by s, `margin` away from borders; 0 if none.

    fp32 is tried first, as it says no cheaply; then the model's best type. At least 64 columns are compared.
    """
    longest = max(candidates)
    side = -(-(2 * margin + longest + 64) // subject.quantum) * subject.quantum
    tolerances = TOLERANCES if subject.dtype == torch.float64 else {torch.float32: 2e-6}
    shape = (subject.quantum, side + longest) if axis == 3 else (side + longest, subject.quantum)

    image = subject.noise(*shape)

    def output(dtype: torch.dtype, shift: int) -> Tensor:
        return subject(image.narrow(axis, shift, side).to(dtype).contiguous()).double()

    def equal(shift: int, dtype: torch.dtype) -> bool:
        kept, y = side - 2 * margin - shift, base(dtype)
        gap = output(dtype, shift).narrow(axis, margin, kept) - y.narrow(axis, margin + shift, kept)
        return float(gap.abs().max()) <= tolerances[dtype] * (float(y.std()) + 1e-30)

    base = functools.cache(lambda dtype: output(dtype, 0))
    return next((s for s in candidates if all(equal(s, dtype) for dtype in tolerances)), 0)


def _grows(subject: Subject, axis: int, stride: int, sides: Sides) -> bool:
    """Return whether a longer strip has another answer at places where no border is within reach. Such a model resizes
    its input to a fixed size, or changes above a size. One more quantum is as much as the shortest strip keeps."""
    quantum = math.lcm(subject.quantum, stride)
    before, after = (sides.left, sides.right) if axis == 3 else (sides.top, sides.bottom)
    short = -(-(before + after + 1) // quantum) * quantum
    longest = short + max(LONGER) * quantum
    shape = (subject.quantum, longest) if axis == 3 else (longest, subject.quantum)
    kept = short - before - after

    def inner(x: Tensor, length: int) -> Tensor:
        return subject(x.narrow(axis, 0, length).contiguous()).narrow(axis, before, kept).double()

    # In single precision a strip of another length may be summed in another order, which rounds otherwise.
    tolerance = TOLERANCES[torch.float64] if subject.dtype == torch.float64 else 1e-4
    x = subject.noise(*shape, subject.dtype)
    y = inner(x, short)
    allowed = tolerance * (float(y.std(correction=0)) + 1e-30)
    return any(float((inner(x, short + more * quantum) - y).abs().max()) > allowed for more in LONGER)


def _both(subject: Subject, axis: int, rows: int, half: int, fill: Fill, moved: int = 0) -> tuple[int, int]:
    """Return how many kept lines change if the part (before, after) the cut at `half + moved` is replaced."""
    shape = (rows, 2 * half) if axis == 3 else (2 * half, rows)
    x = subject.noise(*shape, seed=moved + 1)
    y, cut = subject(x), half + moved
    counts = []
    for start, length in ((0, cut), (cut, 2 * half - cut)):
        changed = x.clone()
        part = changed.narrow(axis, start, length)
        part.copy_(fill(part))
        # NaN differs from every number, so what NaN reaches counts as changed.
        differs = (subject(changed) != y).amax(dim=(0, 1, 5 - axis)).nonzero()
        low, high = (int(differs.min()), int(differs.max())) if len(differs) else (cut, cut - 1)
        counts.append(max(0, high - cut + 1) if start == 0 else max(0, cut - low))
    return counts[0], counts[1]


def _nan(part: Tensor) -> Tensor:
    return torch.full_like(part, torch.nan)


def _noise(scale: float, seed: int) -> Fill:
    def fill(part: Tensor) -> Tensor:
        return scale * torch.randn(part.shape, generator=torch.Generator().manual_seed(seed), dtype=part.dtype)

    return fill
