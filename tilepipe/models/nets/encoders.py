"""Encoders map (B, bands, H, W) to a list of features, finest first; some encoders have ImageNet weights.

Every encoder has `channels`, a dict from stride to the channels of the deepest feature at that stride.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tilepipe.errors import ModelError
from tilepipe.models.nets.arch import Body
from tilepipe.models.nets.layers import ConvBlock, downsample
from tilepipe.models.nets.resnet import ResNet


class Stage(nn.Module):
    """One level of the plain encoder: it subsamples (if `down`), then applies a block."""

    def __init__(self, inputs: int, outputs: int, body: Body, *, down: bool, rate: int = 1) -> None:
        super().__init__()
        self.down = downsample(body.down, inputs) if down else nn.Identity()
        self.block = ConvBlock(inputs, outputs, body, rate=rate)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, D, H/2, W/2) for (B, C, H, W); (B, D, H, W) if nothing is subsampled."""
        deeper: Tensor = self.block(self.down(x))
        return deeper


class PlainEncoder(nn.Module):
    """Convolution blocks whose channels double at every halving: the encoder of U-Net.

    Beyond `output_stride` (0: no limit), halving is replaced by dilation.
    """

    def __init__(self, bands: int, body: Body, output_stride: int = 0) -> None:
        super().__init__()
        self.channels: dict[int, int] = {}
        self.stages = nn.ModuleList()
        inputs = bands
        for level in range(body.depth + 1):
            stride = min(2**level, output_stride or 2**level)
            rate, outputs = 2**level // stride, body.width * 2**level
            self.stages.append(Stage(inputs, outputs, body, down=level > 0 and rate == 1, rate=rate))
            self.channels[stride] = inputs = outputs

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return depth + 1 features, finest first: (B, width, H, W), (B, 2 width, H/2, W/2), ..."""
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


def encoder(bands: int, body: Body, output_stride: int = 0) -> PlainEncoder | ResNet:
    """Return the encoder that `body` describes; beyond `output_stride` (0: no limit) it dilates instead of halving."""
    kind = PlainEncoder if body.encoder == "plain" else ResNet
    return kind(bands, body, output_stride)


def load_encoder_weights(target: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy a torchvision or timm ResNet state dict into the ResNet `target`, in place.

    Names are the same; the classifier (`fc.`) and layers beyond the target's depth are left out. `fit_bands` makes the
    first convolution fit the bands.
    Raises `ModelError` that names the first tensor that is missing, has another shape or has no place in its layer.
    """
    wanted = target.state_dict()
    if "bn1.running_mean" not in wanted:
        raise ModelError(
            "encoder weights fit a ResNet with norm 'batch' only; use encoder 'resnet18', 'resnet34' or 'resnet50' "
            "with norm 'batch', or none of the weights"
        )
    # DataParallel and segmentation-models-pytorch put these words before every name.
    source = {name.removeprefix("module.").removeprefix("encoder."): tensor for name, tensor in weights.items()}
    new: dict[str, Tensor] = {}
    for name, tensor in wanted.items():
        # Old files lack this counter, which batch norm uses in training only.
        if name not in source and name.endswith("num_batches_tracked"):
            new[name] = tensor
            continue
        if name not in source:
            raise ModelError(f"encoder weights hold no {name!r}; is this the state dict of the same ResNet?")
        new[name] = fit_bands(source[name], tensor.shape[1]) if name == "conv1.weight" else source[name]
        if new[name].shape != tensor.shape:
            raise ModelError(f"encoder weights {name!r} are {tuple(new[name].shape)}, need {tuple(tensor.shape)}")
    layers = {name.partition(".")[0] for name in wanted}
    extra = next((name for name in source if name.partition(".")[0] in layers and name not in wanted), None)
    if extra is not None:
        raise ModelError(f"encoder weights hold {extra!r}, which the encoder lacks; are they of another ResNet?")
    target.load_state_dict(new)


def fit_bands(kernel: Tensor, bands: int) -> Tensor:
    """Return the kernel (D, bands, k, k) made of a first convolution's kernel (D, 3, k, k), as timm does it.

    One band takes the sum. More bands repeat the kernel, scaled by the old over the new number of bands.
    """
    if kernel.shape[1] == bands:
        return kernel
    if bands == 1:
        return kernel.sum(1, keepdim=True)
    have = kernel.shape[1]
    copies = -(-bands // have)
    # The factor keeps activations about as large as those that the weights were trained with.
    return torch.cat([kernel] * copies, 1)[:, :bands] * (have / bands)
