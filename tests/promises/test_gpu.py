"""The promises on a CUDA device: make test-gpu."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.fakes import run_labels
from torch import Tensor, nn

import tilepipe as tp
from tilepipe.events import Event
from tilepipe.execution.block_queue import BlockQueue
from tilepipe.execution.executors import blocks, serial
from tilepipe.execution.job import Job
from tilepipe.inference.device import Compute
from tilepipe.inference.predictor import Predictor
from tilepipe.inference.profile.measure_reproducibility import Setting, measure_reproducibility
from tilepipe.models.card import ModelCard
from tilepipe.models.model import Model
from tilepipe.models.nets.zoo import build
from tilepipe.sources.array import ArraySource
from tilepipe.testing import codes_model, constant_model, noise, random_unet, whole_image
from tilepipe.training.config import TrainConfig
from tilepipe.training.loop import fit

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.filterwarnings("default:Plan failed:UserWarning"),  # cuDNN tries another one
]
DEVICE = "cuda:0"
CUTS: list[dict[str, Any]] = [
    {"tile": 96, "overlap": 64, "window_shape": "crop", "block": 200, "device": DEVICE},
    {"tile": 64, "overlap": 32, "window_shape": "hann", "block": 150, "device": DEVICE},
]
ROUGHLY = {"fp64": 1e-4, "fp32": 1e-4, "tf32": 2e-2, "bf16": 0.3, "fp16": 5e-2}
"""Largest difference in probability that a precision may make with the bundled models."""
ROOT = Path(__file__).parents[2]
IMAGE = ROOT / "pipelines" / "sample" / "Amazon_24_20.tif"


@pytest.mark.parametrize("cut", CUTS, ids=["crop", "hann"])
def test_constant_and_identity(cut: dict[str, Any], tmp_path: Path) -> None:
    codes = np.random.default_rng(0).integers(0, 7, (1, 257, 301), dtype=np.uint8)
    assert (run_labels(ArraySource(codes), codes_model(7), tmp_path / "codes", **cut) == codes[0]).all()
    labels = run_labels(ArraySource(codes), constant_model(0.3, 0.4, 0.3), tmp_path / "constant", **cut)
    assert (labels == 1).all()


@pytest.mark.parametrize("cut", CUTS, ids=["crop", "hann"])
def test_same_bytes_for_any_block_size_and_engine(cut: dict[str, Any], tmp_path: Path) -> None:
    image, model = noise(300, 420), random_unet()
    serial = run_labels(image, model, tmp_path / "serial", **cut)
    assert (run_labels(image, model, tmp_path / "dask", blocks.run, **cut) == serial).all()
    assert (run_labels(image, model, tmp_path / "block", **{**cut, "block": 1000}) == serial).all()


@pytest.mark.parametrize("workers", [1, 2])
def test_same_bytes_for_worker_processes_on_one_device(workers: int, tmp_path: Path) -> None:
    paths = []
    for count in (0, workers):
        path = tmp_path / f"{count}.tif"
        settings: dict[str, Any] = {"workers": count} if count else {}
        paths += tp.segment(IMAGE, "forest", path, tile=160, block=160, device=DEVICE, **settings).paths
    labels = [np.asarray(tp.open_labels(path)) for path in paths]
    assert (labels[0] == labels[1]).all()
    assert len(np.unique(labels[0])) > 1


@pytest.mark.parametrize("precision", ["fp64", "fp32", "tf32", "bf16"])
@pytest.mark.parametrize("cut", CUTS, ids=["crop", "hann"])
def test_region_is_crop(cut: dict[str, Any], precision: str, tmp_path: Path) -> None:
    image, model = noise(300, 420), random_unet()
    full = run_labels(image, model, tmp_path, precision=precision, **cut)
    for box in (tp.Box(10, 20, 200, 333), tp.Box(0, 0, 1, 1), tp.Box(150, 150, 300, 420)):
        part = tp.predict(image, model, box, precision=precision, **cut)
        assert (part == full[box.y0 : box.y1, box.x0 : box.x1]).all()


def test_whole_image_truth(tmp_path: Path) -> None:
    image, model = noise(300, 420), random_unet()
    labels = run_labels(image, model, tmp_path, **CUTS[0])
    assert (labels != whole_image(model, image)).mean() < 1e-4  # the CPU's answer: other kernels, other rounding
    labels = run_labels(image, model, tmp_path / "fp64", precision="fp64", **CUTS[0])
    assert (labels == whole_image(model, image, torch.float64)).all()


def test_the_callers_model_stays_on_the_cpu() -> None:
    model = random_unet()
    tp.predict(noise(64, 64), model, device=DEVICE)
    assert {p.device.type for p in model.module.parameters()} == {"cpu"}
    assert tp.predict(noise(64, 64), model, device="cpu").shape == (64, 64)
    assert tp.probe(model).local


class Bands(nn.Module):
    """The bands are the logits."""

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"])
def test_every_pixel_type(dtype: str) -> None:
    model = Model.from_torch(Bands(), ModelCard(bands=2, classes=["a", "b"]))
    tiles = np.random.default_rng(0).integers(0, 100, (3, 2, 16, 16)).astype(dtype)
    found = Predictor(model, (16, 16), Compute(DEVICE, batch=4)).labels(tiles)
    assert (found == tiles.argmax(1)).all()


@pytest.mark.parametrize("precision", ["fp64", "fp32", "tf32", "bf16", "fp16"])
def test_level(precision: str) -> None:
    model = tp.load_model("forest")
    compute = Compute(DEVICE, precision, 8, 0)
    level = measure_reproducibility(model, Setting((256, 256), model.card.stride, model.card.halo, compute, "uint8"))
    assert level.repeatable
    assert level.independent
    assert level.device == torch.cuda.get_device_name(0)
    assert level.gap is not None
    assert level.gap <= (1e-9 if precision == "fp64" else ROUGHLY[precision])
    if precision == "fp32":
        assert level.rounding is None
    else:
        assert level.rounding is not None
        assert level.rounding <= ROUGHLY[precision]
        if precision != "tf32" or torch.cuda.get_device_capability(0) >= (8, 0):
            assert level.rounding > 0


NETS: list[dict[str, Any]] = [
    {"name": "unet", "width": 8, "depth": 3, "up": up}
    for up in ("nearest", "bilinear", "deconv2", "deconv3", "deconv4", "shuffle", "shuffle_icnr_blur", "unpool")
] + [
    {"name": "unet", "encoder": "resnet18", "depth": 5},
    {"name": "linknet", "width": 8, "depth": 3},
    {"name": "segnet", "width": 8, "depth": 3},
    {"name": "fcn"},
    {"name": "deeplab"},
]


@pytest.mark.parametrize("arch", NETS, ids=lambda arch: f"{arch['name']}-{arch.get('up', arch.get('encoder', ''))}")
def test_every_network_is_repeatable(arch: dict[str, Any]) -> None:
    torch.manual_seed(0)
    net = build(arch, 3, 4).eval()
    card = ModelCard(bands=3, classes=["a", "b", "c", "d"], stride=int(net.stride))
    level = measure_reproducibility(
        Model.from_torch(net, card), Setting((256, 256), card.stride, None, Compute(DEVICE, "fp32", 4, 0))
    )
    assert level.repeatable
    assert level.independent


@pytest.fixture
def tf32_everywhere() -> Any:
    torch.backends.fp32_precision = "tf32"
    yield
    torch.backends.fp32_precision = "none"


@pytest.mark.usefixtures("tf32_everywhere")
def test_fp32_is_fp32_whatever_the_caller_has_set() -> None:
    if torch.cuda.get_device_capability(0) < (8, 0):
        pytest.skip("the device has no TF32")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.Conv2d(64, 64, 1), nn.ConvTranspose2d(64, 64, 1)).eval()
    model = Model.from_torch(net, ModelCard(bands=64, classes=[f"c{k}" for k in range(64)]))
    tiles = np.random.default_rng(0).standard_normal((1, 64, 64, 64)).astype(np.float32)
    with torch.no_grad():
        truth = net.double()(torch.from_numpy(tiles).double()).numpy()
    net.float()
    errors = {
        precision: np.abs(Predictor(model, (64, 64), Compute(DEVICE, precision)).logits(tiles) - truth).max()
        for precision in ("fp32", "tf32")
    }
    assert errors["fp32"] < 1e-5
    assert errors["tf32"] > 10 * errors["fp32"]
    assert torch.backends.fp32_precision == "tf32"


@pytest.mark.parametrize("precision", ["fp64", "fp32", "tf32", "bf16", "fp16"])
def test_a_run_is_certified_at_its_level_and_verify_holds(precision: str, tmp_path: Path) -> None:
    result = tp.segment(IMAGE, "forest", tmp_path / "labels.tif", tile=256, device=DEVICE, precision=precision)
    level = result.certificate.level
    assert level is not None
    assert level.precision == precision
    assert result.certificate.mode == "EXACT"
    assert level.sentence in result.certificate.sentences
    assert result.certificate.versions["device"] == level.device
    found = tp.verify(result, windows=4)
    assert found.holds, str(found)
    assert found.comparable
    assert found.again is not None
    assert (found.again.pixels > 0, found.again.different) == (True, 0)
    on_cpu = tp.verify(result, windows=2, device="cpu")
    assert not on_cpu.comparable


def test_too_little_context_does_not_hold_on_a_gpu_either(tmp_path: Path) -> None:
    model = random_unet()
    short = replace(model, card=model.card.model_copy(update={"halo": 4}))  # what a wrong card says
    result = tp.segment(noise(300, 300), short, tmp_path / "labels.tif", tile=96, device=DEVICE)
    assert result.certificate.mode == "EXACT"
    found = tp.verify(result, noise(300, 300), short, windows=4)
    assert not found.holds


def test_tolerance_is_measured_on_the_device() -> None:
    plan = tp.plan(IMAGE, "forest", tile=160, tolerance=0.05, device=DEVICE)
    assert plan.compute.device == DEVICE


def test_a_run_that_was_interrupted_ends_with_the_same_bytes(tmp_path: Path) -> None:
    image, model, cut = noise(300, 420), random_unet(), CUTS[1]
    whole = run_labels(image, model, tmp_path / "whole", **cut)

    class Pulled(Exception):  # noqa: N818 - no error, the plug is pulled
        pass

    def listener(event: Event) -> None:
        if event.done == 2:
            raise Pulled

    def two_blocks(job: Job, queue: BlockQueue) -> None:
        queue.listener = listener
        serial.run(job, queue)

    with pytest.raises(Pulled):
        run_labels(image, model, tmp_path / "again", two_blocks, **cut)
    assert (run_labels(image, model, tmp_path / "again", **cut) == whole).all()


def test_training(tmp_path: Path) -> None:
    entries = [{"image": str(IMAGE), "label": str(tp.segment(IMAGE, "forest", tmp_path / "truth.tif").paths[0])}]
    config = TrainConfig(
        name="m", output=str(tmp_path / "m.model"), classes=("a", "b"), train=entries, score=entries, steps=8, batch=2,
        crop=64, warmup=2, checkpoint=4, device=DEVICE, arch={"name": "unet", "width": 8, "depth": 3},
    )  # fmt: skip
    model = tp.load_model(fit(config))
    assert {p.device.type for p in model.module.parameters()} == {"cpu"}
    assert all(torch.isfinite(p).all() for p in model.module.parameters())


@pytest.mark.parametrize("norm", ["instance", "group"])
def test_fixed_statistics(norm: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = build({"name": "unet", "width": 8, "depth": 2, "norm": norm}, 3, 3)
    card = ModelCard(bands=3, classes=["a", "b", "c"], stride=int(net.stride), mean=[127.0] * 3, std=[60.0] * 3)
    model, image = Model.from_torch(net, card), noise(300, 340)
    result = tp.segment(image, model, tmp_path / "labels.tif", tile=128, device=DEVICE)
    assert result.certificate.mode == "FIELD"
    found = tp.verify(result, image, model, windows=3)
    assert found.holds, str(found)
