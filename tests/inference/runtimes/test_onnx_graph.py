"""Graphs that are written as ONNX give what torch gives, on tiles of another size; what cannot be written is named."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.runtimes import RUNTIMES
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everyone uses

from tilepipe.inference.runtimes.base import GraphError, Subject
from tilepipe.inference.runtimes.named import runtime
from tilepipe.inference.runtimes.onnx_graph import onnx_file
from tilepipe.models.nets import zoo

SIDE = 32


class Made(nn.Module):
    """A network of layers, and of functions between them."""

    def __init__(self, *parts: Any) -> None:
        super().__init__()
        self.parts = parts
        self.layers = nn.ModuleList(part for part in parts if isinstance(part, nn.Module))

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
        return x


def _seeded(*parts: Any) -> nn.Module:
    torch.manual_seed(0)
    net = Made(*parts)
    for values in net.parameters():
        nn.init.normal_(values, std=0.4)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    return net.eval()


def conv(bands: int = 3, **more: Any) -> nn.Module:
    return nn.Conv2d(bands, 6, 3, **{"padding": 1, **more})


NETS = {
    "convolutions": (conv(), conv(6, stride=2), conv(6, dilation=2, padding=2, groups=3), nn.Conv2d(6, 4, (1, 3))),
    "same": (conv(padding="same"), nn.Conv2d(6, 4, 2, padding="same", bias=False), nn.Conv2d(4, 4, 3, padding="valid")),
    "norms": (conv(), nn.BatchNorm2d(6), conv(6), nn.BatchNorm2d(6, affine=False)),
    "activations": (
        conv(), nn.SiLU(), nn.Hardswish(), nn.Hardsigmoid(), nn.LeakyReLU(0.2), nn.ELU(0.7), nn.PReLU(6), nn.GELU(),
        nn.GELU("tanh"), nn.Mish(), nn.SELU(), nn.ReLU6(), nn.Hardtanh(-0.5, 0.8), nn.Sigmoid(), nn.Tanh(),
    ),
    "poolings": (
        conv(), nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2), nn.AvgPool2d(3, 1, 1, count_include_pad=False),
        nn.MaxPool2d(3, 1, 1, dilation=2),
    ),
    "resizing": (
        conv(), nn.Upsample(scale_factor=2), nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.Upsample(scale_factor=3, mode="nearest-exact"), nn.PixelShuffle(1),
    ),
    "up": (nn.Conv2d(3, 8, 2, 2), nn.PixelShuffle(2), nn.ConvTranspose2d(2, 5, 3, 2, 1, output_padding=1)),
    "padding": (nn.ReflectionPad2d(2), nn.ReplicationPad2d((1, 2, 3, 0)), nn.ConstantPad2d(1, 0.7), conv(padding=0)),
    "arithmetic": (
        conv(), lambda x: 2 * x - x / 3 + 1, lambda x: torch.add(x, x.abs(), alpha=0.5), lambda x: x[:, 1:5],
        lambda x: torch.cat([x, x.exp()], 1), lambda x: x.clamp(min=-1), lambda x: torch.maximum(x, -x).sqrt(),
        lambda x: torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True), x], 1), lambda x: x.narrow(1, 0, 4),
    ),
    "shares": (conv(), lambda x: F.log_softmax(x, 1), lambda x: x.softmax(1)),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("name", sorted(NETS))
@pytest.mark.parametrize("made_by", RUNTIMES)
def test_operations_give_what_torch_gives(name: str, made_by: str) -> None:
    _compare(_seeded(*NETS[name]), made_by, name)


def _compare(net: nn.Module, made_by: str, key: str) -> None:
    tile = torch.rand(2, 3, 2 * SIDE, 3 * SIDE)
    subject = Subject(net, (torch.zeros(1, 3, SIDE, SIDE),), (tuple(tile.shape),), key)
    with torch.inference_mode():
        truth = net(tile)
    found = runtime(made_by).compiled(subject)([tile])[0]
    assert found.shape == truth.shape
    assert float((found - truth).abs().max()) < 1e-5 * float(truth.abs().max())


ZOO: dict[str, dict[str, Any]] = {
    "unet": {"name": "unet", "width": 4, "depth": 2, "up": "bilinear", "down": "blur"},
    "deconv": {"name": "unet", "width": 4, "depth": 2, "up": "deconv3", "down": "strided"},
    "resnet": {"name": "linknet", "encoder": "resnet18", "width": 4, "depth": 5},
    "deeplab": {"name": "deeplab", "width": 2, "depth": 3, "output_stride": 8, "rate": 1},
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in ("unet", "deconv") else pytest.mark.long) for name in sorted(ZOO)]
)
def test_networks_of_ours_give_what_torch_gives(name: str) -> None:
    torch.manual_seed(1)
    _compare(zoo.build(ZOO[name], 3, 3).eval(), "onnxruntime", name)


class Sized(nn.Module):
    """A network that keeps a number from the size of its tile."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.linspace(0, 1, x.shape[3])


REFUSED = {
    "softplus": Made(nn.Softplus()),
    "view": Made(lambda x: x.view(1, 3, -1).mean(2)[:, :, None, None] + x),
    "size of the tile": Sized(),
    "instance_norm": Made(nn.InstanceNorm2d(3)),
    "aligned corners": Made(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)),
    "torch.export fails": Made(lambda x: x + float(x.sum())),
}


@pytest.mark.parametrize("word", sorted(REFUSED))
def test_what_cannot_be_written_is_named(word: str) -> None:
    with pytest.raises(GraphError, match=word):
        onnx_file(REFUSED[word].eval(), (torch.zeros(1, 3, SIDE, SIDE),))
