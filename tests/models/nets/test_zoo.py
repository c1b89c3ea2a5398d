import pytest
import torch

from tilepipe.errors import ModelError
from tilepipe.models.nets.zoo import build, describe


def test_unknown_names_say_the_nearest() -> None:
    with pytest.raises(ModelError, match="nearest is 'unet'"):
        build({"name": "u-net"}, 3, 2)
    with pytest.raises(ModelError, match="unknown parameter 'widht'; nearest is 'width'"):
        build({"name": "unet", "widht": 16}, 3, 2)
    with pytest.raises(ModelError, match="unknown norm 'bach'; nearest is 'batch'"):
        build({"name": "unet", "norm": "bach"}, 3, 2)
    with pytest.raises(ModelError, match="depth is 99"):
        build({"name": "unet", "depth": 99}, 3, 2)


def test_wrong_tile_says_the_right_one() -> None:
    net = build({"name": "unet", "width": 2}, 3, 2)
    with pytest.raises(ModelError, match=r"tile 500 x 512 is not a multiple of 16; use 512 x 512"):
        net(torch.zeros(1, 3, 500, 512))
    with pytest.raises(ModelError, match=r"\(B, 3, H, W\), not \(1, 4, 64, 64\)"):
        net(torch.zeros(1, 4, 64, 64))


@pytest.mark.parametrize("key", ["bands", "classes", "self", "module", "Arch"])
def test_no_parameter_gets_past_the_check(key: str) -> None:
    with pytest.raises(ModelError, match=f"unknown parameter '{key}'"):
        build({"name": "unet", key: 3}, 3, 2)


def test_an_arch_without_a_name() -> None:
    with pytest.raises(ModelError, match=r"unknown architecture ''.*\(deeplab, fcn, linknet, segnet, unet\)"):
        build({"width": 16}, 3, 2)


def test_defaults_are_a_plain_unet() -> None:
    net = build({"name": "unet"}, 3, 2)
    assert net.stride == 16
    assert describe(net) == {
        "name": "unet",
        "encoder": "plain",
        "width": 16,
        "depth": 4,
        "up": "nearest",
        "norm": "batch",
        "down": "max",
        "dropout": 0.0,
        "dropout_kind": "element",
    }


def test_names_of_the_plain_unets_tensors_do_not_change() -> None:
    """Bundled weights depend on them."""
    names = [name for name in build({"name": "unet", "depth": 1}, 3, 2).state_dict() if name.endswith("weight")]
    block = ["conv1", "norm1", "conv2", "norm2"]
    prefixes = ["encoder.stages.0.block", "encoder.stages.1.block", "decoder.0.block"]
    assert names == [f"{prefix}.{layer}.weight" for prefix in prefixes for layer in block] + ["head.weight"]
