"""Device: resolves the names of device and precision, and holds how a model runs.

torch is imported only if it may know of a GPU.
"""

from __future__ import annotations

import runpy
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tilepipe.errors import DeviceError, ModelError, UsageError
from tilepipe.text import setting

if TYPE_CHECKING:
    from tilepipe.models.model import Model

PRECISIONS = ("fp32", "tf32", "fp64", "bf16", "fp16")
_ONLY_ON_CUDA = ("tf32", "fp16")


def resolve_device(device: str) -> str:
    """Return 'cpu' or 'cuda:i' for 'auto', 'cpu', 'cuda' or 'cuda:i'.

    Raises `UsageError` if the name is not known, and `DeviceError` if the device is not there.
    """
    if device == "auto":
        return "cuda:0" if _count() else "cpu"
    if device == "cpu":
        return device
    index = device.removeprefix("cuda").removeprefix(":") or "0"
    if not device.startswith("cuda") or not index.isdigit():
        raise UsageError(f"device {device!r} is not known; use auto, cpu, cuda or cuda:0")
    if int(index) >= (found := _count()):
        raise DeviceError(f"device {device} is not there: {found} CUDA devices found; use {setting(device='cpu')}")
    return f"cuda:{index}"


def resolve_precision(precision: str, device: str, model: Model | None = None) -> str:
    """Return 'fp64', 'fp32', 'tf32', 'bf16' or 'fp16'; 'auto' is fp32, the best at its price.

    tf32 and fp16 exist on CUDA devices only. Raises `UsageError` for a precision that does not exist on the device.
    Raises `ModelError` for fp64 if torch cannot choose the arithmetic of `model`; the attribute `single` of its module
    says so.
    """
    if precision == "auto":
        return "fp32"
    if precision not in PRECISIONS or (precision in _ONLY_ON_CUDA and device == "cpu"):
        raise UsageError(f"precision {precision!r} is not available on {device}; use fp32, fp64 or bf16")
    if precision == "fp64" and model is not None and (kind := getattr(model.module, "single", "")):
        raise ModelError(f"precision fp64 is not available for {kind}; use fp32")
    return precision


def _count() -> int:
    """Return the number of CUDA devices."""
    # A torch that was built for the CPU alone is not imported to say 0: importing it takes seconds, and a plan needs it
    # for nothing else.
    if "torch" not in sys.modules and not _built_for_gpus():
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _built_for_gpus() -> bool:
    """Return whether torch was built for CUDA or ROCm, by its version file; True if the file does not say."""
    # Neither `find_spec` nor the version file imports torch.
    spec = find_spec("torch")
    try:
        said = runpy.run_path(str(Path(spec.origin).with_name("version.py"))) if spec and spec.origin else {}
    except OSError:
        said = {}
    return said.get("cuda", "?") is not None or said.get("hip", "?") is not None


@dataclass(frozen=True)
class Compute:
    """Where and how the model runs."""

    device: str = "cpu"
    """Device: 'cpu' or 'cuda:i'."""
    precision: str = "fp32"
    """Precision: 'fp64', 'fp32', 'tf32', 'bf16' or 'fp16'."""
    batch: int = 1
    """Number of tiles that the model sees at once."""
    workers: int = 0
    """Number of worker processes; 0 computes in this process."""
    runtime: str = "torch"
    """Runtime that computes the model, with its version: 'torch', or such as 'onnxruntime 1.32.0'."""

    @property
    def dtype(self) -> str:
        """Type of the model's input, weights and logits, and of statistics: 'float64' in fp64, else 'float32'."""
        return "float64" if self.precision == "fp64" else "float32"

    @property
    def itemsize(self) -> int:
        """Size of a number of `dtype` [bytes]."""
        return 8 if self.dtype == "float64" else 4

    @property
    def in_flight(self) -> int:
        """Number of blocks that are worked on at the same time."""
        # If this process computes, one block reads and writes while the other block computes.
        return self.workers or 2


def usual_batch(device: str) -> int:
    """Return the number of tiles that a model sees at once if nobody sets it."""
    return 1 if device == "cpu" else 8
