"""The halo chosen on some scenes must keep its tolerance on others: a small U-Net, trained for a moment in the test."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tilepipe.errors import ModelError, StorageError
from tilepipe.inference.profile.edge_errors import EdgeErrors, edge_errors, total_variation
from tilepipe.models.nets.zoo import build
from tilepipe.models.probe.procedure import probe

STRIDE, MARGIN, CORE = 8, 48, 64


def scene(seed: int, side: int) -> tuple[Tensor, Tensor]:
    """Image (3, side, side) and labels (side, side): blobs, whose class 1 or 2 is told by brightness around them."""
    generator = torch.Generator().manual_seed(seed)

    def blotches(cell: int) -> Tensor:
        coarse = torch.randn((1, 1, side // cell + 3, side // cell + 3), generator=generator)
        fine = nn.functional.interpolate(coarse, scale_factor=cell, mode="bilinear", align_corners=False)
        return fine[0, 0, cell : cell + side, cell : cell + side]

    blobs, around = blotches(9) > 0.6, blotches(48)
    noise = 0.3 * torch.randn((3, side, side), generator=generator)
    return torch.stack((blobs.float(), around, blobs * 0.5 + 0.3 * around)) + noise, blobs * (1 + (around > 0).long())


def trained(seed: int, steps: int = 40) -> nn.Module:
    torch.manual_seed(seed)
    net = build({"name": "unet", "width": 6, "depth": 3}, 3, 3).train()
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    for step in range(steps):
        pairs = [scene(1000 + 4 * step + k, 64) for k in range(4)]
        images, labels = (torch.stack(part) for part in zip(*pairs, strict=True))
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(images), labels).backward()
        optimiser.step()
    return net.eval()


def realised(net: nn.Module, image: Tensor, halo: int, core: int = CORE) -> float:
    """Largest distance between the whole image at once and tiles whose `halo` is thrown away."""
    side = image.shape[1]
    worst = 0.0
    with torch.no_grad():
        whole = net(image[None])[0].double().softmax(0)
        for y in range(0, side, core):
            for x in range(0, side, core):
                top, left = max(0, y - halo), max(0, x - halo)
                tile = image[:, top : y + core + halo, left : x + core + halo]
                part = net(tile[None])[0].double().softmax(0)[:, y - top :, x - left :][:, :core, :core]
                gap = total_variation(part, whole[:, y : y + core, x : x + core])
                worst = max(worst, float(gap.max()))
    return worst


def measured(net: nn.Module, count: int = 8) -> EdgeErrors:
    side = 2 * CORE + 2 * MARGIN
    return edge_errors(net, (scene(k, side)[0] for k in range(count)), MARGIN, STRIDE)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return trained(1)


@pytest.fixture(scope="module")
def errors(net: nn.Module) -> EdgeErrors:
    return measured(net)


@pytest.mark.long
def test_errors_end_where_the_reach_ends(net: nn.Module, errors: EdgeErrors) -> None:
    found = probe(net, 3)
    assert found.reach is not None
    reach = max(found.reach)
    assert reach < MARGIN
    assert max(errors.worst[reach:]) < 1e-5 < max(errors.worst[:8])
    assert len(errors.worst) == CORE


@pytest.mark.long
def test_the_chosen_halo_keeps_its_tolerance_elsewhere(net: nn.Module, errors: EdgeErrors) -> None:
    halos = [errors.halo(tolerance, STRIDE) for tolerance in (0.3, 0.03, 0.003)]
    assert None not in halos
    assert halos == sorted(halos)
    assert halos[0] != halos[2]
    for tolerance, halo in zip((0.3, 0.03, 0.003), halos, strict=True):
        assert halo is not None
        assert max(realised(net, scene(500 + k, 256)[0], halo) for k in range(2)) <= tolerance
    assert realised(net, scene(500, 256)[0], 0) > 0.3


@pytest.mark.long
def test_95_of_100_cases_keep_their_tolerance() -> None:
    kept, halos = [], set()
    for seed in range(5):
        net = trained(seed + 10)
        errors = measured(net)
        for tolerance in (0.1, 0.03, 0.01, 0.003):
            halo = errors.halo(tolerance, STRIDE)
            assert halo is not None
            halos.add(halo)
            kept += [realised(net, scene(700 + k, 256)[0], halo) <= tolerance for k in range(5)]
    assert len(halos) > 2
    assert len(kept) == 100
    assert sum(kept) >= 95


def test_by_distance_is_the_largest_error_at_that_distance() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((3, 24, 32))

    def forward(x: Tensor) -> Tensor:  # a model whose answer for a cut patch is another one
        logits = torch.from_numpy(truth if x.shape[2] == 24 else truth[:, 4:20, 4:28] ** 2)
        return logits[None]

    errors = edge_errors(forward, [torch.zeros(1, 24, 32)], 4, 4)
    softmax = [np.exp(v) / np.exp(v).sum(0) for v in (truth[:, 4:20, 4:28], truth[:, 4:20, 4:28] ** 2)]
    gap = np.abs(softmax[0] - softmax[1]).sum(0) / 2
    ring = [max(gap[y, x] for y in range(16) for x in range(24) if min(y, x, 15 - y, 23 - x) == d) for d in range(8)]
    assert errors.worst == pytest.approx(ring)
    assert (errors.windows, errors.margin) == (1, 4)


def test_halo_is_the_smallest_that_holds_everywhere_beyond() -> None:
    errors = EdgeErrors((0.9, 0.5, 0.01, 0.2, 0.01, 0.001, 0.0, 0.0), 8, 6)
    assert errors.halo(1.0, 1, safety=1) == 0
    assert errors.halo(0.2, 1, safety=1) == 2
    assert errors.halo(0.1, 1, safety=1) == 4  # not 2, where the error is small by chance
    assert errors.halo(0.1, 1) == 4
    assert errors.halo(0.1, 3) == 6
    assert errors.halo(0.0, 1) == 6
    assert errors.halo(0.0, 7) is None  # 7 px are more than the reference had
    assert EdgeErrors((0.9, 0.8), 8, 6).halo(0.1, 1) is None
    assert EdgeErrors.from_json(errors.to_json()) == errors


def test_what_cannot_be_measured_is_refused() -> None:
    identity = nn.Identity()
    with pytest.raises(ModelError, match=r"96 x 96 px cannot be measured with margin 48"):
        edge_errors(identity, [torch.zeros(1, 96, 96)], 48, 8)
    with pytest.raises(ModelError, match="multiples of the stride"):
        edge_errors(identity, [torch.zeros(1, 100, 96)], 16, 8)
    with pytest.raises(ModelError, match="NaN"):
        edge_errors(identity, [torch.full((1, 64, 64), torch.nan)], 16, 8)
    with pytest.raises(ModelError, match="no patch"):
        edge_errors(identity, [], 16, 8)
    with pytest.raises(StorageError, match="edge errors"):
        EdgeErrors.from_json("[]")
