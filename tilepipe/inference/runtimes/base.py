"""This module defines what a runtime is: a program that computes a network of torch. It imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Protocol, TypeAlias

from tilepipe.errors import ModelError, UsageError
from tilepipe.text import setting

if TYPE_CHECKING:
    from torch import Tensor, nn

TORCH = "torch"
"""Name of the runtime that every other one is compared with."""
PACKAGES = {TORCH: "torch", "compile": "torch", "onnxruntime": "onnxruntime", "openvino": "openvino"}
"""Runtimes by name, each with the package that decides its arithmetic."""
EXTRAS = {"onnxruntime": ("onnx", ("onnx", "onnxruntime")), "openvino": ("openvino", ("onnx", "openvino"))}
"""Extra of tilepipe that a runtime needs, and the packages of it that must be there."""
PRECISIONS = {
    TORCH: ("fp32", "tf32", "fp64", "bf16", "fp16"),
    "compile": ("fp32",),
    "onnxruntime": ("fp32",),  # onnxruntime has no bf16 on a CPU
    "openvino": ("fp32", "bf16"),
}
"""Precisions of each runtime."""

LIBRARY = {"compile": 512 << 20, "onnxruntime": 160 << 20, "openvino": 448 << 20}
"""Memory of a process that a runtime's libraries and its copy of a graph take, at most, beside the weights (bytes)."""

Compiled: TypeAlias = "Callable[[Sequence[Tensor]], list[Tensor]]"
"""A network that is ready to be called on tensors of fixed shapes, on the CPU."""


class GraphError(Exception):
    """A network cannot be given to another runtime; the message names the operation in the way."""


@dataclass(frozen=True)
class Subject:
    """A network to compile, and the tensors that it is called on."""

    module: nn.Module
    """Network in eval mode. It takes and gives one tensor or several, all of them float32."""
    examples: tuple[Tensor, ...]
    """Tensors of small shapes that the network takes; its graph is taken from them."""
    shapes: tuple[tuple[int, ...], ...]
    """Shapes that the compiled network is called with, as many as there are examples."""
    key: str
    """Text that tells this network from all others; graphs are kept on disk under it."""
    precision: str = "fp32"
    """Precision of the arithmetic: 'fp32', or 'bf16' if the runtime has it."""


class Runtime(Protocol):
    """A program that computes a network."""

    def compiled(self, subject: Subject) -> Compiled:
        """Return the network, compiled for its shapes.

        Raises `GraphError` that names an operation which the runtime lacks, or says what else stands in the way.
        """


def missing(name: str) -> str:
    """Return the sentence that says how to install what a runtime needs; '' if all of it is there."""
    extra, packages = EXTRAS.get(name, ("", ()))
    absent = [package for package in packages if not _installed(package)]
    if not absent:
        return ""
    lacks = " and ".join(absent)
    return f"runtime {name} needs {lacks}, which is not installed; run: pip install 'tilepipe[{extra}]'"


def stated(name: str) -> str:
    """Return a runtime's name with the version of the package that decides its arithmetic; 'torch' for torch itself.

    The version of torch is part of everything that is kept anyway.
    """
    return name if name == TORCH else f"{name} {version(PACKAGES[name])}"


def name_of(said: str) -> str:
    """Return the name of a runtime from its name and version."""
    return said.partition(" ")[0]


def refuse_missing(said: str) -> None:
    """Raise `ModelError` if a runtime of a kept plan, with its version, is not the one that is here."""
    name = name_of(said)
    if why := missing(name):
        raise ModelError(f"the run that was interrupted computes with {said}: {why}")
    if (here := stated(name)) != said:
        raise ModelError(
            f"the run that was interrupted computes with {said}, and {here} is installed, which may round otherwise; "
            f"install that version again, or begin anew with {setting(runtime=name)}"
        )


def check_precision(name: str, precision: str) -> None:
    """Raise `UsageError` if a runtime that was asked for lacks a precision."""
    if precision not in PRECISIONS[name]:
        has = " and ".join(PRECISIONS[name])
        raise UsageError(f"runtime {name} computes in {has}, not in {precision}; use {setting(runtime=TORCH)}")


def _installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
