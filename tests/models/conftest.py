"""Packages whose networks ours are compared with, or read."""

from typing import Any

import pytest
from helpers.without_torchvision import load


@pytest.fixture(scope="session")
def timm() -> Any:
    return load("timm")


@pytest.fixture(scope="session")
def smp() -> Any:
    return load("segmentation_models_pytorch")
