"""Device: where and how a model runs, and what a run is asked for by name.

torch is imported only where it may know of a GPU.
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
    """Return 'cpu' or 'cuda:i' for 'auto', 'cpu', 'cuda' or 'cuda:i'. Raises `DeviceError` when it is not there."""
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

    tf32 and fp16 exist on CUDA devices only: `UsageError`. fp64 does not for a `model` whose arithmetic is not torch's
    to choose, whose module says so in its attribute `single`: `ModelError`.
    """
    if precision == "auto":
        return "fp32"
    if precision not in PRECISIONS or (precision in _ONLY_ON_CUDA and device == "cpu"):
        raise UsageError(f"precision {precision!r} is not available on {device}; use fp32, fp64 or bf16")
    if precision == "fp64" and model is not None and (kind := getattr(model.module, "single", "")):
        raise ModelError(f"precision fp64 is not available for {kind}; use fp32")
    return precision


def _count() -> int:
    """Return the number of CUDA devices. A torch that was built for the CPU alone is not imported to say 0."""
    if "torch" not in sys.modules and not _built_for_gpus():
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _built_for_gpus() -> bool:
    """Return what torch's version file says of CUDA and ROCm; True where it says nothing."""
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
    """'cpu' or 'cuda:i'."""
    precision: str = "fp32"
    """'fp64', 'fp32', 'tf32', 'bf16' or 'fp16'."""
    batch: int = 1
    """Tiles that the model sees at once."""
    workers: int = 0
    """Worker processes; 0 computes in this process."""

    @property
    def dtype(self) -> str:
        """Type of the model's input, weights and logits, and of statistics: 'float64' in fp64, else 'float32'."""
        return "float64" if self.precision == "fp64" else "float32"

    @property
    def itemsize(self) -> int:
        """Bytes of a number of that type."""
        return 8 if self.dtype == "float64" else 4

    @property
    def in_flight(self) -> int:
        """Blocks that are worked on at the same time."""
        # In this process one block reads and writes while the other one computes.
        return self.workers or 2


def usual_batch(device: str) -> int:
    """Return the tiles that a model sees at once where nobody says."""
    return 1 if device == "cpu" else 8
