"""Lazy labels equal those of the run, and compute the tiles of the part that is asked for alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cloudpickle
import dask.array as da
import numpy as np
import pytest
import torch
import xarray

import tilepipe as tp
from tilepipe.execution.block import BlockWorker
from tilepipe.testing import noise, random_unet

IMAGE = noise(300, 420).read(tp.Box(0, 0, 300, 420))
CUTS: dict[str, dict[str, Any]] = {
    "crop": {"tile": 96, "overlap": 64, "window_shape": "crop", "block": 96},
    "hann": {"tile": 96, "overlap": 32, "window_shape": "hann", "block": 96},
    "bands": {},
    "model": {"tile": 96, "resolution": "model", "pixel_size": 1.0},
}


@pytest.mark.parametrize("cut", CUTS)
def test_they_are_those_of_the_run(cut: str, tmp_path: Path) -> None:
    model = random_unet()
    if cut == "model":
        model = tp.Model(model.card.model_copy(update={"resolution": 2.0, "unit": "m"}), model.module)
    wanted = tp.segment(IMAGE, model, tmp_path / "labels.tif", **CUTS[cut]).labels
    lazy = tp.labels(IMAGE, model, **CUTS[cut])
    assert isinstance(lazy, da.Array)
    assert (lazy.shape, lazy.dtype) == (wanted.shape, wanted.dtype)
    np.testing.assert_array_equal(lazy.compute(), wanted[:])
    np.testing.assert_array_equal(lazy[40:120, 100:150].compute(), wanted[40:120, 100:150])
    sent = cloudpickle.loads(cloudpickle.dumps(lazy))
    np.testing.assert_array_equal(sent[-30:, :70].compute(), wanted[-30:, :70])


def test_only_the_tiles_of_the_part_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    tiles: list[int] = []
    fill = BlockWorker._fill

    def counted(self: BlockWorker, canvas: Any, wanted: str, asked: Any, tally: Any) -> None:
        fill(self, canvas, wanted, asked, tally)
        tiles.append(tally.tiles)

    monkeypatch.setattr(BlockWorker, "_fill", counted)
    lazy = tp.labels(IMAGE, random_unet(), **CUTS["crop"])
    assert tiles == []
    lazy[:10, :10].compute()
    assert len(tiles) == 1
    assert 0 < tiles[0] < tp.plan(IMAGE, random_unet(), **CUTS["crop"]).tile_count / 4


def test_a_data_array_gives_a_lazy_data_array() -> None:
    places = {"y": 50.0 - np.arange(300), "x": 7.0 + np.arange(420)}
    scene = xarray.DataArray(IMAGE, places, ("band", "y", "x"), attrs={"crs": "EPSG:32633"})
    lazy = tp.labels(scene, random_unet(), **CUTS["crop"])
    assert isinstance(lazy.data, da.Array)
    part = lazy.sel(y=slice(40, 20), x=slice(100, 120))
    np.testing.assert_array_equal(part, tp.predict(scene, random_unet(), **CUTS["crop"]).sel(y=part.y, x=part.x))


def test_a_tile_that_fails_is_an_error_and_not_nodata() -> None:
    class Picky(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if float(x[0, 0, 0, 0]) > 1e8:
                raise ValueError("too bright")
            return x[:, :2]

    bright = np.full((3, 128, 128), 1e9, np.float32)
    bright[:, :64] = 1
    model = tp.Model.from_torch(Picky(), tp.ModelCard(bands=3, classes=["a", "b"], halo=0))
    lazy = tp.labels(bright, model, tile=64)
    assert lazy[:5, :5].compute().shape == (5, 5)
    with pytest.raises(tp.TilepipeError, match="too bright"):
        lazy[70:75, :5].compute()
    with pytest.raises(tp.TilepipeError, match=r"labels writes nothing.*'workers'"):
        tp.labels(IMAGE, model, workers=2)
