"""When statistics are held fixed, and what plan and certificate say about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.fakes import global_model
from torch import Tensor, nn

import tilepipe as tp
from tilepipe.planning.certify import certificate_of
from tilepipe.planning.plan import Plan
from tilepipe.testing import noise, random_unet
from tilepipe.tiling.statistics_grid import Statistics

IMAGE = noise(200, 260)
CUT: dict[str, Any] = {"tile": 96}


@pytest.fixture(scope="module")
def model() -> tp.Model:
    return global_model("instance")


class Attention(nn.Module):
    """Every pixel asks all others."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        flat = nn.functional.avg_pool2d(x, 8).flatten(2)
        mixed = (flat.transpose(1, 2) @ flat).softmax(1)
        seen = (flat @ mixed).unflatten(2, (x.shape[2] // 8, x.shape[3] // 8))
        out: Tensor = self.head(x + nn.functional.interpolate(seen, scale_factor=8.0))
        return out


@pytest.mark.long
def test_auto_is_a_field_where_every_operation_can_be_replaced(model: tp.Model) -> None:
    plan = tp.plan(IMAGE, model, **CUT)
    assert plan.statistics is not None
    assert (plan.statistics.kind, plan.statistics.window, len(plan.statistics.values)) == ("field", 64, 10)
    assert (plan.tiling.window, plan.tiling.overlap, plan.tiling.halo) == ("crop", 48, 24)
    assert plan.full_context
    assert not plan.exact
    assert plan.patches.tile_shape == (64, 64)
    assert plan.statistics_work == pytest.approx(4 * 5 * 64 * 64 / (200 * 260))
    text = str(plan)
    assert "instance norm (encoder.stages.0.block.norm1)" in text
    assert "a field of 4 x 5 patches of 64 x 64 px" in text
    assert Plan.from_json(plan.to_json()) == plan
    certificate = certificate_of(plan, model)
    assert (certificate.mode, certificate.statistics, certificate.reach) == ("FIELD", "field", plan.reach.sides)
    assert "come from a grid fixed to the image" in certificate.sentences[0]


def test_whole_says_what_it_costs(model: tp.Model) -> None:
    plan = tp.plan(IMAGE, model, statistics="whole", **CUT)
    assert plan.statistics is not None
    assert plan.exact
    assert plan.work == pytest.approx(11 * plan.tile_count * 96 * 96 / (200 * 260))
    assert "in 10 passes" in str(plan)
    certificate = certificate_of(plan, model)
    assert (certificate.mode, certificate.statistics) == ("FIELD", "whole")
    assert "are those of the whole image" in certificate.sentences[0]


def test_each_tile_its_own_is_blended(model: tp.Model) -> None:
    plan = tp.plan(IMAGE, model, statistics="tile", **CUT)
    assert plan.statistics is None
    assert (plan.tiling.window, certificate_of(plan, model).mode) == ("gaussian", "BLEND")


def test_the_users_own_overlap_or_window_shape_stays(model: tp.Model) -> None:
    assert tp.plan(IMAGE, model, overlap=16, **CUT).statistics is None
    assert tp.plan(IMAGE, model, window_shape="hann", **CUT).statistics is None
    own = tp.plan(IMAGE, model, overlap=16, statistics="field", **CUT)
    assert (own.tiling.overlap, own.tiling.window) == (16, "crop")
    assert certificate_of(own, model).mode == "UNCERTIFIED"


def test_what_is_too_dear_is_blended_and_says_so(model: tp.Model) -> None:
    plan = tp.plan(IMAGE, model, tile=64)
    assert plan.statistics is None
    assert "would take 16.0 times the work of one pass" in plan.seams
    assert tp.plan(IMAGE, model, tile=64, statistics="field").statistics is not None
    assert tp.plan(IMAGE, model, tile=64, max_cost=16).statistics is not None
    assert tp.plan(noise(60, 60), model, tile=64).exact  # one tile


def test_a_local_model_has_nothing_to_fix() -> None:
    for statistics in ("auto", "field", "whole"):
        plan = tp.plan(IMAGE, random_unet(), statistics=statistics)
        assert plan.statistics is None
        assert plan.exact


def test_without_a_crop_in_the_card_patches_have_256_pixels(model: tp.Model) -> None:
    bare = tp.Model.from_torch(model.module, model.card.model_copy(update={"training": {}}))
    plan = tp.plan(noise(300, 700), bare)
    assert plan.statistics is not None
    assert plan.patches.tile_shape == (256, 256)
    assert tp.plan(IMAGE, bare, statistics="field").patches.tile_shape == (200, 256)
    assert tp.plan(IMAGE, bare).statistics is None  # one tile covers it


def test_what_cannot_be_replaced_is_blended_or_refused() -> None:
    torch.manual_seed(0)
    card = tp.ModelCard(bands=3, classes=["a", "b"], stride=8)
    model = tp.Model.from_torch(Attention(), card)
    assert tp.plan(IMAGE, model, **CUT).statistics is None
    with pytest.raises(tp.TilepipeError, match="statistics field is not possible"):
        tp.plan(IMAGE, model, statistics="field", **CUT)


class Gate(nn.Module):
    """Squeeze-and-excitation by any pooling."""

    def __init__(self, pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.pool, self.up = pool, nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(self.pool(x)))


POOLS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "mean and maximum, as in CBAM (Woo 2018)": (
        lambda x: x.mean((2, 3), keepdim=True) + x.amax((2, 3), keepdim=True),
        "(1) mix the whole of a tile; something beside the statistics mixes the whole of a tile too",
    ),
    "maximum": (lambda x: nn.functional.adaptive_max_pool2d(x, 1), "the operation in layer '1' has no statistics"),
    "norm (Woo 2023)": (lambda x: x.norm(dim=(2, 3), keepdim=True), "the operation in layer '1' has no statistics"),
    "two steps": (lambda x: x.mean(3, keepdim=True).mean(2, keepdim=True), "'1' has no statistics"),
}


@pytest.mark.parametrize("pool", POOLS)
def test_what_is_no_mean_is_blended_and_named(pool: str) -> None:
    layer, says = Gate(POOLS[pool][0]), POOLS[pool][1]
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), layer, nn.Conv2d(3, 2, 1))
    model = tp.Model.from_torch(net, tp.ModelCard(bands=3, classes=["a", "b"], mean=[127] * 3, std=[60] * 3))
    plan = tp.plan(IMAGE, model, **CUT)
    assert plan.statistics is None
    assert says in plan.seams


@pytest.mark.parametrize(
    ("wrong", "says"), [({"statistics": "some"}, "auto, field"), ({"window_shape": "hann"}, "needs crop windows")]
)
def test_settings_that_cannot_be_meant(model: tp.Model, wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(tp.TilepipeError, match=says):
        tp.plan(IMAGE, model, **{"statistics": "field", **CUT, **wrong})


def test_statistics_of_the_whole_image_are_one_patch() -> None:
    assert Statistics("whole", 0, (4,)).patches((200, 260), 8).tile_shape == (200, 264)
