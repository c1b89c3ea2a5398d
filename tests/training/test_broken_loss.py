"""What ends a training at once, and what a checkpoint belongs to: the content of images, labels and start model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.small_training import Stop, discs, first, stopped_at, weights

from tilepipe.errors import InputError, ModelError, UsageError
from tilepipe.events import Event
from tilepipe.training.config import TrainConfig
from tilepipe.training.loop import fit

Configure = Callable[..., TrainConfig]
Write = Callable[..., Path]


def spoilt(image: np.ndarray) -> np.ndarray:
    """Return a float image with one row of the value that tools leave for nodata, which the file does not say."""
    image = image.astype(np.float32)
    image[:, 20] = np.finfo(np.float32).min
    return image


def test_the_first_loss_that_is_no_number_names_image_and_crop(small: Configure, write: Write, tmp_path: Path) -> None:
    image, label = discs()
    label[20] = 99  # not labelled: the row is context alone, and statistics do not see it
    entries = [
        {"image": str(write(f"{name}.tif", pixels)), "label": str(write(f"{name}_label.tif", label))}
        for name, pixels in (("good", image.astype(np.float32)), ("bad", spoilt(image)))
    ]
    config = small(train=entries, score=[], checkpoint=1, batch=4, steps=30, ignore=[99])
    events: list[Event] = []
    words = (
        r"the loss of step \d+ is not a number: .*bad\.tif holds values up to 3\.4e\+38 in rows \d+ to \d+, columns "
    )
    with pytest.raises(InputError, match=words):
        fit(config, events.append)
    folder = tmp_path / ".m.model.training"
    for path in folder.glob("*.pt"):
        kept = torch.load(path, weights_only=True)
        assert all(t.isfinite().all() for t in kept["module"].values() if t.is_floating_point())


def test_weights_that_run_away_are_said_to(small: Configure, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"step \d+ is not a number.*0\.tif.*; give a smaller learning_rate"):
        fit(small(learning_rate=1e30, warmup=0, clip=1e30, steps=40, checkpoint=1))
    for path in (tmp_path / ".m.model.training").glob("*.pt"):
        kept = torch.load(path, weights_only=True)
        assert all(np.isfinite(row).all() for row in kept["log"])


@pytest.mark.parametrize("what", ["image", pytest.param("label", marks=pytest.mark.long)])
def test_other_data_under_the_same_names_starts_anew(small: Configure, write: Write, tmp_path: Path, what: str) -> None:
    with pytest.raises(Stop):
        fit(small(), stopped_at(8))
    image, label = discs(seed=5)
    write("0.tif", image) if what == "image" else write("0_label.tif", label)
    events: list[Event] = []
    changed = fit(small(), events.append)
    assert "the images or labels are not those of the checkpoint of step 6" in first(events)
    assert first(events).endswith("training starts anew")
    assert weights(changed) == weights(fit(small(output=str(tmp_path / "fresh.model"))))


@pytest.mark.long
def test_the_same_data_elsewhere_in_time_goes_on(small: Configure, tmp_path: Path) -> None:
    """Copying files about changes their times, not what they hold."""
    with pytest.raises(Stop):
        fit(small(), stopped_at(8))
    for path in tmp_path.glob("0*.tif"):
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    events: list[Event] = []
    fit(small(), events.append)
    assert not any("anew" in event.message for event in events)


@pytest.mark.long
def test_polygons_are_known_by_their_content(small: Configure, write: Write, tmp_path: Path) -> None:
    def square(side: int) -> list[dict[str, Any]]:
        ring = [[0, 0], [side, 0], [side, side], [0, side], [0, 0]]
        return [{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}}]

    label = tmp_path / "l.geojson"
    entry = {"image": str(write("p.png", discs()[0])), "label": str(label)}
    label.write_text(json.dumps(square(30)))
    with pytest.raises(Stop):
        fit(small(train=[entry], score=[]), stopped_at(8))
    label.write_text(json.dumps(square(31)))
    events: list[Event] = []
    fit(small(train=[entry], score=[]), events.append)
    assert "the images or labels are not those" in first(events)


@pytest.mark.long
def test_a_start_model_that_was_mended_starts_anew(small: Configure, tmp_path: Path) -> None:
    one, other = (fit(small(output=str(tmp_path / f"start{k}.model"), seed=k)) for k in (1, 2))
    config = small(start=str(one), arch={"name": "unet", "width": 4, "depth": 2, "dropout": 0.1})
    with pytest.raises(Stop):
        fit(config, stopped_at(8))
    with pytest.raises(UsageError, match="of another configuration"):
        fit(small(start=str(other), arch=config.arch))
    shutil.rmtree(one)
    shutil.copytree(other, one)
    events: list[Event] = []
    fit(config, events.append)
    assert "start is not what the checkpoint of step 6 began with" in first(events)
