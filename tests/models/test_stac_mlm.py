"""STAC items of models: read back by pystac's reader of the extension, and cards of items as others write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.bioimage_packages import convolution, onnx_of

import tilepipe as tp
from tilepipe.errors import ModelError
from tilepipe.models.facts import bundled_models
from tilepipe.models.formats.directory import load_model
from tilepipe.models.stac_item import item_of
from tilepipe.models.stac_mlm import fields_of

IMAGE = Path(__file__).parents[2] / "pipelines" / "sample" / "Amazon_24_20.tif"
INPUT = {"shape": [-1, 3, -1, -1], "dim_order": ["batch", "channel", "height", "width"], "data_type": "float32"}
CLASSES = [
    {"value": 1, "name": "built-up", "color_hint": "FF0000"},
    {"value": 0, "name": "other", "color_hint": "00ff00"},
]


def item(*, given: dict[str, Any] | None = None, gives: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """Return an item as others write it."""
    properties = {
        "datetime": None, "start_datetime": "2015-01-01T00:00:00Z", "end_datetime": "2020-01-01T00:00:00Z",
        "mlm:name": "town", "mlm:architecture": "U-Net", "mlm:tasks": ["semantic-segmentation"], "gsd": 10,
        "mlm:input": [{"name": "rgb", "bands": ["B04", "B03", "B02"], "input": INPUT, **(given or {})}],
        "mlm:output": [{"name": "y", "tasks": ["semantic-segmentation"], "result": INPUT,
                        "classification:classes": CLASSES, **(gives or {})}],
        **more,
    }  # fmt: skip
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "town",
        "properties": properties,
        "assets": {},
        "links": [],
    }


@pytest.mark.parametrize("name", bundled_models())
def test_an_item_says_what_the_card_says(name: str) -> None:
    card = load_model(name).card
    again = tp.ModelCard.from_json(json.dumps(item_of(card, "weights.safetensors", 1)))
    for field in (*(set(tp.ModelCard.model_fields) - {"training", "format"}),):
        assert getattr(again, field) == pytest.approx(getattr(card, field)) if field == "mean" else True, field
        if field not in ("mean", "std"):
            assert getattr(again, field) == getattr(card, field), field


def test_pystac_reads_the_item() -> None:
    pystac = pytest.importorskip("pystac")
    mlm = pytest.importorskip("pystac.extensions.mlm")
    card = load_model("buildings").card
    found = pystac.Item.from_dict(item_of(card, "weights.onnx", 7))
    read = mlm.MLMExtension.ext(found)
    assert (read.mlm_name, read.architecture, read.total_parameters) == ("buildings", "unet", 7)
    (given,), (gives,) = read.input, read.output
    assert given.input.shape == [-1, 3, -1, -1]
    assert [one.name for one in gives.classes] == ["background", "building"]
    assert {"mlm:model", "mlm:weights"} <= set(found.assets["model"].roles)


def test_the_item_of_others_is_the_card_of_the_file_beside_it(tmp_path: Path) -> None:
    net = convolution(3, 2)
    (tmp_path / "town.onnx").write_bytes(onnx_of(net))
    steps = [{"type": "z-score", "mean": 100 + k, "stddev": 50 + k} for k in range(3)]
    (tmp_path / "town.json").write_text(json.dumps(item(given={"value_scaling": steps})))
    model = load_model(tmp_path / "town.onnx")
    card = model.card
    assert (card.classes, card.colors) == (("other", "built-up"), ("#00ff00", "#ff0000"))
    assert (card.mean, card.std, card.resolution, card.unit) == ((100, 101, 102), (50, 51, 52), 10, "m")
    assert card.band_names == ("B04", "B03", "B02")
    with pytest.warns(UserWarning, match="reads B04 as its band 1"):
        labels = tp.predict(IMAGE, model, tp.Box(0, 0, 64, 64))
    assert set(np.unique(labels)) <= {0, 1}


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ({"type": "scale", "value": 255}, (0, 255)),
        ({"type": "offset", "value": 5}, (5, 1)),
        ({"type": "min-max", "minimum": 10, "maximum": 210}, (10, 200)),
    ],
)
def test_every_scaling_with_a_place_in_a_card(step: dict[str, Any], expected: tuple[float, float]) -> None:
    found = fields_of(item(given={"value_scaling": [step]}), "town.json")
    assert (found["mean"], found["std"]) == ([expected[0]] * 3, [expected[1]] * 3)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (item(given={"value_scaling": [{"type": "clip", "minimum": 0, "maximum": 1}]}), "value_scaling clip"),
        (item(given={"pre_processing_function": {"format": "python", "expression": "f"}}), "pre_processing_function"),
        (item(given={"input": {**INPUT, "dim_order": ["batch", "time", "height", "width"]}}), "axes batch, time"),
        (item(gives={"classification:classes": [{"value": 1, "name": "a"}]}), "numbered from 0"),
        (item(gives={"tasks": ["detection"]}, **{"mlm:tasks": ["detection"]}), "a model for detection"),
        (item(**{"mlm:input": []}), "cannot be read"),
        ({"type": "Feature", "stac_version": "1.0.0", "properties": {}}, "without mlm:name"),
        ({"type": "Feature", "stac_version": "1.0.0", "properties": 3}, "cannot be read"),
    ],
)
def test_what_an_item_says_and_a_card_cannot_is_refused_by_name(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        tp.ModelCard.from_json(json.dumps(wrong), "town.json")
