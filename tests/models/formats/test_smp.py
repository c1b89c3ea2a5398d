"""Our networks against segmentation-models-pytorch's definition of the same: parameter counts and outputs."""

from typing import Any

import torch
from torch import Tensor, nn

from tilepipe.models.nets.deeplab import DeepLabArch, Pyramid
from tilepipe.models.nets.encoders import load_encoder_weights
from tilepipe.models.nets.zoo import build


def _randomise(net: nn.Module) -> nn.Module:
    """Running statistics that are not 0 and 1, so that every tensor matters."""
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return net.eval()


def _part(net: nn.Module, prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in net.state_dict().items() if name.startswith(prefix)}


def _copy_in_order(source: dict[str, Tensor], target: nn.Module) -> None:
    wanted = target.state_dict()
    assert [t.shape for t in source.values()] == [t.shape for t in wanted.values()]
    target.load_state_dict(dict(zip(wanted, source.values(), strict=True)))


def _count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_linknet_is_smps(smp: Any) -> None:
    theirs = _randomise(smp.Linknet("tu-resnet18", encoder_weights=None, classes=2))
    ours = build({"name": "linknet", "encoder": "resnet18", "depth": 5, "width": 32, "up": "deconv4"}, 3, 2).eval()
    assert _count(ours) == _count(theirs)
    load_encoder_weights(ours.encoder, _part(theirs, "encoder.model."))  # type: ignore[arg-type]
    _copy_in_order(_part(theirs, "decoder.blocks."), ours.decoder)  # type: ignore[arg-type]
    _copy_in_order(_part(theirs, "segmentation_head.0."), ours.head)  # type: ignore[arg-type]
    x = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(ours.double()(x), theirs.double()(x), atol=1e-9)


def test_unet_is_smps_but_for_the_heads_kernel(smp: Any) -> None:
    theirs = _randomise(smp.Unet("tu-resnet18", encoder_weights=None, classes=2))
    ours = build({"name": "unet", "encoder": "resnet18", "depth": 5, "width": 16}, 3, 2).eval()
    assert _count(ours) == _count(theirs) - 16 * 2 * (9 - 1)
    ours.head = nn.Conv2d(16, 2, 3, padding=1)
    load_encoder_weights(ours.encoder, _part(theirs, "encoder.model."))  # type: ignore[arg-type]
    decoder = _part(theirs, "decoder.blocks.")
    for level, features in enumerate((512, 256, 128, 64)):  # we join the skip first, they the features
        name = f"{level}.conv1.0.weight"
        decoder[name] = torch.cat((decoder[name][:, features:], decoder[name][:, :features]), 1)
    _copy_in_order(decoder, ours.decoder)  # type: ignore[arg-type]
    _copy_in_order(_part(theirs, "segmentation_head.0."), ours.head)
    x = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(ours.double()(x), theirs.double()(x), atol=1e-9)


def test_deeplabs_pyramid_is_smps(smp: Any) -> None:
    """Of its DeepLabV3, which has full convolutions. Our mean of the tile has a bias where theirs is normalised."""
    whole = smp.DeepLabV3("tu-resnet18", encoder_weights=None, decoder_channels=16, decoder_atrous_rates=(2, 4, 6))
    theirs = _randomise(whole.decoder.aspp)
    ours = Pyramid(512, 16, DeepLabArch(width=1, rate=2, image_pool=True)).eval()
    assert _count(ours) == _count(theirs) - 16  # one bias in place of scale and shift, per channel
    state = {name: tensor for name, tensor in theirs.state_dict().items() if not name.startswith("convs.4")}
    pooled, norm = theirs.convs[4][1], theirs.convs[4][2]  # type: ignore[index,union-attr]
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    _copy_in_order({k: t for k, t in state.items() if k.startswith("convs.")}, ours.branches)
    _copy_in_order({k: t for k, t in state.items() if k.startswith("project.")}, ours.project)
    with torch.no_grad():
        ours.image.weight.copy_(pooled.weight * scale[:, None, None, None])  # type: ignore[union-attr]
        ours.image.bias.copy_(norm.bias - norm.running_mean * scale)  # type: ignore[union-attr]
        x = torch.randn(1, 512, 8, 12, dtype=torch.float64)
        assert torch.allclose(ours.double()(x), theirs.double()(x), atol=1e-9)


def test_what_smps_deeplabv3plus_has_otherwise(smp: Any) -> None:
    """The reasons in docs/models.md why no weights are mapped between the two."""
    theirs = smp.DeepLabV3Plus("tu-resnet18", encoder_weights=None)
    kinds = [type(module).__name__ for module in theirs.decoder.modules()]
    assert kinds.count("SeparableConv2d") == 5  # we: full convolutions, and two of them after the join, not one
    assert kinds.count("ASPPPooling") == 1  # we: a choice, off unless asked for
    assert theirs.decoder.up.align_corners  # we: corners not aligned, or tiles would not agree
    assert theirs.segmentation_head[1].align_corners
