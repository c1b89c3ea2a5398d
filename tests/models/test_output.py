"""What networks of others return: read right, or refused in a sentence, never taken for something else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tilepipe as tp
from tilepipe.errors import ModelError, TilepipeError, UsageError

CARD = tp.ModelCard(bands=3, classes=["dark", "bright"])
IMAGE = np.random.default_rng(0).integers(0, 200, (3, 90, 110)).astype(np.uint8)
TRUTH = (IMAGE.astype(int).sum(0) > 301).astype(np.uint8)  # the mean of the bands is above 100.5


@dataclass
class Answer:
    logits: Tensor
    attentions: None = None


class Bright(nn.Module):
    """Logits (mean - 100.5) of the last channel, 0 of the others, then what `end` makes of them."""

    def __init__(self, end: Callable[[Tensor], Any] = lambda y: y, channels: int = 2) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 1)
        with torch.no_grad():
            self.conv.weight.zero_()
            self.conv.bias.zero_()  # type: ignore[union-attr]
            self.conv.weight[-1] = 1 / 3
            self.conv.bias[-1] = -100.5  # type: ignore[index]
        self.end = end

    def forward(self, x: Tensor) -> Any:
        return self.end(self.conv(x))


def of(end: Callable[[Tensor], Any] = lambda y: y, channels: int = 2, **more: Any) -> tp.Model:
    return tp.Model.from_torch(Bright(end, channels), CARD, **more)


ENDS: dict[str, tuple[Callable[[Tensor], Any], int, str | None]] = {
    "dict": (lambda y: {"aux": -y, "out": y}, 2, None),
    "one tensor of the shape": (lambda y: (y.mean((2, 3)), y), 2, None),
    "dataclass": (Answer, 2, None),
    "object": (lambda y: SimpleNamespace(logits=y, loss=None), 2, None),
    "softmax": (lambda y: y.softmax(1), 2, "probabilities"),
    "log softmax": (lambda y: y.log_softmax(1), 2, None),
    "mean of two softmaxes": (lambda y: (y.softmax(1) + y.softmax(1)) / 2, 2, "probabilities"),
    "sigmoid per class": (torch.sigmoid, 2, "probabilities"),
    "one logit": (lambda y: y, 1, None),
    "one logit without an axis": (lambda y: y[:, 0], 1, None),
    "one sigmoid": (torch.sigmoid, 1, "probabilities"),
    "one sigmoid, resized": (lambda y: nn.functional.interpolate(y.sigmoid(), scale_factor=1.0), 1, "probabilities"),
    "argmax": (lambda y: y.argmax(1), 2, "labels"),
    "argmax with an axis": (lambda y: y.argmax(1, keepdim=True), 2, "labels"),
    "threshold": (lambda y: y[:, 0] > 0, 1, "labels"),
}


@pytest.mark.parametrize("name", ENDS)
def test_what_a_module_returns_is_read_as_it_is_meant(name: str) -> None:
    end, channels, kind = ENDS[name]
    model = of(end, channels)
    assert model.card.output == kind
    halo = {} if kind != "labels" else {"tile": 64, "overlap": 0}
    found = tp.predict(IMAGE, model, **halo)
    # a sigmoid per class has 0.5 for the dark one: the same answer
    np.testing.assert_array_equal(found, TRUTH)


def test_plain_logits_are_left_as_they_are() -> None:
    module = Bright()
    assert tp.Model.from_torch(module, CARD).module.state_dict().keys() == module.state_dict().keys()


@pytest.mark.parametrize("channels", [1, 2])
def test_blended_probabilities_are_not_softmaxed_again(tmp_path: Path, channels: int) -> None:
    """Margins of the blend are those of the probabilities themselves; a second softmax halves them and more."""
    end: Callable[[Tensor], Tensor] = (
        (lambda y: (y / 40).sigmoid()) if channels == 1 else (lambda y: (y / 40).softmax(1))
    )
    logits: Callable[[Tensor], Tensor] = lambda y: y / 40  # noqa: E731
    how: dict[str, Any] = {"window_shape": "gaussian", "tile": 64, "overlap": 32, "layers": ["margin", "entropy"]}
    found = tp.segment(IMAGE, of(end, channels), tmp_path / "shares.tif", **how)
    right = tp.segment(IMAGE, of(logits, channels), tmp_path / "logits.tif", **how)
    for layer in ("margin", "entropy"):
        ours, theirs = (np.asarray(run.layers[layer].dask).astype(int) for run in (found, right))
        assert np.abs(ours - theirs).max() <= 1
    margin = np.asarray(found.layers["margin"].dask) / 254
    expected = np.abs(np.tanh((IMAGE.astype(float).mean(0) - 100.5) / 80))  # |p - (1 - p)| of the sigmoid
    assert abs(margin.mean() - expected.mean()) < 0.005


def test_labels_blend_by_votes_and_promise_nothing(tmp_path: Path) -> None:
    model = of(lambda y: y.argmax(1))
    found = tp.segment(IMAGE, model, tmp_path / "o.tif", window_shape="gaussian", tile=64, overlap=32)
    np.testing.assert_array_equal(np.asarray(found.labels.dask), TRUTH)
    assert "labels and no scores" in found.certificate.sentences[0] + found.plan.seams
    with pytest.raises(UsageError, match="gives labels and no probabilities"):
        tp.plan(IMAGE, model, layers=["margin"], window_shape="gaussian")


REFUSED: dict[str, tuple[Callable[[Tensor], Any], int, str]] = {
    "two of the shape": (lambda y: (y, -y), 2, r"returns a tuple \(0 \(1, 2, 96, 96\), 1 .* key=0"),
    "none of the shape": (lambda y: {"features": y.mean((2, 3))}, 2, r"'features' \(1, 2\)"),
    "text": (lambda y: "map", 2, "returns a str"),
    "a quarter of the size": (lambda y: y[:, :, ::4, ::4], 2, r"maps have 23 x 28 px for tiles of 90 x 110 px"),
    "no padding": (lambda y: y[:, :, 2:-2, 2:-2], 2, "86 x 106 px for tiles of 90 x 110 px"),
    "more channels": (lambda y: torch.cat((y, y), 1), 2, "gives 4 channels and the card names 2 classes"),
    "classes last": (lambda y: y.permute(0, 2, 3, 1), 2, "last axis"),
    "unknown shares": (lambda y: 1 / (1 + torch.exp(-y)), 1, "output='probabilities' or output='logits'"),
    "labels beyond the card": (lambda y: y.argmax(1) + 5, 2, "labels from 5 to 6 and the card names 2 classes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_with_what_to_do(name: str) -> None:
    end, channels, said = REFUSED[name]
    with pytest.raises(ModelError, match=said):
        tp.predict(IMAGE, of(end, channels))


def test_what_is_said_decides() -> None:
    np.testing.assert_array_equal(tp.predict(IMAGE, of(lambda y: (-y, y), key=1)), TRUTH)
    unknown = REFUSED["unknown shares"][0]
    np.testing.assert_array_equal(tp.predict(IMAGE, of(unknown, 1, output="probabilities")), TRUTH)
    said = tp.ModelCard(bands=3, classes=["dark", "bright"], output="probabilities", key="b")
    module = Bright(lambda y: {"a": unknown(-y), "b": unknown(y)}, 1)
    np.testing.assert_array_equal(tp.predict(IMAGE, tp.Model.from_torch(module, said)), TRUTH)


def test_probabilities_that_are_none_are_refused() -> None:
    with pytest.raises(ModelError, match="says that it gives probabilities, and its values go from"):
        of(output="probabilities")


def test_one_class_is_refused() -> None:
    with pytest.raises(ModelError, match=r"names one class, so every pixel would be 'bright'.*\[background, bright\]"):
        tp.Model.from_torch(Bright(channels=1), tp.ModelCard(bands=3, classes=["bright"]))


@pytest.mark.parametrize(
    ("forward", "said"),
    [
        (lambda net, x: net.conv(x.permute(0, 3, 1, 2)), r"\(batch, bands, height, width\)"),
        (lambda net, x: net.conv(x.double()), "float32"),
        (lambda net, x: (_ for _ in ()).throw(AssertionError()), "AssertionError"),
    ],
)
def test_a_module_that_fails_is_a_sentence(forward: Any, said: str) -> None:
    class Other(Bright):
        def forward(self, x: Tensor) -> Any:
            return forward(self, x)

    with pytest.raises(ModelError, match=said):
        tp.predict(IMAGE, tp.Model.from_torch(Other(), CARD))


def test_the_kind_of_output_is_part_of_the_identity() -> None:
    module = Bright(lambda y: y.softmax(1))
    shares, logits = tp.Model.from_torch(module, CARD), tp.Model.from_torch(module, CARD, output="logits")
    assert shares.sha256() != logits.sha256()


def test_nothing_is_left_over_from_the_trial() -> None:
    module = Bright(torch.nn.Dropout(0.5))
    torch.manual_seed(3)
    before = torch.rand(3)
    torch.manual_seed(3)
    tp.Model.from_torch(module, CARD)
    assert torch.equal(torch.rand(3), before)
    with pytest.raises(TilepipeError):
        of(key="x")
