"""Training from Python: a dict, arrays, functions, callbacks, an interrupt; a history and a model come back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray

import tilepipe as tp

IMAGE = np.random.default_rng(0).integers(0, 255, (3, 96, 96), dtype=np.uint8)
TRUTH = (IMAGE[0] > 127).astype(np.int64)


def config(folder: Path, **more: Any) -> dict[str, Any]:
    return {
        "name": "tiny", "output": str(folder / "tiny.model"), "classes": ["dark", "bright"],
        "train": [{"image": IMAGE, "label": TRUTH}], "arch": {"name": "unet", "width": 2, "depth": 1},
        "steps": 4, "crop": 32, "batch": 2, **more,
    }  # fmt: skip


def test_arrays_are_scenes_and_the_answer_is_a_model_with_its_history(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    scene = xarray.DataArray(IMAGE, dims=("band", "y", "x"))
    given = config(tmp_path, train=[{"image": scene, "label": TRUTH, "rows": [0, 64]}],
                   validate=[{"image": IMAGE, "label": TRUTH > 0, "rows": [64, 96]}], validate_every=2)  # fmt: skip
    trained = tp.fit(given, callback=seen.append)
    assert [row["step"] for row in seen if "loss" in row] == [1, 2, 3, 4]
    assert [(row["step"], list(row["iou"])) for row in seen if "iou" in row] == [
        (2, ["dark", "bright"]),
        (4, ["dark", "bright"]),
    ]
    assert trained.history["step"] == [2, 4]
    assert trained.history[-1]["loss"] > 0
    assert {"mean_iou", "iou dark", "iou bright"} <= set(trained.history.columns)
    assert "<table>" in trained._repr_html_()
    assert repr(trained).startswith("<Trained ")
    assert trained.model.card.classes == ("dark", "bright")
    assert tp.predict(IMAGE, trained).shape == (96, 96)
    assert tp.load_model(trained).card == trained.model.card
    again = tp.fit(given)  # done before: nothing is trained
    assert again.history.to_dict() == trained.history.to_dict()
    with pytest.raises(tp.TilepipeError, match="something else now"):
        tp.fit({**given, "train": [{"image": IMAGE[::-1], "label": TRUTH, "rows": [0, 64]}]})


def test_parts_of_one_array_may_not_be_trained_and_scored(tmp_path: Path) -> None:
    given = config(tmp_path, validate=[{"image": IMAGE, "label": TRUTH, "rows": [32, 96]}])
    with pytest.raises(tp.TilepipeError, match="validate and train share rows 32 to 96"):
        tp.fit(given)


def test_functions_are_the_loss_and_the_augmentation(tmp_path: Path) -> None:
    calls = {"loss": 0, "augment": 0}

    def loss(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        calls["loss"] += 1
        return torch.nn.functional.cross_entropy(logits, classes, ignore_index=-1)

    def augment(images: torch.Tensor, classes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        calls["augment"] += 1
        return images + torch.randn(()), classes

    first = tp.fit(config(tmp_path / "a", losses=loss, augment=augment))
    again = tp.fit(config(tmp_path / "b", losses=loss, augment=augment))
    assert calls == {"loss": 8, "augment": 8}
    assert first.history.to_dict() == again.history.to_dict(), "random numbers follow from the seed"
    for wrong in ({"losses": lambda logits, classes: logits}, {"augment": lambda images, classes: images}):
        with pytest.raises(tp.TilepipeError, match=r"returned .* must return"):
            tp.fit(config(tmp_path / "c", **wrong))


@pytest.mark.long
def test_an_interrupt_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    def stop(row: dict[str, Any]) -> None:
        if row["step"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tp.fit(config(tmp_path, checkpoint=1), callback=stop)
    taken: list[int] = []
    whole = tp.fit(config(tmp_path / "whole", checkpoint=1))
    trained = tp.fit(config(tmp_path, checkpoint=1), callback=lambda row: taken.append(row["step"]))
    assert taken == [3, 4]
    for name, tensor in trained.model.module.state_dict().items():
        assert torch.equal(tensor, whole.model.module.state_dict()[name])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (3, "no configuration"),
        ({"name": "x"}, "output"),
        ({"train": [{"image": 3, "label": TRUTH}]}, "int is no image"),
    ],
)
def test_what_is_no_configuration_is_told(wrong: Any, words: str, tmp_path: Path) -> None:
    given = {**config(tmp_path), **wrong} if isinstance(wrong, dict) and "train" in wrong else wrong
    with pytest.raises(tp.TilepipeError, match=words):
        tp.fit(given)
