"""Bands are chosen where they save work or keep labels exact, by the image, the model and the settings alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn
from torch.nn import functional

import tilepipe as tp
from tilepipe.models.card import ModelCard
from tilepipe.models.model import Model
from tilepipe.planning.plan import Plan
from tilepipe.sources.array import ArraySource
from tilepipe.testing import constant_model, noise, random_unet

LARGE = ArraySource(np.zeros((3, 5000, 7000), np.uint8))
DEEP = random_unet(depth=3)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return tp.plan(LARGE, DEEP, runtime="torch")


def test_a_large_image_is_computed_in_bands(plan: Plan) -> None:
    bands, grid = plan.tiling.bands, plan.grid
    assert bands is not None
    assert plan.exact
    assert plan.work < 1.05
    assert bands.lead >= plan.tiling.halo + bands.height
    assert bands.height * grid.x.tile <= 160 << 10
    assert plan.work == pytest.approx(grid.y.padded * grid.x.count * grid.x.tile / (5000 * 7000))
    assert Plan.from_json(plan.to_json()) == plan
    assert "in bands of" in plan.why


@pytest.mark.parametrize("asked", [{"region": tp.Box(4000, 5000, 4100, 5100)}, {"workers": 3}, {"layers": "margin"}])
def test_the_choice_does_not_depend_on_region_processes_or_layers(plan: Plan, asked: dict[str, Any]) -> None:
    assert tp.plan(LARGE, DEEP, runtime="torch", **asked).tiling == plan.tiling


def test_a_small_region_counts_the_rows_that_a_pass_sees(plan: Plan) -> None:
    part = tp.plan(LARGE, DEEP, runtime="torch", region=tp.Box(4000, 5000, 4100, 5100))
    bands = plan.tiling.bands
    assert bands is not None
    first = 4000 // bands.height * bands.height - bands.lead
    last = -(-(4100 + plan.tiling.halo) // bands.height) * bands.height
    assert part.work == pytest.approx((last - first) * plan.grid.x.tile / 100**2)


@pytest.mark.parametrize(
    ("image", "model"),
    [(noise(900, 900), DEEP), (LARGE, constant_model(0.5, 0.5, bands=3, halo=2))],
    ids=["small", "little to save"],
)
def test_tiles_suffice_where_little_is_to_be_saved(image: ArraySource, model: Model) -> None:
    assert tp.plan(image, model, runtime="torch").tiling.bands is None


def test_less_memory_makes_columns_narrower_and_then_tiles(plan: Plan) -> None:
    less = tp.plan(LARGE, DEEP, runtime="torch", memory=plan.memory.total - 1)
    assert less.tiling.bands is not None
    assert less.tiling.tile < plan.tiling.tile
    assert less.memory.total < plan.memory.total
    least = tp.plan(LARGE, DEEP, runtime="torch", memory="900 MiB")
    assert least.memory.total <= 900 << 20


class Coarse(nn.Module):
    """A network that sees 300 px: exact tiles of 2,048 px would not be dear, those of its usual size would."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=300, dilation=300)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Bicubic(Coarse):
    def forward(self, x: Tensor) -> Tensor:
        return functional.interpolate(functional.avg_pool2d(self.conv(x), 2), scale_factor=2.0, mode="bicubic")


def test_an_image_narrower_than_the_context_is_one_column() -> None:
    """Nothing is left of an overlap of 600 px in 400 px, and nothing overlaps."""
    model = Model.from_torch(Coarse(), ModelCard(bands=1, classes=["a", "b"]))
    plan = tp.plan(ArraySource(np.zeros((1, 40000, 400), np.uint8)), model, runtime="torch")
    assert plan.tiling.bands is not None
    assert (plan.tiling.tile, plan.grid.x.count) == (400, 1)


def test_the_plan_says_which_operation_is_in_the_way() -> None:
    image = ArraySource(np.zeros((1, 4000, 6000), np.uint8))
    card = ModelCard(bands=1, classes=["a", "b"])
    assert tp.plan(image, Model.from_torch(Coarse(), card), runtime="torch").tiling.bands is not None
    plan = tp.plan(image, Model.from_torch(Bicubic(), card), runtime="torch")
    assert plan.tiling.bands is None
    assert [row.text for row in plan.fit_table if row.name == "bands" and "bicubic" in row.text]


def test_a_tissue_mask_asks_for_narrow_columns() -> None:
    slide = np.full((3, 3000, 9000), 245, np.uint8)
    slide[:, 1000:1800, 2000:3000] = np.array([180, 60, 140])[:, None, None]
    plan = tp.plan(ArraySource(slide), DEEP, runtime="torch", mask="tissue")
    assert plan.tiling.bands is not None
    assert plan.tiling.tile <= 1024 + 2 * plan.tiling.halo


def test_blended_windows_get_large_tiles_in_bands() -> None:
    image = ArraySource(np.broadcast_to(np.uint8(0), (3, 9000, 9100)))
    hann = tp.plan(image, DEEP, runtime="torch", window_shape="hann")
    cut, grid = hann.tiling, hann.grid
    assert cut.bands is not None
    assert (cut.window, cut.columns) == ("hann", None)
    small = tp.plan(image, DEEP, runtime="torch", window_shape="hann", tile=512)
    assert small.tiling.bands is None
    assert hann.work < 0.8 * small.work
    assert hann.work == pytest.approx(grid.y.count * grid.x.count * cut.tile**2 / (9000 * 9100))
    # They just fit: the last tiles are pulled back by little.
    assert grid.x.count * grid.x.step + cut.overlap - grid.x.size < grid.x.count * 2 * cut.stride
    less = tp.plan(image, DEEP, runtime="torch", window_shape="hann", memory=hann.memory.total - 1)
    assert less.memory.total < hann.memory.total
    part = tp.plan(image, DEEP, runtime="torch", window_shape="hann", region=tp.Box(0, 0, 9, 9))
    assert part.tiling == cut
