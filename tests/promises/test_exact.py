"""EXACT on real images: every local network, cut anyhow, gives the labels of one pass over the whole image."""

from __future__ import annotations

import copy
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from helpers.fakes import fitted
from numpy.typing import NDArray
from torch import Tensor, nn

import tilepipe as tp
from tilepipe.models.nets.arch import Up
from tilepipe.models.nets.linknet import LinkNetArch
from tilepipe.sources.array import ArraySource
from tilepipe.testing import whole_image

SAMPLE = Path(__file__).parents[2] / "pipelines" / "sample"
DATA = Path(os.environ.get("TILEPIPE_DATA", "/nowhere"))
IMAGES = {  # file and a corner in it; sizes are odd
    "town": (DATA / "aerial_banepa" / "banepa_rgb.tif", 1000, 700),
    "nuclei": (DATA / "nuclei_monuseg" / "val" / "TCGA-E2-A14V-01Z-00-DX1.png", 301, 207),
}
LOCAL = {
    **{f"unet {up}": {"name": "unet", "width": 4, "depth": 3, "up": up} for up in get_args(Up)},
    **{
        f"linknet {up}": {"name": "linknet", "width": 8, "depth": 3, "up": up}
        for up in get_args(LinkNetArch.model_fields["up"].annotation)
    },
    **{f"fcn-{k}s": {"name": "fcn", "width": 4, "depth": 5, "finest": k} for k in (32, 16, 8)},
    "fcn-8s bilinear": {"name": "fcn", "width": 4, "depth": 5, "up": "bilinear"},
    "segnet": {"name": "segnet", "width": 4, "depth": 3},
    "deeplab": {"name": "deeplab", "width": 4, "depth": 3, "output_stride": 8, "rate": 1},
}


def model_of(arch: dict[str, Any], image: NDArray[np.uint8]) -> tp.Model:
    """Random weights, scaled by the image as training does, the head moved so that no class is rare; no halo known.

    A network that is not scaled to its image amplifies float32's own rounding: 5e-5 between two kernels was seen.
    """
    torch.manual_seed(4)
    net, card, x = fitted(arch, image, 224)
    with torch.no_grad():
        if isinstance(head := getattr(net, "head", None), nn.Conv2d):
            head.bias -= net.eval()(x)[0].flatten(1).median(1).values  # type: ignore[operator]
    return tp.Model.from_torch(net, card)


def probabilities(model: tp.Model, image: NDArray[np.uint8]) -> Tensor:
    """Return (classes, H, W) of one forward pass, in the precision of the model's weights."""
    with torch.inference_mode():
        x = model.normalise(torch.from_numpy(image)[None], next(model.module.parameters()).dtype)
        logits: Tensor = model.module(x)
    return logits[0].softmax(0)


def in_tiles(model: tp.Model, image: NDArray[np.uint8], halo: int, shift: int) -> tuple[int, float]:
    """Return (labels, probability) by which tiles in the middle of the image differ from the whole of it.

    Tiles see `halo` pixels around what they keep and begin `shift` pixels off the stride grid.
    """
    whole, stride = probabilities(model, image), model.card.stride
    core = (4 if stride > 16 else 8) * stride
    flips, gap, side = 0, 0.0, core + 2 * halo
    _, height, width = image.shape
    for y in range(shift, height - side - stride + shift + 1, core):
        for x in range(shift, width - side - stride + shift + 1, core):
            tile = probabilities(model, np.ascontiguousarray(image[:, y : y + side, x : x + side]))
            inner = tile[:, halo : halo + core, halo : halo + core]
            there = whole[:, y + halo : y + halo + core, x + halo : x + halo + core]
            flips += int((inner.argmax(0) != there.argmax(0)).sum())
            gap = max(gap, float((inner - there).abs().max()))
    return flips, gap


def check(arch: dict[str, Any], image: NDArray[np.uint8], cells: tuple[int, ...], folder: Path) -> None:
    """Cut with tiles that keep so many strides, small and large, against one pass over the whole image.

    In fp64 not one label may differ, in tiles and through the whole pipeline, but for unpooling where two pixels of a
    pool are equal: the last bit decides which of them is the largest there (5 labels of the nuclei). In fp32 the
    kernels of oneDNN round differently for tiles of different width: a label may differ where its class leads by less
    than 4 times what rounding changes in one pass (fp32 against fp64); anywhere where rounding decides which pixel of a
    pool was the largest, as unpooling puts the value there.
    """
    model = model_of(arch, image)
    stride, source = model.card.stride, ArraySource(image)
    truth = whole_image(model, source)
    assert np.bincount(truth.ravel(), minlength=3).max() < 0.98 * truth.size
    halo = max(tp.probe(model).halo or ())
    maps = []
    for cell in cells:
        result = tp.segment(source, model, folder / f"{cell}.tif", tile=2 * halo + cell * stride, tolerance=0)
        assert result.certificate.mode == "EXACT"
        assert result.plan.tile_count > 1
        maps.append(np.asarray(result.labels))
    maps.append(tp.predict(source, model, tile=2 * halo + 5 * stride, tolerance=0))
    print("fp32:", *(int((labels != truth).sum()) for labels in maps), f"of {truth.size} labels differ")
    unpools = arch.get("up") == "unpool" or arch["name"] == "segnet"
    in_fp64(model, image, [2 * halo + cell * stride for cell in (*cells, 3)], folder, 8 if unpools else 0)
    padded = source.read(tp.Box(0, 0, *(-(-side // stride) * stride for side in truth.shape)))
    single, tiled = probabilities(model, padded), in_tiles(model, padded, halo, 0)
    double = replace(model, module=copy.deepcopy(model.module).double())
    rounding = float((probabilities(double, padded) - single).abs().max())
    first, second = single[:, : truth.shape[0], : truth.shape[1]].topk(2, 0).values
    clear = (first - second).numpy() > 4 * rounding
    assert rounding < 5e-5
    assert tiled[1] <= max(1e-5, 2 * rounding)
    for labels in maps:
        assert unpools or not (labels != truth)[clear].any()
        assert (labels != truth).sum() <= 3
    flips, gap = in_tiles(double, padded, halo, 0)
    assert (flips, gap < 1e-12) == (0, True)
    assert in_tiles(double, padded, halo, stride // 2)[0] > 0


def in_fp64(model: tp.Model, image: NDArray[np.uint8], tiles: list[int], folder: Path, most: int = 0) -> None:
    """Segment the image, and predict a part of another size of it, in fp64: the labels of one pass each."""
    whole, part = ArraySource(image), ArraySource(np.ascontiguousarray(image[:, :-37, :-54]))
    truths = [whole_image(model, source, torch.float64) for source in (whole, part)]
    for tile in tiles:
        result = tp.segment(whole, model, folder / f"{tile}.fp64.tif", tile=tile, tolerance=0, precision="fp64")
        assert (result.certificate.mode, result.certificate.precision) == ("EXACT", "fp64")
        assert result.plan.tile_count > 1
        predicted = tp.predict(part, model, tile=tile, tolerance=0, precision="fp64")
        assert max((np.asarray(result.labels) != truths[0]).sum(), (predicted != truths[1]).sum()) <= most
    assert next(model.module.parameters()).dtype == torch.float32


@pytest.mark.long
@pytest.mark.parametrize("name", ["deeplab", "unet deconv3"])
def test_small_networks_on_a_satellite_image(name: str, tmp_path: Path) -> None:
    image = tp.open_source(SAMPLE / "Amazon_24_20.tif").read(tp.Box(100, 60, 371, 293))
    arch = {**LOCAL[name], "width": 2, "depth": 2 if "unet" in name else 3}
    check(arch, image, (3,), tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("name", LOCAL)
def test_every_local_architecture_on_two_real_images(name: str, image: str, tmp_path: Path) -> None:
    file, y, x = IMAGES[image]
    if not file.exists():
        pytest.skip("TILEPIPE_DATA does not name the development data")
    side, cells = (531, (2, 4)) if LOCAL[name]["name"] == "fcn" else (311, (2, 9))
    check(LOCAL[name], tp.open_source(file).read(tp.Box(y, x, y + side, x + side - 22)), cells, tmp_path)


TRAINED = {  # image, corner and side
    "buildings": (DATA / "aerial_banepa" / "banepa_rgb.tif", 1000, 700, 801),
    "nuclei": (DATA / "nuclei_monuseg" / "val" / "TCGA-E2-A14V-01Z-00-DX1.png", 101, 107, 801),
    "forest": (DATA / "amazon_forest" / "val" / "Amazon_1052_50.tif", 0, 0, 501),
}


@pytest.mark.long
@pytest.mark.parametrize("name", TRAINED)
def test_bundled_models_on_real_images(name: str, tmp_path: Path) -> None:
    file, y, x, side = TRAINED[name]
    if not file.exists():
        pytest.skip("TILEPIPE_DATA does not name the development data")
    image, model = tp.open_source(file).read(tp.Box(y, x, y + side, x + side - 22)), tp.load_model(name)
    tiles = [2 * (model.card.halo or 0) + cell * model.card.stride for cell in (4, 9, 20)]
    truth, found = whole_image(model, ArraySource(image)), []
    for tile in tiles:
        labels = tp.predict(image, model, tile=tile, tolerance=0)
        found.append(int((labels != truth).sum()))
    print(f"{name}, tiles of {tiles}, fp32:", *found, f"of {truth.size} labels differ")
    in_fp64(model, image, tiles[1:], tmp_path)
