"""Subject: the probe's own copy of a model, called on the CPU, without gradients and with fixed shape rules."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tilepipe.errors import ModelError
from tilepipe.heap import give_back
from tilepipe.models.probe.double_convolution import ByTaps
from tilepipe.models.probe.result import ProbeError
from tilepipe.models.torch_calls import Call, Calls

Forward = Callable[[Tensor], Tensor]
LARGEST = 1 << 27  # values of an input; a model that would need more is not measured
HEAPS = 1 << 18  # values of an input, above which what its call leaves free in heaps counts
QUANTA = (96, 384)  # px; input sizes are multiples of 96 = 2^5 * 3, or of 384 = 2^7 * 3 for a model that refuses


class ZeroTaps(Calls):
    """Keeps NaN from passing through interpolation weights that are zero (odd factors): 0 * NaN is no influence."""

    def made(self, call: Call) -> object:
        """Make the call, and repair the output of `interpolate` if its input holds NaN."""
        out = call()
        resize = nn.functional.interpolate
        if call.function is not resize or not torch.is_tensor(call.arguments[0]) or not out.isnan().any():
            return out
        image, *rest = call.arguments
        weight = resize(image.isnan().double(), *rest, **call.keywords).abs()
        return torch.where(weight > 1e-6, torch.nan, resize(image.nan_to_num(0.0), *rest, **call.keywords))


@dataclass(frozen=True)
class Subject:
    """A model under the probe: `subject(x)` maps (B, bands, H, W) to (B, K, H, W), H and W multiples of `quantum`."""

    forward: Forward
    """The model in fp32; a private copy if the model is a module."""
    forward64: Forward | None
    """The model in fp64; None if the model does not take fp64."""
    black_box: bool
    """Whether the model is a plain callable without layers that have names."""
    bands: int
    """Number of bands of the input."""
    quantum: int
    """Number of pixels that height and width of inputs are multiples of."""
    mode: Callable[[], TorchFunctionMode] | None = None
    """Function that makes the function mode for every call, e.g. to hold statistics fixed."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return the model's output, which has the height and width of `x`. Raises `ModelError` for any other shape."""
        forward = self.forward64 if x.dtype == torch.float64 and self.forward64 else self.forward
        with _quiet(self.mode):
            y = _checked(forward(x.clone()), x)  # a network may change its input in place
        if x.numel() > HEAPS:  # strips differ in size, so heaps would keep more and more of what was freed
            give_back()
        return y

    def under(self, mode: Callable[[], TorchFunctionMode]) -> Subject:
        """Return the same subject with every call under a new function mode."""
        return replace(self, mode=mode)

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """The copies whose layers can be named; empty for a black box."""
        both = () if self.black_box else (self.forward, self.forward64)
        return tuple(forward for forward in both if isinstance(forward, nn.Module))

    @property
    def dtype(self) -> torch.dtype:
        """Most precise type that the model takes."""
        return torch.float64 if self.forward64 else torch.float32

    def noise(self, rows: int, columns: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
        """Return (1, bands, rows, columns) of blotches plus noise, unlike a constant on every scale."""
        generator = torch.Generator().manual_seed(seed)
        image = torch.randn((1, self.bands, rows, columns), generator=generator)
        for cell in (6, 24):
            coarse = torch.randn((1, self.bands, -(-rows // cell), -(-columns // cell)), generator=generator)
            image += nn.functional.interpolate(coarse, scale_factor=cell)[..., :rows, :columns]
        return image.to(dtype)


def adopt(model: object, bands: int, declared: int | None) -> Subject:
    """Make a subject of a module, a `Model` (its `module`) or any callable from tensor to tensor.

    Raises `ProbeError` if the model takes no inputs whose sizes are multiples of 96 or 384 (and `declared`).
    """
    module = model if isinstance(model, nn.Module) else getattr(model, "module", None)
    if getattr(module, "output", None) == "labels":
        raise ProbeError("it gives labels and no scores, which hide how far it sees")
    opaque = isinstance(module, torch.jit.ScriptModule) or getattr(module, "opaque", False)
    if isinstance(module, nn.Module) and not opaque:
        module = copy.deepcopy(module).to("cpu", torch.float32)
        subject = Subject(module, copy.deepcopy(module).double(), False, bands, 0)
    else:
        called = cast(Forward, model if module is None else module)
        subject = Subject(called, called, True, bands, 0)
    problem = ""
    cell: int | None = getattr(module, "cell", None)
    for base in QUANTA if cell is None else (cell,):
        quantum = math.lcm(base, declared or 1)
        if quantum * quantum * bands > LARGEST:
            raise ProbeError(f"inputs of {quantum} px and {bands} bands are too large to measure it with")
        try:
            sized = replace(subject, quantum=quantum)
            y = sized(sized.noise(quantum, quantum))
        except ModelError as error:
            problem = str(error)
        except Exception as error:  # an unknown model may raise anything
            problem = f"the model fails on a {quantum} x {quantum} input: {_first_line(error)}"
        else:
            _refuse_damaged(y)
            return replace(sized, forward64=subject.forward64 if _takes_fp64(sized) else None)
    raise ProbeError(f"{problem}. Declare the model's total stride if its sizes must be multiples of another number.")


def _takes_fp64(subject: Subject) -> bool:
    try:
        return subject(subject.noise(subject.quantum, subject.quantum, torch.float64)).dtype == torch.float64
    except Exception:  # a model that insists on fp32 may raise anything
        return False


@contextmanager
def _quiet(mode: Callable[[], TorchFunctionMode] | None) -> Iterator[None]:
    # NNPACK's Winograd and FFT kernels would spread NaN beyond what a convolution reads.
    with torch.no_grad(), torch.backends.nnpack.flags(enabled=False), ZeroTaps(), ByTaps():
        if mode is None:
            yield
        else:
            with mode():
                yield


def _checked(y: object, x: Tensor) -> Tensor:
    if not torch.is_tensor(y):
        raise ModelError(f"the model returns {type(y).__name__}, not a tensor of logits; wrap it to return one tensor")
    if y.ndim != 4 or y.shape[0] != x.shape[0] or y.shape[2:] != x.shape[2:]:
        raise ModelError(
            f"the model gives {tuple(y.shape)} for {tuple(x.shape)}, "
            "not (B, classes, H, W) with the same height and width"
        )
    return y


def _refuse_damaged(y: Tensor) -> None:
    if not torch.isfinite(y).all():
        raise ProbeError("the model gives NaN or infinity for an ordinary image; its weights or scaling are damaged")


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}".rstrip(": ")
