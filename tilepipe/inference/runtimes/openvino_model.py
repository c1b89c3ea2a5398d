"""This module compiles an ONNX file with OpenVINO. It imports no torch, so that a child process begins quickly."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tilepipe.cache import cache_directory

if TYPE_CHECKING:
    from openvino import CompiledModel

HINTS = {"fp32": "f32", "bf16": "bf16"}
"""Precision by name; without it OpenVINO takes bf16 by itself on processors that have it."""


def compiled(data: bytes, shapes: Sequence[Sequence[int]], precision: str, threads: int) -> CompiledModel:
    """Return an ONNX file, compiled for these shapes of its inputs."""
    openvino = _library()
    core, folder = openvino.Core(), cache_directory()
    model = core.read_model(data, b"")
    model.reshape({f"in{k}": list(shape) for k, shape in enumerate(shapes)})
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
    }
    if folder is not None:
        settings["CACHE_DIR"] = str(folder / "openvino")
    return core.compile_model(model, "CPU", settings)


def try_file(path: str, shapes: str, precision: str) -> None:
    """Compile an ONNX file and call it on zeros; this runs in a child process. Shapes are like '1,3,64,64;1,8,2,64'."""
    sizes = [[int(size) for size in shape.split(",")] for shape in shapes.split(";")]
    network = compiled(Path(path).read_bytes(), sizes, precision, 1)
    network([np.zeros(size, np.float32) for size in sizes])


def _library() -> Any:
    """Import OpenVINO without the package that would tell its maker of the import."""
    # None in this place makes the import of the package fail, and OpenVINO uses an empty one of its own then.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino
