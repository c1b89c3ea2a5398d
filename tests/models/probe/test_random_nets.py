"""Small networks drawn at random: the measured reach must be the one that cutting the image shows, on every side."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.drawn_nets import networks
from hypothesis import HealthCheck, given, settings
from torch import nn

from tilepipe.models.probe.procedure import probe


def check(net: nn.Module, truth: Any) -> None:
    found = probe(net, 2)
    assert found.stride == net.stride, net
    assert found.reach == truth(net, 2, rows=48, half=192), net


@given(net=networks())
@settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_reach_is_what_cutting_the_image_shows(net: nn.Module, truth: Any) -> None:
    check(net, truth)


@pytest.mark.long
@pytest.mark.timeout(3000)
@given(net=networks())
@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_reach_is_what_cutting_200_images_shows(net: nn.Module, truth: Any) -> None:
    check(net, truth)
