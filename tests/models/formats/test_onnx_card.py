"""Metadata of ONNX files as cards: labels are those that Deepness makes of onnxruntime's answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from helpers.onnx_files import save
from onnx import TensorProto, helper, numpy_helper

import tilepipe as tp
from tilepipe.errors import ModelError
from tilepipe.models.formats.directory import load_model


def graph(last: str, channels: int, words: dict[str, object]) -> Any:
    """Return a model whose scores are made of single pixels of a tile (B, 3, H, W), then `last`."""
    weight = 9 * np.random.default_rng(1).standard_normal((channels, 3, 1, 1)).astype(np.float32)
    bias = -weight.sum((1, 2, 3)) / 2  # scores are around 0 for pixels from 0 to 1
    axis = {"axis": 1} if last == "Softmax" else {}
    nodes = [helper.make_node("Conv", ["x", "w", "c"], ["s"]), helper.make_node(last, ["s"], ["y"], **axis)]
    value = helper.make_tensor_value_info
    held = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "c")]
    found = helper.make_graph(
        nodes, "g", [value("x", TensorProto.FLOAT, ["b", 3, "h", "w"])],
        [value("y", TensorProto.FLOAT, ["b", channels, "h", "w"])], held,
    )  # fmt: skip
    model = helper.make_model(found, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    for key, text in words.items():
        model.metadata_props.add(key=key, value=json.dumps(text))
    return model


def names(*classes: str) -> dict[str, object]:
    return {"model_type": "Segmentor", "class_names": dict(enumerate(classes)), "resolution": 25}


def deepness(path: Path, image: np.ndarray, least: float) -> np.ndarray:
    """Return the labels of its `_process_tile`: values below the threshold are 0, then argmax, or what is not 0."""
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    result = session.run(None, {"x": image[None].astype(np.float32) / 255})[0]
    result[result < least] = 0
    labels: np.ndarray = (result[:, 0] != 0) if result.shape[1] == 1 else result.argmax(1)
    return labels[0].astype(np.uint8)


@pytest.mark.parametrize(
    ("last", "classes", "least"),
    [
        ("Sigmoid", ("road",), 0.2),
        ("Sigmoid", ("road",), 0.9),
        ("Sigmoid", ("field", "road"), 0.7),
        ("Softmax", ("field", "road"), 0.1),
        ("Softmax", ("field", "road"), 0.8),
        ("Softmax", ("field", "road", "water", "wood"), 0.2),
        ("Softmax", ("field", "road", "water", "wood"), 0.6),
        ("Softmax", ("field", "road", "water", "wood"), 0.95),
    ],
)
def test_thresholds_are_those_of_deepness(tmp_path: Path, last: str, classes: tuple[str, ...], least: float) -> None:
    channels = 1 if last == "Sigmoid" else len(classes)
    path = save(graph(last, channels, names(*classes) | {"seg_thresh": least}), tmp_path / "d.onnx")
    image = np.random.default_rng(0).integers(0, 256, (3, 90, 101)).astype(np.uint8)
    theirs = deepness(path, image, least)
    assert len(np.unique(theirs)) > 1
    model = load_model(path)
    assert model.card.classes == (classes if len(classes) > 1 else ("background", *classes))
    assert (tp.predict(image, model) == theirs).mean() > 0.9999  # float32 may round onto the threshold
    if least > 0.5:
        assert (tp.predict(image, load_model(path), tile=32) == deepness(path, image, 0.5)).mean() < 0.99


def test_what_tilepipe_does_not_do_is_in_the_description(tmp_path: Path) -> None:
    words = names("field", "road") | {"seg_small_segment": 6, "tile_size": 128, "tiles_overlap": 40}
    card = load_model(save(graph("Softmax", 2, words), tmp_path / "d.onnx")).card
    assert (card.resolution, card.tile, card.threshold) == (0.25, 128, None)
    assert card.description == "Deepness smooths its labels with a median of 7 px; tilepipe does not."


@pytest.mark.parametrize(
    ("last", "channels", "words", "sentence"),
    [
        (
            "Identity",
            2,
            {"seg_thresh": 0.7},
            "neither in a sigmoid nor in a softmax",
        ),
        ("Sigmoid", 1, {"seg_thresh": 0}, "seg_thresh 0 is no probability"),
        ("Softmax", 2, {"seg_thresh": 7}, "seg_thresh 7 is no probability"),
        ("Softmax", 2, {"seg_thresh": "high"}, "cannot be read"),
        ("Softmax", 2, {"class_names": [{"0": "a", "1": "b"}, {"0": "c"}]}, "names the classes of 2 outputs"),
        ("Softmax", 2, {"model_type": "Regressor"}, "is a regressor"),
    ],
)
def test_words_without_a_meaning_here(
    tmp_path: Path, last: str, channels: int, words: dict[str, object], sentence: str
) -> None:
    path = save(graph(last, channels, names("field", "road") | words), tmp_path / "d.onnx")
    with pytest.raises(ModelError, match=sentence):
        load_model(path)


def test_a_list_of_one_dict_is_that_dict(tmp_path: Path) -> None:
    words = names() | {"class_names": [{"0": "field", "1": "road"}]}
    assert load_model(save(graph("Softmax", 2, words), tmp_path / "d.onnx")).card.classes == ("field", "road")
