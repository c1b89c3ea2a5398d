"""Arithmetic: torch's switches that decide how a forward pass rounds are set for a pass and then put back.

The same tile must give the same bits on any day and in any program. So convolutions are chosen by shape (cuDNN's
heuristics) and not by a race (benchmark), and only among those that sum in a fixed order (deterministic). float32 is
float32: TF32, and the bf16 that oneDNN may use in its place, are switched off, whoever switched them on.

`torch.use_deterministic_algorithms` is left as the caller has it. In a forward pass this switch replaces bilinear
up-sampling by a slow version that serves gradients, which are not computed here. It also refuses max-unpooling, whose
indices do not collide if they come from max-pooling. Operations that still do not repeat are found by measuring
(`inference.profile.measure_reproducibility`).
"""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from tilepipe.models.copying import copied

HALF = {"fp32": None, "tf32": None, "fp64": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Type that autocast computes in, by precision. tf32 is fp32 whose convolutions round their factors to 10 bits; fp64
is the whole network in double precision."""
Switch = tuple[object, str, object]
"""A switch of torch: the object that holds it, its name and its value."""
ONE_AT_A_TIME = threading.RLock()
"""Lock of the process: all threads share the switches, so one thread computes at a time."""


def dtype_of(precision: str) -> torch.dtype:
    """Return the type of a network's input, weights and logits; autocast may use a smaller type between them."""
    return torch.float64 if precision == "fp64" else torch.float32


def on_device(module: nn.Module, device: torch.device, precision: str = "fp32") -> nn.Module:
    """Return a module in eval mode on a device; with precision fp64 its weights are double.

    In single precision on the CPU this is the module itself, else a copy: the caller's module stays as it is.
    """
    if device.type == "cpu" and precision != "fp64":
        return module.eval()
    moved = copied(module).to(device)
    return (moved.double() if precision == "fp64" else moved).eval()


def surroundings() -> dict[str, str]:
    """Return all that decides the arithmetic besides model, shapes, device: torch, the CPU's instructions, switches."""
    return {
        "torch": torch.__version__,
        "cpu": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "deterministic": str(torch.are_deterministic_algorithms_enabled()),
        **{name: os.environ.get(name, "") for name in ("CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE")},
    }


@contextmanager
def arithmetic(device: torch.device, precision: str) -> Iterator[None]:
    """Compute without gradients in a precision, as repeatably as the device can; one thread enters at a time."""
    half = HALF[precision]
    with ONE_AT_A_TIME, _no_legacy_tf32(), ExitStack() as switched:
        for target, name, value in _switches("tf32" if precision == "tf32" else "ieee"):
            if getattr(target, name) != value:
                switched.enter_context(_switch(target, name, value))
        with torch.inference_mode(), torch.autocast(device.type, half, enabled=half is not None):
            yield


def _switches(convolutions: str) -> list[Switch]:
    """Return the switches; a switch comes before the switches that inherit from it."""
    backends: Any = torch.backends  # torch declares no types for these switches
    cudnn, cuda, onednn = backends.cudnn, backends.cuda, backends.mkldnn
    flags = [("enabled", True), ("benchmark", False), ("deterministic", True)]
    float32 = [(cudnn, "ieee"), (cudnn.conv, convolutions), (cuda.matmul, "ieee"), (onednn.conv, "ieee")]
    return [
        *((cudnn, name, value) for name, value in flags),
        *((where, "fp32_precision", value) for where, value in [*float32, (onednn.matmul, "ieee")]),
    ]


@contextmanager
def _switch(target: object, name: str, value: object) -> Iterator[None]:
    was = getattr(target, name)
    setattr(target, name, value)
    try:
        yield
    finally:
        if name == "fp32_precision":
            setattr(target, name, "none")  # the switch inherits again if it inherited before
        if getattr(target, name) != was:
            setattr(target, name, was)


@contextmanager
def _no_legacy_tf32() -> Iterator[None]:
    """Undo `torch.set_float32_matmul_precision`: torch does not allow it together with the switches above."""
    try:
        was = torch.get_float32_matmul_precision()
    except RuntimeError:  # the caller has mixed both already
        was = "highest"
    if was == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(was)
