"""Networks that mix the whole tile, and a way to run a plan without products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tilepipe.box import Box
from tilepipe.events import silent
from tilepipe.execution.block_queue import BlockQueue
from tilepipe.execution.durable_array import Layout
from tilepipe.execution.executors import serial
from tilepipe.execution.job import Job, make_job
from tilepipe.execution.ledger import Ledger
from tilepipe.execution.store import Store
from tilepipe.models.card import ModelCard
from tilepipe.models.model import Model
from tilepipe.models.nets import zoo
from tilepipe.planning.plan import Plan
from tilepipe.planning.receptive_field import MEASURED, reach_of_card
from tilepipe.planning.settings import Request
from tilepipe.planning.tile_size import tile_size
from tilepipe.sources.base import Source


def job_for(source: Source, model: Model, directory: Path | None = None, **settings: Any) -> Job:
    """Return the job of the public functions for a card that is right, on the CPU unless a device is named.

    Nothing is measured: statistics are those of each tile, and the whole reach is kept at any cost.
    """
    request = Request.of({"device": "cpu", "statistics": "tile", **settings})
    request = replace(request, tile=tile_size(model.card, request), tolerance=0)
    reach = reach_of_card(model.card)
    known = model.card, replace(reach, known=MEASURED) if reach.sides else reach
    return replace(make_job(source, model, request, known), directory=directory)


def open_queue(job: Job, listener: Any = silent) -> BlockQueue:
    assert job.directory is not None
    plan = job.plan
    zone = plan.grid.y.zone, plan.grid.x.zone
    store = Store.create(job.directory, Layout(plan.predicted, zone, plan.label_dtype, plan.nodata), plan.kept)
    return BlockQueue(plan, Ledger(job.directory / "ledger.jsonl"), store, listener)


def run_labels(
    source: Source,
    model: Model,
    directory: Path,
    engine: Callable[[Job, BlockQueue], None] = serial.run,
    **settings: Any,
) -> np.ndarray:
    """Run a job in `directory` and return the labels of the whole prediction grid."""
    job = job_for(source, model, directory, **settings)
    queue = open_queue(job)
    engine(job, queue)
    return queue.store.labels.read(Box.of_shape(*job.plan.predicted))


def plan_of(source: Source, model: Model, **settings: Any) -> Plan:
    return job_for(source, model, **settings).plan


class Squeeze(nn.Module):
    """Squeeze-and-excitation over the whole tile (Hu 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, 2, 1), nn.Conv2d(2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.up(torch.relu(self.down(x.mean((2, 3), keepdim=True))))
        return x * torch.sigmoid(gate)


class LinearSqueeze(nn.Module):
    """The same, written for vectors (as in Hu's own and many others' code)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(channels, 2), nn.Linear(2, channels)

    def forward(self, x: Tensor) -> Tensor:
        count, channels, _, _ = x.shape
        gate = self.up(torch.relu(self.down(nn.functional.adaptive_avg_pool2d(x, 1).view(count, channels))))
        return x * torch.sigmoid(gate).view(count, channels, 1, 1)


class SqueezeNet(nn.Module):
    """Two convolutions, one of them at half resolution, each with squeeze-and-excitation."""

    def __init__(self, bands: int, classes: int, squeeze: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(bands, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.one, self.two, self.head = squeeze(6), squeeze(6), nn.Conv2d(12, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.one(torch.relu(self.fine(x)))
        coarse = self.two(torch.relu(self.coarse(nn.functional.avg_pool2d(fine, 4))))
        out: Tensor = self.head(torch.cat((fine, nn.functional.interpolate(coarse, scale_factor=4.0)), 1))
        return out


@cache
def global_net(kind: str, classes: int = 3) -> nn.Module:
    """A small random network of stride 4 (pyramid: 8) that mixes the whole tile, whose labels vary; probed once."""
    torch.manual_seed(4 if kind == "pyramid" else 5)
    if kind in ("squeeze", "linear"):
        net: nn.Module = SqueezeNet(3, classes, Squeeze if kind == "squeeze" else LinearSqueeze)
    elif kind == "pyramid":
        deep = {"width": 2, "depth": 3, "output_stride": 8, "rate": 1, "image_pool": True}
        net = zoo.build({"name": "deeplab", **deep}, 3, classes)
    else:
        net = zoo.build({"name": "unet", "width": 4, "depth": 2, "norm": kind}, 3, classes)
    for name, weights in net.named_parameters():
        nn.init.normal_(weights, std=(0.4 if kind == "pyramid" else 0.5) if "weight" in name else 0.1)
    return net.eval()


def global_model(kind: str, classes: int = 3, crop: int = 32) -> Model:
    """A model whose card says that it was trained on crops of so many pixels."""
    names = [f"class {k}" for k in range(classes)]
    stride = 8 if kind == "pyramid" else 4
    card = ModelCard(bands=3, classes=names, stride=stride, mean=[127.0] * 3, std=[60.0] * 3,
                     training={"configuration": {"crop": crop}})  # fmt: skip
    return Model.from_torch(global_net(kind, classes), card)


def fitted(arch: dict[str, Any], image: NDArray[np.uint8], side: int) -> tuple[Any, ModelCard, Tensor]:
    """Return a network of ours with random weights, its card and the corner of the image it was scaled to.

    Mean and std are the image's; the running statistics of batch norm become those of its `side` x `side` corner.
    """
    net: Any = zoo.build(arch, 3, 3).train()
    mean, std = image.mean((1, 2)).tolist(), image.std((1, 2)).tolist()
    card = ModelCard(bands=3, classes=["a", "b", "c"], stride=net.stride, mean=mean, std=std)
    x = Model(card, net).normalise(torch.from_numpy(image[None, :, :side, :side]))
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():
        net(x)
    return net, card, x
