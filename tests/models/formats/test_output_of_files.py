"""ONNX, TorchScript and .pt2 files as exporters leave them: axes, sizes, outputs; right, or refused in a sentence."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto as T
from onnx import helper, numpy_helper
from torch import Tensor, nn

import tilepipe as tp
from tilepipe.errors import ModelError
from tilepipe.models.formats.directory import load_model

IMAGE = np.random.default_rng(0).integers(0, 200, (3, 90, 110)).astype(np.uint8)
TRUTH = (IMAGE.astype(int).sum(0) > 301).astype(np.uint8)
WEIGHT, BIAS = np.zeros((2, 3, 1, 1), np.float32), np.array([0, -100.5], np.float32)
WEIGHT[1] = 1 / 3
N, V, FREE = helper.make_node, helper.make_tensor_value_info, ["b", 3, "h", "w"]
CONV = N("Conv", ["x", "w", "b"], ["y"])


def scores(*ends: Any, channels: int = 2, before: tuple[Any, ...] = (), first: str = "x", stride: int = 1) -> list[Any]:
    """Return the nodes of a network: `before`, the convolution as 'c', then `ends`."""
    return [*before, N("Conv", [first, "w", "b"], ["c" if ends else "y"], strides=[stride, stride]), *ends]


TO_LAST, TO_FIRST = {"perm": [0, 2, 3, 1]}, {"perm": [0, 3, 1, 2]}
AXIS = numpy_helper.from_array(np.array([1], np.int64), "ax")
ONE = ["b", 1, "h", "w"]
FORMS: dict[str, tuple[list[Any], list[Any], tuple[int, list[Any]], int, str | None]] = {
    # nodes, shape of the input, (type, shape) of the output, channels, what is found
    "plain": ([CONV], FREE, (T.FLOAT, ["b", 2, "h", "w"]), 2, None),
    "no names": ([CONV], ["a", "b", "c", "d"], (T.FLOAT, ["e", "f", "g", "h"]), 2, None),
    "bands and classes last": (
        scores(N("Transpose", ["c"], ["y"], **TO_LAST), before=(N("Transpose", ["x"], ["t"], **TO_FIRST),), first="t"),
        ["b", "h", "w", 3], (T.FLOAT, ["b", "h", "w", 2]), 2, None,
    ),
    "classes last": (scores(N("Transpose", ["c"], ["y"], **TO_LAST)), FREE, (T.FLOAT, ["b", "h", "w", 2]), 2, None),
    "bands and one class last, 64 px": (
        scores(N("Sigmoid", ["c"], ["s"]), N("Transpose", ["s"], ["y"], **TO_LAST),
               before=(N("Transpose", ["x"], ["t"], **TO_FIRST),), first="t"),
        [1, 64, 64, 3], (T.FLOAT, [1, 64, 64, 1]), 1, "probabilities",
    ),
    "softmax": (scores(N("Softmax", ["c"], ["y"], axis=1)), FREE, (T.FLOAT, ["b", 2, "h", "w"]), 2, "probabilities"),
    "softmax in steps": (
        scores(N("ReduceMax", ["c"], ["m"], axes=[1]), N("Sub", ["c", "m"], ["d"]), N("Exp", ["d"], ["e"]),
               N("ReduceSum", ["e", "ax"], ["s"], keepdims=1), N("Div", ["e", "s"], ["y"])),
        FREE, (T.FLOAT, ["b", 2, "h", "w"]), 2, "probabilities",
    ),
    "argmax": (scores(N("ArgMax", ["c"], ["y"], axis=1, keepdims=0)), FREE, (T.INT64, ["b", "h", "w"]), 2, "labels"),
    "argmax with an axis": (scores(N("ArgMax", ["c"], ["y"], axis=1)), FREE, (T.INT64, ONE), 2, "labels"),
    "one logit": ([CONV], FREE, (T.FLOAT, ONE), 1, None),
    "one sigmoid": (scores(N("Sigmoid", ["c"], ["y"])), FREE, (T.FLOAT, ONE), 1, "probabilities"),
    "one sigmoid without an axis": (
        scores(N("Sigmoid", ["c"], ["s"]), N("Squeeze", ["s", "ax"], ["y"])), FREE, (T.FLOAT, ["b", "h", "w"]), 1,
        "probabilities",
    ),
}  # fmt: skip


def write(
    path: Path, nodes: list[Any], given: list[Any], output: tuple[int, list[Any]], channels: int = 2, **card: Any
) -> Path:
    stored = [numpy_helper.from_array(WEIGHT[-channels:], "w"), numpy_helper.from_array(BIAS[-channels:], "b"), AXIS]
    graph = helper.make_graph(nodes, "g", [V("x", T.FLOAT, given)], [V("y", *output)], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    fields = {"format": 1, "bands": 3, "classes": ["dark", "bright"], "halo": 0, **card}
    path.with_suffix(".json").write_text(json.dumps(fields))
    return path


@pytest.mark.parametrize("name", FORMS)
def test_onnx_files_are_read_by_their_graphs(tmp_path: Path, name: str) -> None:
    nodes, given, output, channels, kind = FORMS[name]
    path = write(tmp_path / "m.onnx", nodes, given, output, channels)
    model = load_model(path)
    assert model.card.output == kind
    np.testing.assert_array_equal(tp.predict(IMAGE, model), TRUTH)


def test_onnx_that_does_not_fit_is_refused_with_both_numbers(tmp_path: Path) -> None:
    quarter = write(tmp_path / "m.onnx", scores(stride=4), FREE, (T.FLOAT, ["b", 2, "h4", "w4"]))
    with pytest.raises(ModelError, match=r"maps have 23 x 28 px for tiles of 90 x 110 px.*up-sampling"):
        tp.predict(IMAGE, load_model(quarter))
    one = write(tmp_path / "one.onnx", [CONV], FREE, (T.FLOAT, ONE), 1, classes=["bright"])
    with pytest.raises(ModelError, match="names one class"):
        load_model(one)
    more = write(tmp_path / "more.onnx", [CONV], FREE, (T.FLOAT, ["b", 2, "h", "w"]), 2, classes=["a", "b", "c"])
    with pytest.raises(ModelError, match="gives 2 channels, the card names 3 classes"):
        load_model(more)


def test_one_of_several_outputs_is_named_by_the_card(tmp_path: Path) -> None:
    nodes = [N("Conv", ["x", "w", "b"], ["y"]), N("Neg", ["y"], ["aux"])]
    path = write(tmp_path / "m.onnx", nodes, FREE, (T.FLOAT, ["b", 2, "h", "w"]))
    model = onnx.load(str(path))
    model.graph.output.insert(0, V("aux", T.FLOAT, ["b", 2, "h", "w"]))
    onnx.save(model, str(path))
    with pytest.raises(ModelError, match=r"2 outputs \('aux', 'y'\).*\"key\": \"aux\""):
        load_model(path)
    card = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps({**card, "key": "y"}))
    np.testing.assert_array_equal(tp.predict(IMAGE, load_model(path)), TRUTH)
    path.with_suffix(".json").write_text(json.dumps({**card, "key": "z"}))
    with pytest.raises(ModelError, match="no output 'z'; its outputs are 'aux', 'y'"):
        load_model(path)


class Bright(nn.Module):
    def __init__(self, channels: int = 2) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 1)
        with torch.no_grad():
            self.conv.weight.copy_(torch.from_numpy(WEIGHT[-channels:]))
            self.conv.bias.copy_(torch.from_numpy(BIAS[-channels:]))  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class InDict(Bright):
    def forward(self, x: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        return {"out": self.conv(x)}


def trusted(path: Path) -> tp.Model:
    path.with_suffix(".json").write_text(tp.ModelCard(bands=3, classes=["dark", "bright"], halo=0).to_json())
    return load_model(path, trust_model=f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}")


@pytest.mark.parametrize(
    ("network", "kind"),
    [
        (Bright(), None),
        (Bright(1), None),
        (InDict(), None),
        (nn.Sequential(Bright(1), nn.Sigmoid()), "probabilities"),
        (nn.Sequential(Bright(), nn.Sigmoid()), "probabilities"),
        (nn.Sequential(Bright(), nn.Softmax(1)), "probabilities"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("suffix", ["ts", "pt2"])
def test_files_that_run_code_end_in_a_sigmoid_or_not(
    tmp_path: Path, network: nn.Module, kind: str, suffix: str
) -> None:
    if suffix == "ts":
        torch.jit.save(torch.jit.script(network), str(tmp_path / "m.ts"))
    else:
        free = {k: torch.export.Dim(name, min=2, max=4096) for k, name in ((0, "b"), (2, "h"), (3, "w"))}
        program = torch.export.export(network.eval(), (torch.zeros(2, 3, 64, 64),), dynamic_shapes=[free])
        torch.export.save(program, str(tmp_path / "m.pt2"))
    model = trusted(tmp_path / f"m.{suffix}")
    assert model.card.output == kind
    np.testing.assert_array_equal(tp.predict(IMAGE, model), TRUTH)
