"""Statistics caught and put in: a field of one patch is the live network, and no bit depends on the tile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from helpers.fakes import global_net
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tilepipe.box import Box
from tilepipe.errors import ModelError
from tilepipe.inference.statistics.capture import FixedStatistics, Nodes, Reached, Recorder, Summer
from tilepipe.inference.statistics.operations import Operation, added_up, operation, statistics
from tilepipe.models.torch_calls import Call
from tilepipe.tiling.statistics_grid import nodes_of, patches_of

KINDS = ["instance", "group", "squeeze", "linear", "pyramid"]
SIDE = 64


def image(height: int = SIDE, width: int = SIDE, count: int = 1, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    smooth = torch.randn(count, 3, height // 8, width // 8, generator=generator)
    return nn.functional.interpolate(smooth, scale_factor=8.0) + torch.randn(
        count, 3, height, width, generator=generator
    )


def under(net: nn.Module, mode: Any, x: Tensor) -> Tensor:
    with torch.no_grad(), mode:
        out: Tensor = net(x)
    return out


def weighted(values: np.ndarray, *shape: int) -> np.ndarray:
    return np.append(values, 1).astype(np.float32).reshape(*(shape or (1, 1)), -1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_field_of_one_patch_is_the_live_network(kind: str) -> None:
    net, x, recorder = global_net(kind), image(count=2), Recorder()
    live = under(net, recorder, x)
    tile, patches = Box(0, 0, SIDE, SIDE), patches_of((SIDE, SIDE), SIDE, 4)
    nodes = [Nodes(tile, patches, Box(0, 0, 1, 1), weighted(values)) for values in recorder.values()]
    frozen = under(net, FixedStatistics(nodes), x)
    assert float((live[0] - live[1]).abs().max()) > 1e-2
    assert float((frozen - live).abs().max()) < 1e-4 * float(live.std())


@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 99))
def test_statistics_are_those_of_torch(channels: int, items: int, seed: int) -> None:
    x = 3 + torch.randn(items, 2 * channels, 7, 9, generator=torch.Generator().manual_seed(seed))
    variance, mean = torch.var_mean(x, (2, 3), correction=0)
    norm, pool = Operation(x, 2 * channels), Operation(x, 0)
    torch.testing.assert_close(statistics(norm.moments(), 63, norm=True).float(), torch.cat((mean, variance), 1))
    torch.testing.assert_close(statistics(pool.moments(), 63, norm=False).float(), mean)
    halves = norm.moments(slice(0, 3)) + norm.moments(slice(3, 7))
    torch.testing.assert_close(halves, norm.moments())
    groups = Operation(x, 2)
    variance, mean = torch.var_mean(x.unflatten(1, (2, channels)), (2, 3, 4), correction=0)
    assert groups.shared == channels
    torch.testing.assert_close(
        statistics(groups.moments(), 63 * channels, norm=True).float(), torch.cat((mean, variance), 1)
    )


@given(st.data())
def test_no_bit_of_the_field_depends_on_the_tile(data: st.DataObject) -> None:
    patches = patches_of((200, 240), 48, 4)
    values = np.random.default_rng(1).random((patches.y.count, patches.x.count, 5), np.float32) + 0.1
    whole = Nodes(Box(0, 0, 200, 240), patches, Box(0, 0, *values.shape[:2]), values)
    stride = data.draw(st.sampled_from([1, 2, 4]))
    y, x = 4 * data.draw(st.integers(0, 40)), 4 * data.draw(st.integers(0, 50))
    box = Box(y, x, y + 4 * data.draw(st.integers(1, 50 - y // 4)), x + 4 * data.draw(st.integers(1, 60 - x // 4)))
    at = nodes_of(patches, box)
    part = Nodes(box, patches, at, values[at.y0 : at.y1, at.x0 : at.x1])
    device = torch.device("cpu")
    size = box.height // stride, box.width // stride
    here = part.interpolated(1, 2, size, device)
    there = whole.interpolated(0, 4, (200 // stride, 240 // stride), device)[1:3]
    assert torch.equal(here, there[:, y // stride :, x // stride :][:, : size[0], : size[1]])


def test_patches_weigh_by_their_last_value() -> None:
    patches = patches_of((8, 16), 8, 4)
    values = np.array([[[1, 1], [5, 1e-6]]], np.float32)
    nodes = Nodes(Box(0, 0, 8, 16), patches, Box(0, 0, 1, 2), values)
    found = nodes.interpolated(0, 1, (2, 4), torch.device("cpu"))[0, 0]
    assert found[:3].tolist() == pytest.approx([1, 1, 1], abs=1e-4)
    assert found[3] == 5  # held beyond the last centre, where nothing else is known


def test_a_map_of_no_whole_stride_is_refused() -> None:
    nodes = Nodes(Box(0, 0, 10, 10), patches_of((10, 10), 10, 1), Box(0, 0, 1, 1), np.ones((1, 1, 2), np.float32))
    with pytest.raises(ModelError, match="10 px"):
        nodes.interpolated(0, 1, (4, 4), torch.device("cpu"))


@pytest.mark.parametrize("kind", KINDS)
def test_sums_of_cores_pass_by_pass_are_the_whole_image(kind: str) -> None:
    net, x, recorder = global_net(kind), image(SIDE, 2 * SIDE), Recorder()
    under(net, recorder, x)
    wanted = recorder.values()[0]
    patches, found = patches_of((SIDE, 2 * SIDE), 2 * SIDE, 4), np.zeros(0, np.float32)
    tile, cores = Box(0, 0, SIDE, 2 * SIDE), (Box(0, 0, SIDE, 48), Box(0, 48, SIDE, 2 * SIDE))
    while len(found) < len(wanted):
        sums = []
        for core in cores:
            summer = Summer([Nodes(tile, patches, Box(0, 0, 1, 1), weighted(found))], [core])
            with pytest.raises(Reached):
                under(net, summer, x)
            sums.append(summer.found[0])
        found = np.append(found, added_up(np.stack(sums)))
    np.testing.assert_allclose(found, wanted, atol=1e-4, rtol=1e-4)


def pooled(x: Tensor) -> list[Callable[[], Tensor]]:
    return [
        lambda: x.mean((2, 3), keepdim=True),
        lambda: x.mean(dim=(-1, -2), keepdim=True),
        lambda: torch.mean(x, [2, 3], True),
        lambda: x.mean([2, 3]),
        lambda: nn.functional.adaptive_avg_pool2d(x, 1),
        lambda: nn.AdaptiveAvgPool2d((1, 1))(x),
        lambda: nn.InstanceNorm2d(3)(x),
        lambda: nn.GroupNorm(3, 3)(x),
    ]


@pytest.mark.parametrize("which", range(8))
def test_the_ways_to_write_it_are_known(which: int) -> None:
    recorder = Recorder()
    with recorder:
        pooled(image())[which]()
    assert len(recorder.found) == 1


def test_local_operations_are_left_alone() -> None:
    x, recorder = image(), Recorder()
    with recorder:
        nn.InstanceNorm2d(3, track_running_stats=True).eval()(x)
        nn.functional.adaptive_avg_pool2d(x, 2)
        x.mean(1, keepdim=True)
        x.mean(axis=1)  # numpy's word for it
        x.mean()
        nn.GroupNorm(1, 3)(torch.zeros(2, 3))
    assert recorder.found == []
    assert operation(Call(torch.relu, (x,), {})) is None
