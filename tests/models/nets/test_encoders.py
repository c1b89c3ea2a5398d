from typing import Any

import pytest
import torch

from tilepipe.errors import ModelError
from tilepipe.models.nets.arch import Body
from tilepipe.models.nets.encoders import PlainEncoder, fit_bands, load_encoder_weights
from tilepipe.models.nets.resnet import ResNet

NAMES = ["resnet18", "resnet34", "resnet50"]


@pytest.mark.parametrize(
    ("name", "count"), [("resnet18", 11_176_512), ("resnet34", 21_284_672), ("resnet50", 23_508_032)]
)
def test_resnet_has_torchvisions_parameter_count(name: Any, count: int) -> None:
    with torch.device("meta"):
        net = ResNet(3, Body(encoder=name, depth=5))
    assert sum(p.numel() for p in net.parameters()) == count  # without the classifier


@pytest.mark.parametrize(("name", "output_stride"), [("resnet18", 32), ("resnet34", 16), ("resnet50", 8)])
def test_timm_weights_give_timm_features(timm: Any, name: Any, output_stride: int) -> None:
    torch.manual_seed(0)
    theirs = timm.create_model(name, pretrained=False, features_only=True, output_stride=output_stride).eval()
    ours = ResNet(3, Body(encoder=name, depth=5), output_stride).eval()
    load_encoder_weights(ours, theirs.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        pairs = list(zip(ours(x), theirs(x), strict=True))
    assert all(torch.equal(mine, other) for mine, other in pairs)
    assert [f.shape[1] for f, _ in pairs][-1] == ours.channels[output_stride]


def test_classifier_weights_of_timm_are_left_out(timm: Any) -> None:
    theirs = timm.create_model("resnet18", pretrained=False)
    ours = ResNet(3, Body(encoder="resnet18", depth=3))
    load_encoder_weights(ours, theirs.state_dict())
    assert torch.equal(ours.state_dict()["layer2.1.conv2.weight"], theirs.state_dict()["layer2.1.conv2.weight"])


@pytest.mark.parametrize("bands", [1, 3, 6, 9])
def test_first_convolution_answers_equal_bands_as_rgb(bands: int) -> None:
    kernel = torch.randn(8, 3, 7, 7, dtype=torch.float64)
    grey = torch.randn(1, 1, 16, 16, dtype=torch.float64)
    rgb = torch.nn.functional.conv2d(grey.expand(1, 3, 16, 16), kernel)
    same = torch.nn.functional.conv2d(grey.expand(1, bands, 16, 16), fit_bands(kernel, bands))
    assert torch.allclose(rgb, same)


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 5, 6, 9])
def test_first_convolution_agrees_with_timm(timm: Any, bands: int) -> None:
    kernel = torch.randn(4, 3, 3, 3)
    from timm.models import adapt_input_conv

    assert torch.equal(fit_bands(kernel, bands), adapt_input_conv(bands, kernel.clone()))


def test_wrong_weights_are_named() -> None:
    net, other = ResNet(3, Body(encoder="resnet18", depth=5)), ResNet(3, Body(encoder="resnet18", depth=2))
    with pytest.raises(ModelError, match=r"hold no 'layer2.0.conv1.weight'"):
        load_encoder_weights(net, other.state_dict())
    wrong = dict(other.state_dict(), **{"layer1.0.conv1.weight": torch.zeros(1, 64, 3, 3)})
    with pytest.raises(ModelError, match=r"'layer1.0.conv1.weight' are \(1, 64, 3, 3\), need \(64, 64, 3, 3\)"):
        load_encoder_weights(other, wrong)


@pytest.mark.parametrize("down", ["max", "average", "strided", "blur"])
def test_plain_encoder_halves_and_doubles(down: Any) -> None:
    net = PlainEncoder(2, Body(width=3, depth=3, down=down))
    shapes = [tuple(f.shape) for f in net(torch.zeros(1, 2, 16, 24))]
    assert shapes == [(1, 3, 16, 24), (1, 6, 8, 12), (1, 12, 4, 6), (1, 24, 2, 3)]
    assert net.channels == {1: 3, 2: 6, 4: 12, 8: 24}


def test_plain_encoder_dilates_beyond_the_output_stride() -> None:
    net = PlainEncoder(1, Body(width=2, depth=4), 4)
    assert [f.shape[-1] for f in net(torch.zeros(1, 1, 32, 32))] == [32, 16, 8, 8, 8]
    assert [stage.block.conv1.dilation[0] for stage in net.stages] == [1, 1, 1, 2, 4]  # type: ignore[union-attr,index]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"encoder": "resnet18", "depth": 6}, "halves 5 times at most, depth is 6"),
        ({"encoder": "resnet18", "down": "blur"}, "has its own subsampling"),
        ({"encoder": "resnet19"}, "nearest is 'resnet18'"),
        ({"width": "16"}, "width is '16': input should be a valid integer"),
    ],
)
def test_wrong_body_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Body(**values)


def test_imagenet_weights_need_batch_normalisation() -> None:
    weights = ResNet(3, Body(encoder="resnet18", depth=2)).state_dict()
    with pytest.raises(ModelError, match="norm 'batch' only"):
        load_encoder_weights(ResNet(3, Body(encoder="resnet18", depth=2, norm="group")), weights)
