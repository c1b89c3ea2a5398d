"""This module returns a runtime by its name, and imports only that one."""

from __future__ import annotations

from tilepipe.errors import ModelError
from tilepipe.inference.runtimes.base import Runtime, missing


def runtime(name: str) -> Runtime:
    """Return the runtime of this name. Raises `ModelError` if a package that it needs is missing."""
    if why := missing(name):
        raise ModelError(why)
    if name == "onnxruntime":
        from tilepipe.inference.runtimes.onnxruntime import OnnxRuntime

        return OnnxRuntime()
    if name == "openvino":
        from tilepipe.inference.runtimes.openvino import OpenVino

        return OpenVino()
    if name == "compile":
        from tilepipe.inference.runtimes.torch_compile import TorchCompile

        return TorchCompile()
    from tilepipe.inference.runtimes.torch_eager import TorchEager

    return TorchEager()
