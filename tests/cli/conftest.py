"""A small georeferenced image and a small saved model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.cli_files import write_image

from tilepipe.models.card import ModelCard
from tilepipe.models.formats.directory import save_model
from tilepipe.models.model import Model
from tilepipe.models.nets import zoo


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A U-Net of random weights, 3 bands, 2 classes."""
    torch.manual_seed(3)
    arch = {"name": "unet", "width": 4, "depth": 2}
    card = ModelCard(
        name="tiny", bands=3, classes=["other", "thing"], mean=[128] * 3, std=[64] * 3, stride=4, halo=32, tile=64,
        dtype="uint8", arch=arch,
    )  # fmt: skip
    net = Model.from_torch(zoo.build(arch, 3, 2), card)
    return save_model(net, tmp_path_factory.mktemp("models") / "tiny.model")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """3 bands of uint8, 150 x 210 pixels of 0.5 m."""
    return write_image(tmp_path / "scene.tif")
