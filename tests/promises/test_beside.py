"""What programs leave beside an image while it is worked on: runs go on, batches skip what is done, verify holds."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
import yaml
from helpers.small_runs import StopError, stop_at
from PIL import Image

import tilepipe as tp
from tilepipe.box import Box
from tilepipe.evaluation.verify.verify import verify
from tilepipe.events import Event
from tilepipe.execution.batch import run_batch
from tilepipe.execution.batch.record import DONE, UNCHANGED
from tilepipe.models.formats.directory import save_model
from tilepipe.testing import noise, random_unet

SLIDE = Path(__file__).parents[2] / "pipelines" / "sample" / "CMU-1-Small-Region.svs"
NAMES = ["a.tif", "a.ome.tif", "a.png", "a.svs"]
FEW = [pytest.param(name, marks=pytest.mark.long if name in ("a.ome.tif", "a.png") else []) for name in NAMES]
CUT: dict[str, Any] = {"tile": 64, "block": 64, "window": (0, 0, 170, 150)}
PAM = """<PAMDataset><PAMRasterBand band="1"><Histograms/><Metadata><MDI key="STATISTICS_MAXIMUM">255</MDI>
<MDI key="STATISTICS_MEAN">127.5</MDI></Metadata></PAMRasterBand></PAMDataset>"""


def draw(path: Path) -> Path:
    pixels = noise(150, 170).read(Box(0, 0, 150, 170))
    if path.suffix == ".svs":
        shutil.copy(SLIDE, path)
    elif path.suffix == ".png":
        Image.fromarray(pixels.transpose(1, 2, 0)).save(path)
    elif ".ome" in path.name:
        tifffile.imwrite(path, pixels, ome=True, metadata={"axes": "CYX"})
    else:
        place = {"crs": "EPSG:32645", "transform": rasterio.Affine(0.5, 0, 400000, 0, -0.5, 3000000), "nodata": 3}
        size = {"count": 3, "height": 150, "width": 170, "dtype": "uint8"}
        with rasterio.open(path, "w", driver="GTiff", **size, **place) as file:
            file.write(pixels)
    return path


def look_at(path: Path) -> None:
    """Leave beside an image what QGIS, gdalinfo -stats and gdaladdo -ro leave."""
    path.with_name(path.name + ".aux.xml").write_text(PAM)
    if path.name == "a.tif":
        with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(path, "r+") as file:
            file.build_overviews([2, 4])
        assert path.with_name("a.tif.ovr").exists()
        with rasterio.open(path) as file:
            assert file.overviews(1) == [2, 4]
            assert file.tags(1)["STATISTICS_MEAN"] == "127.5"
    path.with_suffix(".qgz").write_bytes(b"PK")


@pytest.fixture
def model(tmp_path: Path) -> str:
    made = random_unet(depth=1)
    width = next(module.out_channels for module in made.module.modules() if hasattr(module, "out_channels"))
    card = made.card.model_copy(update={"arch": {"name": "unet", "width": width, "depth": 1}})
    save_model(type(made)(card, made.module), tmp_path / "net.model")
    return str(tmp_path / "net.model")


def labels(path: Path) -> bytes:
    return np.asarray(tp.open_labels(path)).tobytes()


@pytest.mark.parametrize("name", FEW)
def test_an_interrupted_run_goes_on(name: str, model: str, tmp_path: Path) -> None:
    path, events = draw(tmp_path / name), list[Event]()
    tp.segment(path, model, tmp_path / "truth.tif", **CUT)
    with suppress(StopError):
        tp.segment(path, model, tmp_path / "out.tif", listener=stop_at("predict", 2), **CUT)
    look_at(path)
    tp.segment(path, model, tmp_path / "out.tif", listener=events.append, **CUT)
    done = [event.done for event in events if event.stage == "predict" and "failed" in event.data]
    assert done == [3, 4], "blocks that were done are not done again"
    assert labels(tmp_path / "out.tif") == labels(tmp_path / "truth.tif")


@pytest.mark.parametrize("name", NAMES)
def test_a_finished_batch_computes_nothing(name: str, model: str, tmp_path: Path) -> None:
    path = draw(tmp_path / name)
    fields: dict[str, Any] = {"images": name, "model": model, "output": "out/{stem}.labels.tif"}
    fields["settings"] = {**CUT, "window": list(CUT["window"])}
    (tmp_path / "night.yaml").write_text(yaml.safe_dump(fields))
    assert [entry.status for entry in run_batch.run(tmp_path / "night.yaml").entries] == [DONE]
    look_at(path)
    assert [entry.status for entry in run_batch.run(tmp_path / "night.yaml", dry_run=True).entries] == [UNCHANGED]
    assert [entry.status for entry in run_batch.run(tmp_path / "night.yaml").entries] == [UNCHANGED]


@pytest.mark.parametrize("name", FEW)
def test_verify_holds(name: str, model: str, tmp_path: Path) -> None:
    path = draw(tmp_path / name)
    tp.segment(path, model, tmp_path / "out.tif", **CUT)
    before = verify(tmp_path / "out.tif")
    assert before.holds, str(before)
    look_at(path)
    after = verify(tmp_path / "out.tif")
    assert after.holds, str(after)
    assert str(after) == str(before)
