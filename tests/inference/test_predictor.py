"""Predictor: argmax and integer probabilities, batches that do not matter, models and devices that are refused."""

from __future__ import annotations

import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tilepipe.errors import DeviceError, ModelError, UsageError
from tilepipe.inference.device import Compute, resolve_device, resolve_precision
from tilepipe.inference.predictor import Predictor, all_usable, labels_of
from tilepipe.models.card import ModelCard
from tilepipe.models.function import from_function
from tilepipe.models.model import Model
from tilepipe.testing import random_unet

CPU = Compute()


class Bands(nn.Module):
    """The bands are the logits."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def bands(classes: int, **card: Any) -> Model:
    return Model.from_torch(Bands(), ModelCard(bands=classes, classes=[f"c{k}" for k in range(classes)], **card))


def logits_of(*pixel: float) -> np.ndarray:
    """One tile of 2 x 2 pixels, each with these logits."""
    return np.broadcast_to(np.array(pixel, np.float32)[None, :, None, None], (1, len(pixel), 2, 2)).copy()


@pytest.mark.parametrize("pixel", [(1, 5, 5), (0, 2, 2), (-3, -1, -1)])
def test_ties_go_to_the_lowest_class(pixel: tuple[float, ...]) -> None:
    predictor = Predictor(bands(3), (2, 2), CPU)
    assert (predictor.labels(logits_of(*pixel)) == 1).all()
    assert (predictor.probabilities(logits_of(*pixel)).argmax(1) == 1).all()


@pytest.mark.parametrize("classes", [2, 3, 8, 9, 21])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_labels_are_the_first_of_the_largest_scores(classes: int, order: torch.memory_format) -> None:
    random = np.random.default_rng(classes)
    # Few values, so that many are equal, and classes that are ruled out.
    scores = random.choice(np.array([-np.inf, -1, 0, 0.5, 2], np.float32), (2, classes, 13, 17))
    scores[:, 0] = np.maximum(scores[:, 0], -1)
    given = torch.from_numpy(scores).contiguous(memory_format=order)
    for dtype in ("uint8", "uint16"):
        found = labels_of(given, dtype)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, scores.argmax(1))


@pytest.mark.parametrize(
    ("values", "usable"),
    [
        ((1.0, -np.inf), True),
        ((3e38, 3e38), True),  # their sum is no finite number
        ((np.inf, 0.0), False),
        ((-np.inf, -np.inf), False),
        ((np.nan, 0.0), False),
        ((np.inf, -np.inf), False),
    ],
)
def test_scores_are_usable_if_the_largest_one_of_each_pixel_is_finite(values: tuple[float, ...], usable: bool) -> None:
    scores = torch.zeros(1, 2, 40, 40)
    scores[0, :, 7, 11] = torch.tensor(values)
    if usable:
        scores[0, :, 20] = torch.tensor(values)[:, None]
    assert all_usable(scores) is usable


@given(
    logits=st.lists(st.floats(-80, 80, width=32), min_size=2, max_size=6),
    nearly=st.booleans(),
)
def test_probabilities_are_24_bits_and_keep_the_argmax(logits: list[float], nearly: bool) -> None:
    if nearly:  # the next float above: softmax of both rounds to the same
        logits = [*logits, float(np.nextafter(np.float32(max(logits)), np.float32(200)))]
    predictor = Predictor(bands(len(logits)), (2, 2), CPU)
    tiles = logits_of(*logits)
    found = predictor.probabilities(tiles)
    assert found.dtype == np.int32
    assert found.min() >= 0
    assert np.abs(found.sum(1) - (1 << 24)).max() <= 1 + len(logits)
    assert (found.argmax(1) == tiles.argmax(1)).all()
    assert (predictor.labels(tiles) == tiles.argmax(1)).all()
    exact = np.exp(np.float64(logits) - max(logits))
    assert np.abs(found[0, :, 0, 0] / (1 << 24) - exact / exact.sum()).max() < 1e-5


def test_more_than_255_classes_are_uint16() -> None:
    predictor = Predictor(bands(300), (2, 2), CPU)
    labels = predictor.labels(logits_of(*range(300)))
    assert (labels.dtype, labels.max()) == (np.uint16, 299)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_every_pixel_type(dtype: str) -> None:
    predictor = Predictor(bands(2, mean=[10, 20], std=[2, 4]), (2, 2), CPU)
    for label, pixel in enumerate(((14, 24), (12, 28))):  # 2 and 1 standard deviations, 1 and 2
        tiles = np.broadcast_to(np.array(pixel, dtype)[None, :, None, None], (1, 2, 2, 2))
        assert (predictor.labels(tiles) == label).all()


def test_large_uint16_values_are_not_wrapped() -> None:
    predictor = Predictor(bands(2), (2, 2), CPU)
    tiles = np.array([40000, 30000], np.uint16)[None, :, None, None] * np.ones((1, 2, 2, 2), np.uint16)
    assert (predictor.labels(tiles) == 0).all()


@pytest.mark.parametrize("precision", ["fp64", "fp32", "bf16"])
@pytest.mark.parametrize("call", ["labels", "probabilities"])
def test_a_tile_does_not_depend_on_its_company(call: str, precision: str) -> None:
    model = random_unet()
    tiles = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 48), dtype=np.uint8)
    predictor = Predictor(model, (32, 48), Compute(precision=precision, batch=4))
    together = getattr(predictor, call)(tiles)
    for k in range(4):
        alone = getattr(predictor, call)(tiles[k : k + 1])
        assert alone.shape[0] == 1
        assert (alone[0] == together[k]).all()
    assert (getattr(predictor, call)(tiles[::-1])[::-1] == together).all()


def test_threads_get_their_own_results() -> None:
    predictor = Predictor(random_unet(), (32, 32), CPU)
    tiles = np.random.default_rng(1).integers(0, 256, (12, 1, 3, 32, 32), dtype=np.uint8)
    expected = [predictor.probabilities(tile) for tile in tiles]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(predictor.probabilities, tiles))
    assert all((a == b).all() for a, b in zip(found, expected, strict=True))


def test_bf16_runs_on_a_cpu_and_is_close() -> None:
    tiles = np.random.default_rng(2).integers(0, 256, (1, 3, 64, 64), dtype=np.uint8)
    exact = Predictor(random_unet(), (64, 64), CPU).probabilities(tiles) / (1 << 24)
    rough = Predictor(random_unet(), (64, 64), Compute(precision="bf16")).probabilities(tiles) / (1 << 24)
    assert np.abs(rough - exact).max() > 0
    assert np.abs(rough - exact).mean() < 0.05


def test_fp64_is_torchs_own_and_leaves_the_model_alone() -> None:
    model = random_unet()
    tiles = np.random.default_rng(3).integers(0, 256, (1, 3, 64, 64), dtype=np.uint8)
    found = Predictor(model, (64, 64), Compute(precision="fp64")).logits(tiles)
    assert next(model.module.parameters()).dtype == torch.float32
    with torch.no_grad():
        x = (torch.from_numpy(tiles).double() - 127) / 60
        truth = copy.deepcopy(model.module).double()(x).numpy()
    assert found.dtype == np.float64
    assert np.abs(found - truth).max() < 1e-12
    assert np.abs(Predictor(model, (64, 64), CPU).logits(tiles) - truth).max() > 1e-8


@pytest.mark.parametrize("call", ["labels", "probabilities"])
def test_classes_that_fp32_cannot_tell_apart(call: str) -> None:
    class Barely(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat((x, x + 1e-12), 1)

    model = Model.from_torch(Barely(), ModelCard(bands=1, classes=["a", "b"]))
    tiles = np.ones((1, 1, 2, 2), np.uint8)
    for precision, label in (("fp32", 0), ("fp64", 1)):
        found = getattr(Predictor(model, (2, 2), Compute(precision=precision)), call)(tiles)
        assert ((found if call == "labels" else found.argmax(1)) == label).all()


class Single(nn.Module):
    """Written with fp32 in mind."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.conv, self.norm = how, nn.Conv2d(2, 2, 1), nn.LayerNorm(2)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "constant weights":
            return nn.functional.conv2d(x, torch.ones(2, 2, 1, 1))
        if self.how == "cast input":
            return self.conv(x.float())
        if self.how == "cast output":
            return self.conv(x).float()
        return self.norm(x.movedim(1, 3)).movedim(3, 1) + torch.ones(2, 1, 1)


@pytest.mark.parametrize("how", ["constant weights", "cast input", "cast output"])
def test_a_model_that_does_not_take_fp64_is_one_sentence(how: str) -> None:
    model = Model.from_torch(Single(how), ModelCard(bands=2, classes=["a", "b"]), "my.model")
    tiles = np.ones((1, 2, 4, 4), np.uint8)
    Predictor(model, (4, 4), CPU).labels(tiles)
    with pytest.raises(ModelError, match=r"my\.model (fails|gives float32) .*fp64.*; use precision fp32$"):
        Predictor(model, (4, 4), Compute(precision="fp64")).labels(tiles)


def test_layer_norm_and_constants_in_fp64() -> None:
    model = Model.from_torch(Single("norm"), ModelCard(bands=2, classes=["a", "b"]))
    assert (
        Predictor(model, (4, 4), Compute(precision="fp64")).logits(np.ones((1, 2, 4, 4), np.uint8)).dtype == np.float64
    )


def test_a_model_that_holds_what_cannot_be_copied_runs_in_fp64() -> None:
    net = nn.Conv2d(2, 2, 1)
    net.lock = threading.Lock()  # type: ignore[assignment]
    model = Model.from_torch(net, ModelCard(bands=2, classes=["a", "b"]), "my.model")
    logits = Predictor(model, (4, 4), Compute(precision="fp64")).logits(np.ones((1, 2, 4, 4), np.uint8))
    assert logits.dtype == np.float64


class Spoilt(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        x = x.clone()
        x[..., 1, 1] = self.value
        return x


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("call", ["labels", "probabilities"])
def test_logits_that_are_no_numbers_are_refused(value: float, call: str) -> None:
    model = Model.from_torch(Spoilt(value), ModelCard(bands=2, classes=["a", "b"]), "my.model")
    with pytest.raises(ModelError, match=r"my\.model returned NaN or infinite logits"):
        getattr(Predictor(model, (2, 2), CPU), call)(logits_of(0, 1))


class Contrast(nn.Module):
    """Divides by the tile's own spread, which is 0 in the padding of the last batch."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean((2, 3), keepdim=True)) / x.std((2, 3), keepdim=True)


def test_the_padding_of_a_batch_is_not_held_against_a_model() -> None:
    model = Model.from_torch(Contrast(), ModelCard(bands=2, classes=["a", "b"]))
    tiles = np.random.default_rng(0).random((1, 2, 4, 4), dtype=np.float32)
    labels = Predictor(model, (4, 4), Compute(batch=3)).labels(tiles)
    assert (labels == Predictor(model, (4, 4), Compute(batch=1)).labels(tiles)).all()


class Cut(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :1, 1:-1, 1:-1]


def test_a_wrong_output_shape_names_both() -> None:
    model = Model.from_torch(Cut(), ModelCard(bands=2, classes=["a", "b"]))
    with pytest.raises(ModelError, match=r"\(1, 1, 2, 2\) for an input of \(1, 2, 4, 4\).*\(1, 2, 4, 4\)"):
        Predictor(model, (4, 4), CPU).labels(np.zeros((1, 2, 4, 4), np.uint8))


class Greedy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_too_little_device_memory_is_one_sentence() -> None:
    model = Model.from_torch(Greedy(), ModelCard(bands=2, classes=["a", "b"]))
    with pytest.raises(DeviceError, match=r"cpu cannot hold batches of \(1, 2, 4, 4\); give a smaller"):
        Predictor(model, (4, 4), CPU).labels(np.zeros((1, 2, 4, 4), np.uint8))


def test_devices() -> None:
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") == ("cuda:0" if torch.cuda.is_available() else "cpu")
    with pytest.raises(DeviceError, match=r"cuda:99 is not there: \d+ CUDA devices found"):
        resolve_device("cuda:99")
    for unknown in ("tpu", "cuda:x", "cuda:-1", "mps", ""):
        with pytest.raises(UsageError, match="use auto, cpu, cuda or cuda:0"):
            resolve_device(unknown)


def test_precisions() -> None:
    card = ModelCard(bands=2, classes=["a", "b"])
    assert resolve_precision("auto", "cpu") == "fp32"
    assert resolve_precision("bf16", "cpu") == "bf16"
    assert resolve_precision("fp64", "cpu", Model(card, nn.Conv2d(2, 2, 1))) == "fp64"
    function = from_function(lambda tile: tile, card, "bands")
    assert resolve_precision("fp32", "cpu", function) == "fp32"
    with pytest.raises(ModelError, match=r"fp64 is not available for functions, .*; use fp32"):
        resolve_precision("fp64", "cpu", function)
    assert resolve_precision("fp16", "cuda:0") == "fp16"
    assert resolve_precision("tf32", "cuda:0") == "tf32"
    for unknown in ("fp16", "tf32", "fp8"):
        with pytest.raises(UsageError, match=f"'{unknown}' is not available on cpu"):
            resolve_precision(unknown, "cpu")
