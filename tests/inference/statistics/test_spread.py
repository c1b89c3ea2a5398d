"""Vectors spread over a map: at every pixel what the layers make of the vector there."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from tilepipe.inference.statistics.spread import Spread
from tilepipe.models.torch_calls import Call, Calls

torch.manual_seed(0)
LINEAR, OTHER = nn.Linear(6, 4), nn.Linear(4, 6, bias=False)
CONV = nn.Conv2d(6, 6, 1)
NORM = nn.BatchNorm2d(6).eval()
WAYS: dict[str, Callable[[Tensor], Tensor]] = {  # from (B, 6) or (B, 6, 1, 1) to (B, 6, 1, 1)
    "view": lambda y: OTHER(torch.relu(LINEAR(y.view(-1, 6)))).view(-1, 6, 1, 1),
    "reshape": lambda y: OTHER(F.silu(LINEAR(y.reshape(len(y), 6)))).reshape(len(y), 6, 1, 1),
    "flatten": lambda y: torch.sigmoid(OTHER(LINEAR(y.flatten(1))))[:, :, None, None],
    "Flatten": lambda y: nn.Sequential(nn.Flatten(), LINEAR, nn.ReLU(inplace=True), OTHER)(y)[..., None, None],
    "squeeze": lambda y: OTHER(LINEAR(y.squeeze(-1).squeeze(-1))).unsqueeze(-1).unsqueeze(-1),
    "halves": lambda y: torch.cat(OTHER(LINEAR(torch.flatten(y, 1))).chunk(2, 1), 1)[:, :, None, None],
    "softmax": lambda y: CONV(OTHER(LINEAR(y.view(-1, 6))).softmax(1).view(-1, 6, 1, 1)),
    "norm": lambda y: torch.squeeze(OTHER(LINEAR(NORM(y).flatten(1)))).view(-1, 6, 1, 1),
}


class Running(Calls):
    def __init__(self) -> None:
        super().__init__()
        self.spread = Spread()

    def made(self, call: Call) -> object:
        return self.spread.run(call)


@pytest.mark.parametrize("way", WAYS)
def test_every_pixel_is_a_vector_of_its_own(way: str) -> None:
    y = torch.randn(2, 6, 3, 5)
    with torch.no_grad(), Running() as running:
        found = WAYS[way](running.spread.mark(y))
    assert running.spread.marked(found)
    assert found.shape == y.shape
    for row in range(3):
        for column in range(5):
            with torch.no_grad():
                alone = WAYS[way](y[:, :, row : row + 1, column : column + 1])
            torch.testing.assert_close(found[:, :, row, column], alone[:, :, 0, 0])


def test_it_ends_where_it_meets_features() -> None:
    y, x = torch.randn(1, 6, 4, 4), torch.randn(1, 6, 4, 4)
    with Running() as running:
        running.spread.mark(y)
        assert running.spread.marked(y * 2 + torch.ones(()))
        assert not running.spread.marked(y * x)
        assert not running.spread.marked(torch.cat((x, y), 1))
        assert (y.expand_as(x) * x).view(1, 2, 3, 4, 4).shape == (1, 2, 3, 4, 4)
        assert not running.spread.marked(y.mul_(x))
        assert y.view(1, 2, 3, 4, 4).shape == (1, 2, 3, 4, 4)


def test_what_is_no_vector_is_left_alone() -> None:
    x = torch.randn(2, 6)
    with Running():
        assert torch.equal(F.linear(x, LINEAR.weight), x @ LINEAR.weight.T)
        assert x[:, :, None, None].shape == (2, 6, 1, 1)
