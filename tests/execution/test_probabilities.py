"""Probabilities of each class, kept in the pass that makes the labels, against one pass over the image by torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
import zarr
from helpers.small_runs import StopError, files, stop_at, work
from numpy.typing import NDArray

import tilepipe as tp
from tilepipe.box import Box
from tilepipe.errors import InputError, UsageError
from tilepipe.evaluation.verify.verify import verify
from tilepipe.execution.export import export
from tilepipe.products.probabilities import read_probabilities
from tilepipe.sources.array import ArraySource
from tilepipe.testing import constant_model, noise, random_unet, write_geotiff, write_slide

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
PIXELS = noise(150, 200).read(Box(0, 0, 150, 200))
VALID = np.ones((150, 200), bool)
VALID[40:90, 60:120] = False
MODEL = random_unet(depth=1)
CROP: dict[str, Any] = {"tile": 64, "overlap": 32, "window_shape": "crop", "block": 64}
HANN: dict[str, Any] = {"tile": 64, "overlap": 32, "window_shape": "hann", "block": 64}


def whole(pixels: NDArray[Any] = PIXELS) -> NDArray[np.float64]:
    """Probabilities (classes, height, width) of one pass over the whole image, by torch alone."""
    with torch.inference_mode():
        scores = MODEL.module(MODEL.normalise(torch.from_numpy(pixels[None])))
    return np.asarray(scores.double().softmax(1)[0].numpy())


def stored(path: Path) -> NDArray[np.uint8]:
    with rasterio.open(path) as file:
        return np.asarray(file.read())


def test_they_are_those_of_the_whole_image(tmp_path: Path) -> None:
    result = tp.segment(ArraySource(PIXELS), MODEL, tmp_path / "a.tif", of="cog,probabilities", **CROP)
    assert [path.name for path in result.paths] == ["a.tif", "a.probabilities.tif"]
    found = stored(result.paths[1])
    # A code may lie on the other side of a half if torch rounds the last bit of a tile otherwise.
    np.testing.assert_array_less(np.abs(found - 254 * whole()), 0.5 + 1e-3)
    assert (found.argmax(0) == result.labels[:])[np.sort(found, 0)[-1] > np.sort(found, 0)[-2]].all()
    assert [np.array_equal(layer[:], plane) for layer, plane in zip(result.probabilities, found, strict=True)] == [
        True
    ] * 3
    assert result.probabilities[1].scale == 1 / 254
    assert tp.segment(ArraySource(PIXELS), MODEL, tmp_path / "b.tif", **CROP).probabilities == ()
    assert np.array_equal(stored(tmp_path / "b.tif"), stored(tmp_path / "a.tif")), "labels are the same without"
    assert verify(tmp_path / "a.tif", ArraySource(PIXELS), MODEL, windows=0).holds


def test_rasterio_shows_values_from_0_to_1_and_nodata_is_no_probability(tmp_path: Path) -> None:
    pixels = np.where(VALID, PIXELS, 0).astype(np.uint8)
    pixels[:, VALID] = np.maximum(pixels[:, VALID], 1)
    write_geotiff(tmp_path / "in.tif", pixels, nodata=0)
    path = tp.segment(tmp_path / "in.tif", MODEL, of=["cog", "probabilities"], **CROP).paths[1]
    assert path.name == "in.labels.probabilities.tif"
    with rasterio.open(path) as file, rasterio.open(tmp_path / "in.tif") as image:
        assert file.descriptions == MODEL.card.classes
        assert (file.scales, file.offsets, file.nodata) == ((1 / 254,) * 3, (0.0,) * 3, 255)
        assert file.tags(2)["MEANING"] == "probability of class class 1"
        assert (file.crs, file.transform) == (image.crs, image.transform)
        masked = file.read(masked=True)
        assert (masked.mask == ~VALID).all()
        values = masked * file.scales[0]
    assert (values.min() >= 0, values.max() <= 1) == (True, True)
    assert np.abs(values.sum(0) - 1).max() < 3 / 254


def test_overviews_are_averages_without_nodata(tmp_path: Path) -> None:
    pixels = np.tile(PIXELS, (1, 5, 4))[:, :700, :700]
    valid = np.ones((700, 700), bool)
    valid[:, 350:] = False
    path = tp.segment(ArraySource(pixels, valid=valid), MODEL, tmp_path / "a.tif", of="cog,probabilities").paths[1]
    with rasterio.open(path) as file:
        assert file.overviews(1) == file.overviews(3) == [2]
        full, half = file.read(), file.read(out_shape=(3, 350, 350))
    expected = full[:, :, :350].reshape(3, 350, 2, 175, 2).astype(float).mean((2, 4))
    assert np.abs(half[:, :, :175] - expected).max() <= 0.5
    assert (half[:, :, 175:] == 255).all()


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("cut", [pytest.param(CROP, marks=pytest.mark.long), HANN], ids=["crop", "hann"])
def test_the_same_bytes_for_any_blocks_and_workers_and_after_a_stop(
    cut: dict[str, Any], workers: int, tmp_path: Path
) -> None:
    image, of = ArraySource(PIXELS, valid=VALID), "cog,probabilities"
    first = tp.segment(image, MODEL, tmp_path / "a.tif", of=of, **cut)
    assert (stored(first.paths[1])[:, ~VALID] == 255).all()
    other = tp.segment(image, MODEL, tmp_path / "b.tif", of=of, **{**cut, "block": 128, "workers": workers})
    assert other.paths[1].read_bytes() == first.paths[1].read_bytes()
    with pytest.raises(StopError):
        tp.segment(image, MODEL, tmp_path / "c.tif", of=of, listener=stop_at("predict", 3), **cut)
    ledger = next(work(tmp_path / "c.tif").glob("*/ledger.jsonl"))
    assert len(before := ledger.read_text().splitlines()) >= 2
    resumed = tp.segment(image, MODEL, tmp_path / "c.tif", of=of, **cut)
    assert ledger.read_text().splitlines()[: len(before)] == before, "finished blocks are not computed again"
    assert resumed.paths[1].read_bytes() == first.paths[1].read_bytes()
    part = tp.segment(image, MODEL, tmp_path / "d.tif", of=of, region=Box(30, 50, 110, 170), **cut)
    assert np.array_equal(stored(part.paths[1]), stored(first.paths[1])[:, 30:110, 50:170])


def test_a_damaged_plane_is_computed_again(tmp_path: Path) -> None:
    image = ArraySource(PIXELS)
    whole_run = tp.segment(image, MODEL, tmp_path / "a.tif", of="cog,probabilities", **CROP)
    with pytest.raises(StopError):
        tp.segment(image, MODEL, tmp_path / "b.tif", of="cog,probabilities", listener=stop_at("export"), **CROP)
    planes = next(work(tmp_path / "b.tif").glob("*/run.zarr/layers/probabilities"))
    chunk = next(path for path in (planes / "1").rglob("*") if path.is_file() and path.name != "zarr.json")
    chunk.write_bytes(chunk.read_bytes()[:-7])
    again = tp.segment(image, MODEL, tmp_path / "b.tif", of="cog,probabilities", **CROP)
    assert again.paths[1].read_bytes() == whole_run.paths[1].read_bytes()


@pytest.mark.long
def test_a_slide_gets_an_ome_zarr_with_a_channel_for_each_class(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "slide.svs", [PIXELS])
    result = tp.segment(slide, MODEL, of="ome-zarr,probabilities", **CROP)
    assert [path.name for path in result.paths] == ["slide.labels.ome.zarr", "slide.labels.probabilities.ome.zarr"]
    group = zarr.open_group(result.paths[1], mode="r")
    ome: Any = group.attrs["ome"]
    assert [axis["name"] for axis in ome["multiscales"][0]["axes"]] == ["c", "y", "x"]
    assert [channel["label"] for channel in ome["omero"]["channels"]] == list(MODEL.card.classes)
    assert ome["omero"]["channels"][0]["window"]["end"] == 254
    assert group["0"].fill_value == 255  # type: ignore[union-attr]
    facts: Any = group.attrs["tilepipe"]
    assert (facts["measure"][0], facts["nodata"], facts["probabilities"]) == (1 / 254, 255, list(MODEL.card.classes))
    np.testing.assert_array_less(np.abs(np.asarray(group["0"]) - 254 * whole()), 0.5 + 1e-3)
    alone = tp.segment(slide, MODEL, tmp_path / "alone", of="probabilities", **CROP)
    assert [path.name for path in alone.paths] == ["alone.probabilities.ome.zarr"]
    assert np.array_equal(alone.labels[:], result.labels[:])
    tiff = tp.segment(slide, MODEL, tmp_path / "t.ome.tif", of="ome-tiff,probabilities", **CROP)
    assert [path.name for path in tiff.paths] == ["t.ome.tif", "t.probabilities.ome.zarr"]


def test_export_makes_them_from_a_run_that_has_kept_them(tmp_path: Path) -> None:
    result = tp.segment(ArraySource(PIXELS), MODEL, tmp_path / "a.tif", of="cog,probabilities", **CROP)
    (made,) = export(result.paths[0], tmp_path / "b.probabilities.ome.zarr")
    for plane, layer in zip(read_probabilities(made), result.probabilities, strict=True):
        assert np.array_equal(plane.read(Box(0, 0, 150, 200)), layer[:])
    (copy,) = export(work(result.paths[0]), tmp_path / "c.probabilities.tif")
    assert copy.read_bytes() == result.paths[1].read_bytes()
    tp.segment(ArraySource(PIXELS), MODEL, tmp_path / "d.tif", **CROP)
    with pytest.raises(UsageError, match=r"e\.probabilities\.tif cannot be made of labels alone.*of='cog,prob"):
        export(tmp_path / "d.tif", tmp_path / "e", of="probabilities")
    assert not (tmp_path / "e.probabilities.tif").exists()
    with pytest.raises(InputError, match="holds no probabilities"):
        read_probabilities(tmp_path / "d.tif")


def test_asking_for_them_later_is_another_run_and_asking_again_does_nothing(tmp_path: Path) -> None:
    image, of = ArraySource(PIXELS), "cog,probabilities"
    first = tp.segment(image, MODEL, tmp_path / "a.tif", **CROP)
    with pytest.raises(UsageError, match="exists"):
        tp.segment(image, MODEL, tmp_path / "a.tif", of=of, **CROP)
    more = tp.segment(image, MODEL, tmp_path / "a.tif", of=of, overwrite=True, **CROP)
    assert more.record["request"] != first.record["request"]
    assert more.record["key"] != first.record["key"]
    assert more.record["contents"] == {"a.tif": "labels", "a.probabilities.tif": "probabilities"}
    before = files(tmp_path)
    tp.segment(image, MODEL, tmp_path / "a.tif", of=of, **CROP)
    assert files(tmp_path) == before


def test_they_come_at_another_resolution_as_labels_do(tmp_path: Path) -> None:
    model = tp.Model.from_torch(MODEL.module, MODEL.card.model_copy(update={"resolution": 1.0}))
    path = write_geotiff(tmp_path / "in.tif", PIXELS)
    result = tp.segment(path, model, of="cog,probabilities")
    found = stored(result.paths[1])
    assert found.shape == (3, 150, 200)
    clear = np.sort(found, 0)[-1] > np.sort(found, 0)[-2]
    assert (found.argmax(0) == result.labels[:])[clear].all()


def test_what_cannot_be_is_refused_and_the_plan_counts_them(tmp_path: Path) -> None:
    of = "cog,probabilities"
    labels = tp.Model(MODEL.card.model_copy(update={"output": "labels"}), MODEL.module)
    with pytest.raises(UsageError, match="gives labels and no probabilities; leave probabilities out"):
        tp.plan(ArraySource(PIXELS), labels, of=of)
    many = constant_model(*[1 / 300] * 300)
    with pytest.raises(UsageError, match="has 300 classes, and probabilities are kept of at most 255"):
        tp.plan(np.zeros((20, 20), np.uint8), many, of=of)
    plain, kept = (tp.plan(ArraySource(PIXELS), MODEL, **CROP, of=names) for names in ("cog", of))
    assert kept.disk() - plain.disk() == 4 * 3 * 150 * 200, "in the work directory, and three times while it is written"
    assert kept.memory.export - plain.memory.export == 3 * (2 << 20)
    assert kept.memory.blocks > plain.memory.blocks
    assert "layers  probabilities" in str(kept)
    assert tp.plan(ArraySource(PIXELS), MODEL, **CROP).key({}, "") == plain.key({}, "") != kept.key({}, "")
