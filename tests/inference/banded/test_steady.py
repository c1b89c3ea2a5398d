"""The middle of a pass, computed by another runtime, gives what the rules give, wherever the pass begins."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
import torch
from helpers.fakes import global_model
from helpers.runtimes import RUNTIMES
from torch import Tensor

from tilepipe.box import Box
from tilepipe.errors import ModelError
from tilepipe.inference.banded.columns import Columns
from tilepipe.inference.device import Compute
from tilepipe.inference.runtimes.base import stated
from tilepipe.models.card import ModelCard
from tilepipe.models.model import Model
from tilepipe.models.nets import zoo
from tilepipe.planning.receptive_field import measure_receptive_field
from tilepipe.tiling.tiling import Bands

HEIGHT, WIDTH = 720, 64
IMAGE = np.random.default_rng(0).integers(0, 256, (3, HEIGHT, WIDTH), dtype=np.uint8)
NETS: dict[str, dict[str, Any]] = {
    "unet": {"name": "unet", "width": 4, "depth": 2},
    "bilinear, blur": {"name": "unet", "width": 4, "depth": 2, "up": "bilinear", "down": "blur"},
    "deconv": {"name": "unet", "width": 4, "depth": 2, "up": "deconv3", "down": "strided"},
    "shuffle": {"name": "linknet", "width": 4, "depth": 3, "up": "shuffle"},
}


def ready(box: Box) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(IMAGE[:, box.y0 : box.y1, box.x0 : box.x1])
    return future


def rows(columns: Columns, y0: int, y1: int) -> Tensor:
    found: list[Tensor] = []
    columns.run(Box(y0, 0, y1, WIDTH), HEIGHT, ready, lambda _, logits: found.append(logits.clone()))
    return torch.cat(found, 2)


@pytest.mark.parametrize(
    "name", ["unet", *(pytest.param(name, marks=pytest.mark.long) for name in ("bilinear, blur", "deconv", "shuffle"))]
)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_pass_is_that_of_the_rules_and_begins_anywhere(runtime: str, name: str) -> None:
    torch.manual_seed(0)
    net = zoo.build(NETS[name], 3, 3).eval()
    model = Model.from_torch(net, ModelCard(bands=3, classes=["a", "b", "c"], mean=[127] * 3, std=[60] * 3))
    card, reach = measure_receptive_field(model)
    assert reach.measured
    band = 16
    halo = card.halo or 0
    bands = Bands(band, (-(-halo // band) + 1) * band, 64)
    truth = rows(Columns(model, bands, card.stride, Compute()), 0, HEIGHT)
    compute = Compute(runtime=stated(runtime))
    whole = rows(Columns(model, bands, card.stride, compute), 0, HEIGHT)
    assert float((whole - truth).abs().max()) < 1e-5 * float(truth.abs().max())
    columns = Columns(model, bands, card.stride, compute)
    for y0, y1 in ((600, 700), (311, 402), (402, 450), (90, 130), (0, 50), (690, 720)):
        assert torch.equal(rows(columns, y0, y1), whole[:, :, y0:y1]), (y0, y1)


def test_statistics_that_are_held_fixed_are_refused() -> None:
    model = global_model("instance")
    with pytest.raises(ModelError, match="instance_norm"):
        Columns(model, Bands(16, 48, 64), 4, Compute(runtime=stated("onnxruntime"))).run(
            Box(300, 0, 340, WIDTH), HEIGHT, ready, lambda *_: None
        )
