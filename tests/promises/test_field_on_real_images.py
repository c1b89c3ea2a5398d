"""Statistics from a field on real images: no label depends on the tiles, and scores are not below those of live tiles.

Small networks, trained here for 150 steps: what is compared is where statistics come from, not how good a network is.
Live tiles have the same size and context and compute their own statistics.
`python tests/promises/test_field_on_real_images.py banepa instance` prints the figures of docs/seams.md.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from helpers.fakes import Squeeze
from numpy.typing import NDArray
from PIL import Image
from rasterio.enums import Resampling
from torch import nn

import tilepipe as tp
from tilepipe.evaluation.metrics.confusion import Confusion, confusion_matrix
from tilepipe.evaluation.verify.recompute import Passes
from tilepipe.evaluation.verify.seam_patches import shifted
from tilepipe.execution.job import make_job
from tilepipe.models.nets import zoo
from tilepipe.models.nets.layers import ConvBlock
from tilepipe.planning.settings import Request

KINDS = ("instance", "group", "squeeze", "pyramid")
STEPS, CROP, BATCH, TILE = 150, 128, 8, 320
Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""Image (3, height, width) and labels (height, width), 0 or 1."""


def banepa(folder: Path) -> tuple[list[Pair], list[Pair]]:
    """Rows 0 to 2815 to train on, the rest to score, both at 0.3 m."""
    with rasterio.open(folder / "aerial_banepa/banepa_rgb.tif") as file:
        image = file.read(out_shape=(3, 2048, 1536), resampling=Resampling.average)
    with rasterio.open(folder / "aerial_banepa/banepa_buildings.tif") as file:
        labels = file.read(1, out_shape=(2048, 1536))
    return [(image[:, :1408], labels[:1408])], [(image[:, 1408:], labels[1408:])]


def nuclei(folder: Path) -> tuple[list[Pair], list[Pair]]:
    """Five images to train on, two to score."""

    def pairs(part: str) -> list[Pair]:
        masks = sorted((folder / "nuclei_monuseg" / part).glob("*_mask.png"))
        images = [Image.open(mask.with_name(mask.name.replace("_mask", ""))).convert("RGB") for mask in masks]
        truths = [(np.asarray(Image.open(mask).convert("L")) > 0).astype(np.uint8) for mask in masks]
        return [(np.asarray(i).transpose(2, 0, 1), t) for i, t in zip(images, truths, strict=True)]

    return pairs("train"), pairs("val")


SETS = {"banepa": banepa, "nuclei": nuclei}


def network(kind: str) -> nn.Module:
    torch.manual_seed(0)
    if kind == "pyramid":
        deep = {"width": 8, "depth": 3, "output_stride": 8, "rate": 1, "image_pool": True}
        return zoo.build({"name": "deeplab", **deep}, 3, 2)
    norm = "batch" if kind == "squeeze" else kind
    net = zoo.build({"name": "unet", "width": 8, "depth": 3, "norm": norm}, 3, 2)
    for block in net.modules():
        if kind == "squeeze" and isinstance(block, ConvBlock):
            block.drop = Squeeze(block.conv2.out_channels)
    return net


def trained(kind: str, pairs: list[Pair]) -> tp.Model:
    """Train on random crops: Adam, cross-entropy."""
    net, rng = network(kind), np.random.default_rng(0)
    scale = torch.tensor([128.0]), torch.tensor([50.0])
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    net.train()
    for _ in range(STEPS):
        crops = []
        for _ in range(BATCH):
            image, labels = pairs[rng.integers(len(pairs))]
            y, x = (rng.integers(0, size - CROP) for size in labels.shape)
            crops.append((image[:, y : y + CROP, x : x + CROP], labels[y : y + CROP, x : x + CROP]))
        x_ = (torch.from_numpy(np.stack([crop for crop, _ in crops])).float() - scale[0]) / scale[1]
        loss = nn.functional.cross_entropy(net(x_), torch.from_numpy(np.stack([c for _, c in crops])).long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    card = tp.ModelCard(
        bands=3, classes=["background", "object"], mean=[128] * 3, std=[50] * 3, stride=8,
        training={"configuration": {"crop": CROP}},
    )  # fmt: skip
    return tp.Model.from_torch(net, card)


@dataclass(frozen=True)
class Figures:
    """Of one source of statistics."""

    miou: float
    """Mean IoU over both classes, 0 to 1, all scored images."""
    flips: float
    """Share of labels that change when the grid moves by half a core, 0 to 1."""


def measured(model: tp.Model, pairs: list[Pair], chosen: Any) -> Figures:
    """Predict, score and move the grid with these settings."""
    total, flips, pixels = Confusion.zero(2), 0, 0
    for image, truth in pairs:
        labels = tp.predict(image, model, **chosen)
        total += confusion_matrix(labels, truth.astype(np.int64), 2, ignore=-1, nodata=None)
        passes = Passes(make_job(tp.open_source(image), model, Request.of(chosen)))
        found = shifted(passes, 4, 0)
        passes.close()
        assert found is not None
        flips, pixels = flips + found.flips.different, pixels + found.flips.pixels
    return Figures(float(np.nanmean(total.iou)), flips / pixels)


def figures(name: str, kind: str) -> dict[str, Figures]:
    train, score = SETS[name](Path(os.environ["TILEPIPE_DATA"]))
    model = trained(kind, train)
    field: Any = {"tile": TILE, "statistics": "field"}
    overlap = tp.plan(score[0][0], model, **field).tiling.overlap
    live = {"tile": TILE, "statistics": "tile", "window_shape": "crop", "overlap": overlap}
    return {"field": measured(model, score, field), "live": measured(model, score, live)}


@pytest.mark.long
@pytest.mark.skipif("TILEPIPE_DATA" not in os.environ, reason="needs real images: set TILEPIPE_DATA")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SETS)
def test_a_field_is_free_of_the_grid_and_no_worse(name: str, kind: str) -> None:
    found = figures(name, kind)
    assert found["field"].flips == 0
    assert found["field"].miou >= found["live"].miou - 0.01
    assert found["live"].flips > 0


if __name__ == "__main__":
    import time

    for one in sys.argv[2:] or KINDS:
        began = time.perf_counter()
        sys.stdout.write(f"{sys.argv[1]} {one} {figures(sys.argv[1], one)} {time.perf_counter() - began:.0f} s\n")
        sys.stdout.flush()
