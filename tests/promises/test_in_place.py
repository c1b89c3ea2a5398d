"""Networks that change their input in place work, and give the labels of whole-image inference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tilepipe as tp
from tilepipe.inference.device import Compute
from tilepipe.inference.profile.edge_errors import model_errors
from tilepipe.models.identity import identify
from tilepipe.models.probe.steadiness import refuse_on_tiles
from tilepipe.models.probe.subject import adopt
from tilepipe.sources.array import ArraySource
from tilepipe.testing import noise, whole_image


class Scaled(nn.Module):
    """Subtracts and divides as many training scripts do: in the tensor that it was given."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sub_(100.0).div_(50.0)


class Overwritten(nn.Module):
    """Writes into its input, and reads it again after."""

    def forward(self, x: Tensor) -> Tensor:
        x[:, 1:] += 0.5 * x[:, :1]
        return x.clone()


FIRST: dict[str, Callable[[], nn.Module]] = {
    "sub_": Scaled,
    "relu": lambda: nn.ReLU(inplace=True),
    "index": Overwritten,
}


def model(first: nn.Module, **card: object) -> tp.Model:
    torch.manual_seed(3)
    layers = nn.Conv2d(3, 4, 5, padding=2), nn.ReLU(inplace=True), nn.Conv2d(4, 3, 3, padding=1)
    return tp.Model.from_torch(nn.Sequential(first, *layers), tp.ModelCard(bands=3, classes=["a", "b", "c"], **card))


@pytest.mark.parametrize("scaled", [{}, {"mean": [127.0] * 3, "std": [60.0] * 3}], ids=["raw", "scaled"])
@pytest.mark.parametrize("case", FIRST)
def test_labels_are_those_of_the_whole_image(case: str, scaled: dict[str, list[float]], tmp_path: Path) -> None:
    pixels = np.asarray(noise(90, 121).read(tp.Box(0, 0, 90, 121)), np.float32)
    for image in (ArraySource(pixels), ArraySource(pixels.astype(np.uint8))):
        before, inplace = pixels.copy(), model(FIRST[case](), **scaled)
        wanted = whole_image(inplace, image)
        result = tp.segment(image, inplace, tmp_path / "labels.tif", tile=40, overwrite=True)
        assert result.plan.tile_count > 1
        assert result.certificate.mode == "EXACT"
        assert len(np.unique(wanted)) > 1
        assert (np.asarray(result.labels) == wanted).all()
        assert (tp.predict(image, inplace, tp.Box(10, 20, 60, 70)) == wanted[10:60, 20:70]).all()
        assert (pixels == before).all(), "the image is the user's"


@pytest.mark.parametrize("case", FIRST)
def test_what_cannot_be_measured_and_what_is_called_before_a_run(case: str) -> None:
    inplace = model(FIRST[case](), halo=8)
    refuse_on_tiles(inplace)
    assert identify(inplace, "cpu", "fp32").trouble == ""
    subject = adopt(inplace.module, 3, 1)
    x = subject.noise(subject.quantum, subject.quantum)
    before = x.clone()
    subject(x)
    assert torch.equal(x, before)


def test_errors_of_a_cut_are_measured_on_the_images_own_pixels() -> None:
    """The same network is measured the same if its first step makes a new tensor."""

    class Apart(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x - 100.0) / 50.0

    pixels = np.asarray(noise(96, 96).read(tp.Box(0, 0, 96, 96)), np.float32)
    before = pixels.copy()
    found, wanted = (model_errors(model(first), [pixels], 16, 1, Compute()) for first in (Scaled(), Apart()))
    assert found == wanted
    assert max(found.worst) > 0
    assert (pixels == before).all()
