"""Batches with the real engine: edited labels are kept, a kill or a damaged record between two products is survived."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml

from tilepipe.box import Box
from tilepipe.execution import publish
from tilepipe.execution.batch import run_batch
from tilepipe.execution.batch.record import DONE, EDITED, FAILED, UNCHANGED
from tilepipe.models.formats.directory import save_model
from tilepipe.testing import noise, random_unet


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    model = random_unet(depth=1)
    width = next(module.out_channels for module in model.module.modules() if hasattr(module, "out_channels"))
    card = model.card.model_copy(update={"arch": {"name": "unet", "width": width, "depth": 1}})
    save_model(type(model)(card, model.module), tmp_path / "net.model")
    draw(tmp_path / "a.tif", 0)
    fields = {"images": "a.tif", "model": "net.model", "output": "out/{stem}.labels.tif", "of": ["cog", "geojson"]}
    (tmp_path / "night.yaml").write_text(yaml.safe_dump({**fields, "settings": {"tile": 64, "block": 64}}))
    return tmp_path / "night.yaml"


def draw(path: Path, seed: int) -> None:
    pixels = noise(90, 130, seed=seed).read(Box(0, 0, 90, 130))
    size = {"count": 3, "height": 90, "width": 130}
    with rasterio.open(path, "w", driver="GTiff", dtype="uint8", **size, transform=(2, 0, 0, 0, -2, 0)) as file:
        file.write(pixels)


def status(jobs: Path, **how: bool) -> str:
    (entry,) = run_batch.run(jobs, **how).entries
    assert entry.status != FAILED, entry.message
    return entry.status


def test_edited_labels_are_kept_and_listed(jobs: Path) -> None:
    assert status(jobs) == DONE
    edited = jobs.parent / "out" / "a.labels.geojson"
    found = json.loads(edited.read_text())
    found["features"] = found["features"][:1]
    edited.write_text(json.dumps(found))
    assert [status(jobs, dry_run=True), status(jobs)] == [EDITED, EDITED]
    assert json.loads(edited.read_text()) == found


def test_a_damaged_record_is_made_again(jobs: Path) -> None:
    assert status(jobs) == DONE
    record = jobs.parent / "out" / "night.jsonl"
    record.write_text(record.read_text().replace('"bytes": ', '"bytes": 1', 1))
    assert [status(jobs), status(jobs)] == [DONE, UNCHANGED]


def test_stopped_between_two_products_of_an_image_that_changed(jobs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert status(jobs) == DONE
    labels = jobs.parent / "out" / "a.labels.tif"
    before = rasterio.open(labels).read()
    draw(jobs.parent / "a.tif", 1)
    real, calls = publish._replace, []

    def replace(*paths: Path) -> None:
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(real(*paths))

    with monkeypatch.context() as patch:
        patch.setattr(publish, "_replace", replace)
        with pytest.raises(KeyboardInterrupt):
            run_batch.run(jobs)
    assert [status(jobs), status(jobs)] == [DONE, UNCHANGED]
    assert not np.array_equal(rasterio.open(labels).read(), before)
