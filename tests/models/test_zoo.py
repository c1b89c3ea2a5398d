import pytest
import torch

from tilepipe.errors import ModelError
from tilepipe.models.zoo import build


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
