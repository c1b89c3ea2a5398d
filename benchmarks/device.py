"""What precision, cuDNN's choice and torch.compile do to labels and to speed, on the device at hand.

    python benchmarks/device.py --device cuda --output table.md

prints Markdown: for the bundled buildings model and a U-Net on a ResNet34 with drawn weights, each variant's speed over
that of fp32 as tilepipe runs it (medians of pairs in turn, same process, copying of tiles included), whether tiles are
the same when computed again and beside others, the largest difference in probability and the share of labels that
differ between a tile with full context and a larger pass, and between a tile and fp32 as tilepipe runs it, and whether
a region has the labels of the full run. What a device has not is left out.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import tilepipe as tp
from tilepipe.inference.device import Compute, resolve_device, usual_batch
from tilepipe.inference.predictor import Predictor, device_versions
from tilepipe.inference.profile.measure_reproducibility import Setting, distances, measure_reproducibility
from tilepipe.inference.profile.reproducibility import Reproducibility
from tilepipe.models.nets.zoo import build


class Changed(nn.Module):
    """A network called with other cuDNN flags than tilepipe's."""

    def __init__(self, net: nn.Module, **flags: bool) -> None:
        super().__init__()
        self.net, self.flags = net, flags

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's answer."""
        cudnn: Any = torch.backends.cudnn
        was = {name: getattr(cudnn, name) for name in self.flags}
        try:
            for name, value in self.flags.items():
                setattr(cudnn, name, value)
            found: Tensor = self.net(x)
            return found
        finally:
            for name, value in was.items():
                setattr(cudnn, name, value)


class Compiled(nn.Module):
    """A network compiled when it is first called, on the device where it is then."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self._fast: list[Callable[[Tensor], Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's answer."""
        if not self._fast:
            self._fast.append(torch.compile(self.net, dynamic=False))
        return self._fast[0](x)


@dataclass(frozen=True)
class Variant:
    """One way to compute."""

    name: str
    precision: str = "fp32"
    change: Callable[[nn.Module], nn.Module] = lambda net: net


def variants(device: str) -> Iterator[Variant]:
    """Yield what the device can do, tilepipe's default first."""
    yield Variant("fp32")
    if device != "cpu":
        yield Variant("fp32, any cuDNN algorithm", change=lambda net: Changed(net, deterministic=False))
        yield Variant("fp32, cudnn.benchmark", change=lambda net: Changed(net, deterministic=False, benchmark=True))
        yield Variant("tf32", "tf32")
    yield Variant("fp64", "fp64")
    yield Variant("bf16", "bf16")
    if device != "cpu":
        yield Variant("fp16", "fp16")
    yield Variant("fp32, torch.compile", change=Compiled)


def models(names: list[str], tile: int) -> Iterator[tuple[str, tp.Model, int]]:
    """Yield name, model and tile side in pixels: `tile`, and for the ResNet its halo and 96 px to compare."""
    if "buildings" in names:
        yield "buildings", tp.load_model("buildings"), tile
    if "resnet34" in names:
        torch.manual_seed(0)
        net = build({"name": "unet", "encoder": "resnet34", "depth": 5}, 3, 2)
        card = tp.ModelCard(bands=3, classes=["a", "b"], stride=int(net.stride), mean=[127.0] * 3, std=[60.0] * 3)
        reach = tp.probe(tp.Model.from_torch(net, card)).halo
        assert reach is not None
        side = -(-(max(reach) + 96) // net.stride) * net.stride
        yield "U-Net on ResNet34", tp.Model.from_torch(net, card.model_copy(update={"halo": max(reach)})), side


def image(height: int, width: int) -> NDArray[np.uint8]:
    """Return (3, height, width) of patches and noise."""
    random = np.random.default_rng(1)
    patches = random.integers(0, 200, (3, -(-height // 24), -(-width // 24)))
    wide = np.kron(patches, np.ones((1, 24, 24), np.int64))[:, :height, :width]
    return (wide + random.integers(0, 56, wide.shape)).astype(np.uint8)


def region_is_crop(model: tp.Model, tile: int, compute: Compute) -> bool:
    """Return whether a region has the labels of the full run; tiles share two strides, whatever the halo."""
    pixels = image(3 * tile // 2 + 7, 3 * tile // 2 + 19)
    settings: dict[str, Any] = {
        "tile": tile, "overlap": 2 * model.card.stride, "window_shape": "crop", "device": compute.device,
        "precision": compute.precision, "batch": compute.batch,
    }  # fmt: skip
    full = tp.predict(pixels, model, **settings)
    y, x = tile - 40, tile // 2
    part = tp.predict(pixels, model, tp.Box(y, x, y + 90, x + 110), **settings)
    return bool((part == full[y : y + 90, x : x + 110]).all())


def ratio(base: Predictor, other: Predictor, rounds: int) -> float:
    """Return how many times faster `other` is: the median of pairs, one after the other."""
    batch, _, height, width = base.input_shape
    tiles = np.stack([image(height, width)] * batch)
    pairs = []
    for k in range(rounds + 1):
        took = []
        for predictor in (base, other):
            start = time.perf_counter()
            predictor.labels(tiles)
            took.append(time.perf_counter() - start)
        if k:  # the first is to warm up
            pairs.append(took[0] / took[1])
    return statistics.median(pairs)


def row(name: str, model: tp.Model, tile: int, compute: Compute, rounds: int) -> Iterator[str]:
    """Yield a line of the table per variant of a model."""
    shape = tile, tile
    base = Predictor(model, shape, compute)
    tiles = image(tile, tile)[None]
    for variant in variants(compute.device):
        changed = replace(model, module=variant.change(model.module).eval())
        how = replace(compute, precision=variant.precision)
        try:
            other = Predictor(changed, shape, how)
            faster = ratio(base, other, rounds)
            plain = distances(base.logits(tiles), other.logits(tiles))
            found = measure_reproducibility(changed, Setting(shape, model.card.stride, model.card.halo, how, "uint8"))
            crop = region_is_crop(changed, tile, how)
        except Exception as error:  # a compiler that is not there, a device that is too small
            yield f"| {name} | {variant.name} | not run: {type(error).__name__} | | | | | |"
            continue
        yield f"| {name} | {variant.name} | {faster:.2f} | {cells(found, plain)} | {yes(crop)} |"


def cells(level: Reproducibility, plain: tuple[float, float]) -> str:
    """Return what a level says, and the difference to fp32, as cells."""
    amounts = [(level.gap, level.flips), plain]
    texts = ["-" if worst is None else f"{worst:.1e}, {share or 0:.1e}" for worst, share in amounts]
    return " | ".join([yes(level.repeatable), yes(level.independent), *texts])


def yes(holds: bool) -> str:
    """Return a word for it."""
    return "yes" if holds else "**no**"


def hardware(device: str) -> str:
    """Return what was measured on, in words."""
    facts = device_versions(device)
    on = f"{facts['device']}, CUDA {facts['cuda']}, cuDNN {facts['cudnn']}" if facts else cpu()
    return f"{datetime.date.today()}, {on}, torch {torch.__version__}, {torch.get_num_threads()} threads on the CPU"


def cpu() -> str:
    """Return the processor's name."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text(encoding="utf-8").splitlines() if known.exists() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{(named or [platform.processor()])[0]} ({torch.backends.cpu.get_cpu_capability()})"


def main() -> None:
    """Read the command line, print the table, and write it where asked."""
    words = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    words.add_argument("--device", default="auto")
    words.add_argument("--batch", type=int, help="8 on a GPU, 1 on a CPU")
    words.add_argument("--tile", type=int, default=512, help="side of the tiles of buildings")
    words.add_argument("--rounds", type=int, default=5, help="pairs that speed is measured with")
    words.add_argument("--models", nargs="+", default=["buildings", "resnet34"], choices=["buildings", "resnet34"])
    words.add_argument("--output", help="Markdown file to write as well")
    asked = words.parse_args()
    device = resolve_device(asked.device)
    lines = [
        f"{hardware(device)}:",
        "",
        "| model | arithmetic | speed | again | beside others | larger pass | fp32 | region is crop |",
        "|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for name, model, tile in models(asked.models, asked.tile):
        compute = Compute(device, "fp32", asked.batch or usual_batch(device), 0)
        for line in row(name, model, tile, compute, asked.rounds):
            lines.append(line)
            print(line, flush=True)
    if asked.output:
        Path(asked.output).write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
