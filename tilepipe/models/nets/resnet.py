"""ResNet-18, -34, -50 as encoders (He 2016, arXiv 1512.03385), with the layer names of torchvision and timm.

Shapes: B batch, H x W pixels; features (B, 64, H/2, W/2), (B, C1, H/4, W/4), ... (B, C4, H/32, W/32) with
C = 64, 128, 256, 512, and four times as many for ResNet-50. As in torchvision, the 3 x 3 convolutions have the strides.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everyone uses

from tilepipe.models.nets.arch import Body
from tilepipe.models.nets.layers import NORMS, conv


class Basic(nn.Module):
    """Two 3 x 3 convolutions and the shortcut around them."""

    expansion = 1

    def __init__(self, inputs: int, width: int, body: Body, stride: int, rates: tuple[int, int]) -> None:
        super().__init__()
        bias, norm = body.norm == "none", NORMS[body.norm]
        self.conv1 = conv(inputs, width, 3, bias=bias, stride=stride, rate=rates[0])
        self.bn1 = norm(width)
        self.conv2 = conv(width, width, 3, bias=bias, rate=rates[1])
        self.bn2 = norm(width)
        self.downsample = shortcut(inputs, width, body, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, width, H/stride, W/stride) for (B, C, H, W)."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)  # (B, width, H/stride, W/stride)
        y = self.bn2(self.conv2(y))  # (B, width, H/stride, W/stride)
        return F.relu(y + self.downsample(x), inplace=True)


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions, and the shortcut around them."""

    expansion = 4

    def __init__(self, inputs: int, width: int, body: Body, stride: int, rates: tuple[int, int]) -> None:
        super().__init__()
        bias, norm = body.norm == "none", NORMS[body.norm]
        self.conv1 = conv(inputs, width, 1, bias=bias)
        self.bn1 = norm(width)
        self.conv2 = conv(width, width, 3, bias=bias, stride=stride, rate=rates[0])
        self.bn2 = norm(width)
        self.conv3 = conv(width, 4 * width, 1, bias=bias)
        self.bn3 = norm(4 * width)
        self.downsample = shortcut(inputs, 4 * width, body, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, 4 width, H/stride, W/stride) for (B, C, H, W)."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)  # (B, width, H, W)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)  # (B, width, H/stride, W/stride)
        y = self.bn3(self.conv3(y))  # (B, 4 width, H/stride, W/stride)
        return F.relu(y + self.downsample(x), inplace=True)


def shortcut(inputs: int, outputs: int, body: Body, stride: int) -> nn.Module:
    """Return the shortcut around a block: the identity, or a 1 x 1 convolution if the shape changes."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(conv(inputs, outputs, 1, bias=body.norm == "none", stride=stride), NORMS[body.norm](outputs))


BLOCKS: dict[str, tuple[type[Basic] | type[Bottleneck], tuple[int, ...]]] = {
    "resnet18": (Basic, (2, 2, 2, 2)),
    "resnet34": (Basic, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
}


class ResNet(nn.Module):
    """A ResNet without its classifier, cut after `body.depth` halvings (1 to 5).

    Beyond `output_stride` (0: no limit), halving is replaced by dilation, as in timm.
    `channels` maps stride to channels of the deepest feature at that stride.
    """

    def __init__(self, bands: int, body: Body, output_stride: int = 0) -> None:
        super().__init__()
        block, counts = BLOCKS[body.encoder]
        self.conv1 = conv(bands, 64, 7, bias=body.norm == "none", stride=2)
        self.bn1 = NORMS[body.norm](64)
        self.layers = [f"layer{k}" for k in range(1, body.depth)]
        self.channels = {2: 64}
        inputs, total, rate = 64, 4, 1
        for k, name in enumerate(self.layers):
            stride, before, width = (2 if k else 1), rate, 64 * 2**k
            if output_stride and total * stride > output_stride:
                stride, rate = 1, rate * stride
            # As in timm, the first convolution of a dilated layer still has the rate of the layer before.
            layer = nn.Sequential(block(inputs, width, body, stride, (before, rate)))
            inputs = width * block.expansion
            layer.extend([block(inputs, width, body, 1, (rate, rate)) for _ in range(counts[k] - 1)])
            setattr(self, name, layer)
            total *= stride
            self.channels[total] = inputs

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return `depth` features of (B, bands, H, W), finest first: at strides 2, 4, 8, 16, 32 unless dilated."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)  # (B, 64, H/2, W/2)
        features = [x]
        for name in self.layers:
            x = F.max_pool2d(x, 3, 2, 1) if name == "layer1" else x  # (B, 64, H/4, W/4)
            x = getattr(self, name)(x)
            features.append(x)
        return features
