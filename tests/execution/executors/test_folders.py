"""Workers have their own working folder: what was named by a relative path is found all the same."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import rasterio
import zarr
from distributed import Client, LocalCluster
from helpers.cli_files import write_image
from PIL import Image

import tilepipe as tp
from tilepipe.box import Box
from tilepipe.sources.open import open_source
from tilepipe.testing import random_unet


def png(path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8)).save(path)


def store(path: Path) -> None:
    zarr.save_array(path, np.random.default_rng(0).integers(0, 255, (3, 40, 50)).astype(np.uint8))


@pytest.mark.parametrize(("name", "write"), [("a.png", png), ("a.tif", write_image), ("a.zarr", store)])
def test_a_source_of_a_relative_path_is_read_elsewhere(
    name: str, write: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / name)  # type: ignore[operator]
    monkeypatch.chdir(tmp_path)
    here = open_source(name)
    sent, box = pickle.dumps(here), Box(1, 2, 30, 40)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    there = pickle.loads(sent)
    assert there.name == name
    assert (there.read(box) == here.read(box)).all()


@pytest.mark.long
def test_a_run_of_relative_paths_on_a_scheduler_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path)
    with LocalCluster(n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster:
        write_image(tmp_path / "work" / "scene.tif")
        monkeypatch.chdir(tmp_path / "work")
        model = random_unet()
        whole = tp.predict("scene.tif", model, tile=96)
        with Client(cluster):
            tp.segment("scene.tif", model, "out.tif", scheduler=cluster.scheduler_address, tile=96)
    with rasterio.open("out.tif") as file:
        assert (file.read(1) == whole).all()
