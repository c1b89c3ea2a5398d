"""Packages of the BioImage Model Zoo, written by bioimageio.spec itself: no real one can be fetched where tests run."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

SIDE = 64
LIBRARY = "bioimageio.spec"


def convolution(bands: int, channels: int, padding: int = 1) -> nn.Conv2d:
    """Return a network of one 3 x 3 convolution whose scores lie around 0."""
    torch.manual_seed(5)
    return nn.Conv2d(bands, channels, 3, padding=padding).eval()


def pixels(bands: int = 3, dtype: str = "uint8") -> np.ndarray:
    """Return an image (1, bands, SIDE, SIDE) of blotches."""
    coarse = np.random.default_rng(2).integers(0, 256, (1, bands, SIDE // 8, SIDE // 8))
    return coarse.repeat(8, 2).repeat(8, 3).astype(dtype)


def onnx_of(conv: nn.Conv2d) -> bytes:
    """Return a convolution as an ONNX file of free height and width."""
    pad = int(conv.padding[0])
    free = ["batch", None, "height", "width"]
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], kernel_shape=[3, 3], pads=[pad] * 4)
    kept = [numpy_helper.from_array(t.detach().numpy(), n) for t, n in ((conv.weight, "w"), (conv.bias, "b"))]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [channels if size is None else size for size in free])
        for name, channels in (("x", conv.in_channels), ("y", conv.out_channels))
    ]
    graph = helper.make_graph([node], "net", ends[:1], ends[1:], kept)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def script_of(net: nn.Module, bands: int = 3) -> Callable[[Path], None]:
    """Return a function that writes a network as TorchScript."""

    def write(path: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remarks on TorchScript
            torch.jit.trace(net, torch.zeros(1, bands, SIDE, SIDE)).save(str(path))

    return write


def space(name: str, size: Any, scale: float = 0.5, unit: str | None = "micrometer", **more: Any) -> dict[str, Any]:
    """Return an axis of space."""
    return {"type": "space", "id": name, "size": size, "scale": scale, "unit": unit, **more}


def axes(names: Sequence[str], y: Any, x: Any, **more: Any) -> list[dict[str, Any]]:
    """Return the axes batch, channel, y and x."""
    return [
        {"type": "batch"},
        {"type": "channel", "channel_names": list(names)},
        space("y", y, **more),
        space("x", x, **more),
    ]


def write_package(
    target: Path,
    weights: Mapping[str, Mapping[str, Any]],
    given: np.ndarray,
    wanted: np.ndarray,
    *,
    before: Sequence[Mapping[str, Any]] = (),
    after: Sequence[Mapping[str, Any]] = (),
    change: Callable[[dict[str, Any]], None] = lambda fields: None,
    folder: bool = False,
) -> Path:
    """Write a package and return its path; `weights` holds entries whose `source` is bytes or writes a file.

    `before` and `after` are the steps, as in the description, whose fields `change` may alter at last.
    """
    from bioimageio.spec import save_bioimageio_package, save_bioimageio_package_as_folder
    from bioimageio.spec.model.v0_5 import ModelDescr

    parts = target.parent / f"{target.name}.parts"
    parts.mkdir()
    for name, array in (("in.npy", given), ("out.npy", wanted)):
        np.save(parts / name, array)
    (parts / "doc.md").write_text("# A model\n\n## Validation\n\nOn made-up pixels.\n")
    listed: dict[str, Any] = {}
    for kind, entry in weights.items():
        path = parts / f"{kind}.{'onnx' if kind == 'onnx' else 'pt'}"
        source = entry["source"]
        path.write_bytes(source) if isinstance(source, bytes) else source(path)
        listed[kind] = {**entry, "source": str(path)}
    size = {"min": 16, "step": 16}
    out = [{"tensor_id": "raw", "axis_id": axis} for axis in "yx"]
    gives = [f"class {k}" for k in range(wanted.shape[1])] if wanted.shape[1] > 1 else ["nucleus"]
    fields: dict[str, Any] = {
        "name": "blotch finder", "description": "Finds blotches.", "authors": [{"name": "A"}],
        "cite": [{"text": "made up", "doi": "10.1234/abc"}], "license": "MIT",
        "documentation": {"source": str(parts / "doc.md")},
        "inputs": [{
            "id": "raw", "axes": axes([f"c{k}" for k in range(given.shape[1])], size, size),
            "test_tensor": {"source": str(parts / "in.npy")}, "data": {"type": str(given.dtype)},
            "preprocessing": list(before),
        }],
        "outputs": [{
            "id": "mask", "axes": axes(gives, *out), "test_tensor": {"source": str(parts / "out.npy")},
            "data": {"type": str(wanted.dtype)}, "postprocessing": list(after),
        }],
        "weights": listed,
    }  # fmt: skip
    change(fields)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # remarks on what a good package has besides
        model = ModelDescr(**fields)
        save = save_bioimageio_package_as_folder if folder else save_bioimageio_package
        save(model, output_path=target)
    return target


def onnx_entry(data: bytes) -> dict[str, Any]:
    """Return an entry for ONNX weights."""
    return {"onnx": {"source": data, "opset_version": 17}}


def checked(data: bytes) -> bytes:
    """Return an ONNX file, which the library accepts."""
    onnx.checker.check_model(onnx.load_from_string(data))
    return data
