"""ONNX files run in onnxruntime, on the CPU or on CUDA; bands, classes and tile are compared with the card first."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tilepipe.arrays import Pixels
from tilepipe.errors import DeviceError, ModelError
from tilepipe.models.calling_convention import CallingConvention
from tilepipe.models.card import ModelCard
from tilepipe.models.formats.onnx_card import card_of
from tilepipe.models.formats.onnx_graph import Graph, read_graph
from tilepipe.models.formats.opaque import Forward, Packaged, missing_extra, said_by
from tilepipe.models.model import Model, refuse_one_class
from tilepipe.text import setting

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

SUFFIX = ".onnx"
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}


class Onnx(Packaged):
    """An ONNX file that was checked. If the file fixes a tile size, smaller tiles are filled up with zeros."""

    single = "ONNX models, whose precision is fixed in the file"

    def __init__(self, data: bytes, path: Path, card: ModelCard, graph: Graph) -> None:
        """Keep the file's bytes; `graph` holds what the file says of its input and output."""
        super().__init__(data, path, card)
        self.key = None  # the session is asked for one output only
        self.chosen = graph.chosen
        self.last = graph.last

    @staticmethod
    def convention_of(card: ModelCard) -> CallingConvention:
        """Return how the file takes tiles, by its card; the graph tells the order of axes."""
        return CallingConvention.of(card)._replace(last=False)

    def opened(self, device: torch.device) -> Forward:
        """Start a session on `device`. Raises `DeviceError` if onnxruntime cannot use it."""
        return partial(self._run, start_session(self.content, device))

    def _run(self, session: InferenceSession, x: Tensor) -> Tensor:
        """Return the output for a batch of tiles, which the file gets in its own type, batch size and tile size."""
        given = session.get_inputs()[0]
        with np.errstate(over="ignore"):  # numbers that are too large for half precision become infinite
            pixels: Pixels = x.cpu().numpy().astype(_TYPES[given.type])
        if self.last[0]:
            pixels = np.moveaxis(pixels, 1, -1)
        fixed = [size if isinstance(size, int) else have for size, have in zip(given.shape, pixels.shape, strict=True)]
        rows, columns = (1, 2) if self.last[0] else (2, 3)
        (height, width), (tall, wide) = x.shape[2:], (fixed[rows], fixed[columns])
        if height > tall or width > wide:
            raise ModelError(
                f"{self.path} reads tiles of {tall} x {wide} px, not {height} x {width}; use {setting(tile=tall)}"
            )
        fill = [(0, 0)] * 4
        fill[0], fill[rows], fill[columns] = (0, -len(x) % fixed[0]), (0, tall - height), (0, wide - width)
        pixels = np.ascontiguousarray(np.pad(pixels, fill) if any(map(any, fill)) else pixels)
        steps = range(0, len(pixels), fixed[0] if isinstance(given.shape[0], int) else len(pixels))
        parts = [session.run([self.chosen], {given.name: pixels[k : k + (steps.step)]})[0] for k in steps]
        scores = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if self.last[1]:
            scores = np.moveaxis(scores, -1, 1)
        if any(map(any, fill)):
            scores = scores[: len(x), ..., :height, :width]
        scores = scores if scores.dtype.kind in "iub" else scores.astype(np.float32, copy=False)
        return torch.from_numpy(np.ascontiguousarray(scores)).to(x.device)


def load_onnx(data: bytes, path: Path, card: ModelCard | None, name: str) -> Model:
    """Return the model of an ONNX file; without `card`, the file's metadata make the card. Raises `ModelError`."""
    graph = read_graph(data, path, card)
    card = card or card_of(graph, path, path.with_suffix(".json"))
    refuse_one_class(card)
    card = said_by(_fitting(graph, card, path), "onnx")
    module = Onnx(data, path, card, graph)
    return Model.owning(module, module.recognise(card, told=graph.shares), name)


def start_session(data: bytes, device: torch.device) -> InferenceSession:
    """Return an onnxruntime session that gives the same answer every time. Raises `ModelError`, `DeviceError`."""
    try:
        import onnxruntime
    except ImportError as error:
        raise missing_extra("onnxruntime", "onnx", error) from None
    options = onnxruntime.SessionOptions()
    # onnxruntime has threads of its own; by itself it would take every core, whatever torch may use.
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 4  # errors are raised as exceptions, so nothing need be written to the terminal
    provider: str | tuple[str, dict[str, object]] = "CPUExecutionProvider"
    if device.type == "cuda":
        # Kernels are chosen by heuristics: a search would choose anew in every process.
        provider = (
            "CUDAExecutionProvider",
            {"device_id": device.index or 0, "cudnn_conv_algo_search": "HEURISTIC", "use_tf32": 0},
        )
    if device.type == "cuda" and "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise DeviceError(
            f"this onnxruntime has no CUDA; use {setting(device='cpu')}, or replace it: "
            "pip uninstall onnxruntime && pip install onnxruntime-gpu"
        )
    try:
        return onnxruntime.InferenceSession(data, options, providers=[provider])
    except Exception as error:  # onnxruntime's errors have no common base
        raise ModelError(f"onnxruntime refuses the ONNX file: {' '.join(str(error).split())[:300]}") from None


def _fitting(graph: Graph, card: ModelCard, path: Path) -> ModelCard:
    """Return the card with the tile size that the file fixes. Raises `ModelError` if card and file contradict."""
    if graph.bands not in (None, card.bands):
        raise ModelError(f"{path} reads {graph.bands} bands (B, bands, H, W), the card says {card.bands}")
    classes = len(card.classes)
    if graph.channels not in (None, classes) and (graph.channels, classes) != (1, 2):
        raise ModelError(f"{path} gives {graph.channels} channels, the card names {classes} classes; name as many")
    if graph.height is None and graph.width is None:
        return card
    tile = None if graph.height is None else graph.height - 2 * card.pad
    if graph.height != graph.width or card.tile not in (None, tile) or (tile or 0) < 1:
        padded = f" and pad {card.pad}" if card.pad else ""
        raise ModelError(
            f"{path} reads tiles of {graph.height or 'any'} x {graph.width or 'any'} px, the card says "
            f"{card.tile or 'square ones'}{padded}; export it with free height and width, or correct the card"
        )
    return card.model_copy(update={"tile": tile})
