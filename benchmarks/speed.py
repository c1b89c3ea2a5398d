"""Speed beside other ways to segment a large image: one run, the ways in turn, medians, as a table and as JSON.

    python benchmarks/speed.py [--side 2048] [--repeat 3] [--network unet --network conv] [--json bench.json]

The ways are: one pass over the whole image in torch; a loop written by hand over tiles of 512 px that keep 384 px;
MONAI's sliding window with Gaussian weights and its overlap of 25 %; Dask's map_overlap with the reach of the network;
tilepipe with torch and with each other runtime that is installed. Images and weights are random, and the labels vary.
tilepipe reads an array and writes a COG; the others read and give an array, so they have less to do. The first run of
each way is not counted: caches are filled then. Flips are labels that differ from the whole image in torch.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tilepipe as tp
from tilepipe.inference.profile.speed import processor
from tilepipe.inference.runtimes.base import missing
from tilepipe.models.nets import zoo
from tilepipe.testing import noise

TILE, STEP = 512, 384
CLASSES = 4
Labels = np.ndarray
Way = Callable[[], Labels]


def network_of(name: str) -> tuple[tp.Model, int]:
    """Return a model with random weights, and the pixels that it sees beyond each side."""
    torch.manual_seed(0)
    if name == "conv":
        net: torch.nn.Module = torch.nn.Conv2d(3, CLASSES, 3, padding=1)
        reach = 1
    else:
        net, reach = zoo.build({"name": "unet", "width": 16, "depth": 4}, 3, CLASSES), 96
        for layer in net.modules():
            if isinstance(layer, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(layer.weight)
    names = [f"class {k}" for k in range(CLASSES)]
    return tp.Model.from_torch(net, tp.ModelCard(bands=3, classes=names, mean=[127.0] * 3, std=[60.0] * 3)), reach


def ways_of(model: tp.Model, reach: int, pixels: np.ndarray, folder: Path) -> dict[str, Way]:
    """Return what computes the labels of an image (bands, height, width), by name."""
    net = model.module.eval()

    def logits(part: np.ndarray) -> torch.Tensor:
        with torch.inference_mode():
            x = model.normalise(torch.from_numpy(np.ascontiguousarray(part))[None])
            return net(x.contiguous(memory_format=torch.channels_last))

    def whole() -> Labels:
        return logits(pixels).max(1).indices[0].numpy().astype(np.uint8)

    def loop() -> Labels:
        _, height, width = pixels.shape
        found, edge = np.zeros((height, width), np.uint8), (TILE - STEP) // 2
        for y in range(0, height, STEP):
            for x in range(0, width, STEP):
                top, left = max(0, min(y - edge, height - TILE)), max(0, min(x - edge, width - TILE))
                labels = logits(pixels[:, top : top + TILE, left : left + TILE]).max(1).indices[0].numpy()
                part = found[y : y + STEP, x : x + STEP]
                part[:] = labels[y - top : y - top + part.shape[0], x - left : x - left + part.shape[1]]
        return found

    def overlapped() -> Labels:
        import dask.array as da

        depth = {0: 0, 1: -(-reach // 16) * 16, 2: -(-reach // 16) * 16}
        image = da.from_array(pixels, chunks=(3, 1024, 1024))

        def block(part: np.ndarray) -> Labels:
            return logits(part).max(1).indices.numpy().astype(np.uint8)

        made = image.map_overlap(
            block, depth=depth, boundary="reflect", trim=False, dtype=np.uint8, chunks=(1, *part_of(image))
        )
        trimmed = da.overlap.trim_internal(made, {1: depth[1], 2: depth[2]}, boundary="reflect")
        return np.asarray(trimmed.compute(scheduler="threads", num_workers=2))[0]

    def part_of(image: Any) -> tuple[Any, Any]:
        more = 2 * (-(-reach // 16) * 16)
        return tuple(tuple(size + more for size in axis) for axis in image.chunks[1:])  # type: ignore[return-value]

    def ours(runtime: str) -> Way:
        output = folder / f"{runtime}.tif"

        def run() -> Labels:
            result = tp.segment(pixels, model, output, runtime=runtime, device="cpu", overwrite=True, record=False)
            return np.asarray(result.labels)

        return run

    ways: dict[str, Way] = {"whole image, torch": whole, "loop 512/384, torch": loop, "map_overlap, torch": overlapped}
    if monai := sliding_window(logits_of=net, model=model, pixels=pixels):
        ways["MONAI, Gaussian 25 %"] = monai
    names = ["torch", *(name for name in ("onnxruntime", "openvino") if not missing(name))]
    return {**ways, **{f"tilepipe, {name}": ours(name) for name in names}}


def sliding_window(logits_of: torch.nn.Module, model: tp.Model, pixels: np.ndarray) -> Way | None:
    """Return MONAI's sliding window; None if MONAI is not installed."""
    try:
        from monai.inferers import sliding_window_inference
    except ImportError:
        return None

    def run() -> Labels:
        with torch.inference_mode():
            x = model.normalise(torch.from_numpy(pixels)[None])
            found = sliding_window_inference(x, (TILE, TILE), 1, logits_of, overlap=0.25, mode="gaussian")
        return found.max(1).indices[0].numpy().astype(np.uint8)

    return run


def measured(ways: dict[str, Way], repeat: int, area: int) -> list[dict[str, Any]]:
    """Run all ways in turn, and return a row for each with medians."""
    truth = next(iter(ways.values()))()
    flips = {name: float((way() != truth).mean()) for name, way in ways.items()}  # this run is not counted
    wall: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeat):
        for name, way in ways.items():
            began, used = time.perf_counter(), time.process_time()
            way()
            wall[name].append(time.perf_counter() - began)
            cpu[name].append(time.process_time() - used)
    shares = np.bincount(truth.ravel(), minlength=CLASSES) / truth.size
    assert shares.max() < 0.9, "labels must vary"
    return [
        {
            "way": name,
            "megapixels per second": round(area / 1e6 / statistics.median(wall[name]), 3),
            "processor seconds per megapixel": round(statistics.median(cpu[name]) / area * 1e6, 3),
            "flips": flips[name],
        }
        for name in ways
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, action="append", help="side of the image (pixels); 2048")
    parser.add_argument("--network", choices=("unet", "conv"), action="append", help="both by default")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path, help="file for the results")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    results = []
    for side in asked.side or [2048]:
        pixels = noise(side, side).read(tp.Box(0, 0, side, side))
        for name in asked.network or ["conv", "unet"]:
            model, reach = network_of(name)
            with tempfile.TemporaryDirectory() as folder:
                rows = measured(ways_of(model, reach, pixels, Path(folder)), asked.repeat, side * side)
            print(f"\n{name}, {side} x {side} px\n")
            print("| way | Mpx/s | processor s/Mpx | flips |\n|---|---|---|---|")
            for row in rows:
                speed, cost = row["megapixels per second"], row["processor seconds per megapixel"]
                print(f"| {row['way']} | {speed:.2f} | {cost:.2f} | {row['flips']:.1e} |", flush=True)
            results.append({"network": name, "side": side, "rows": rows})
    if asked.json:
        packages = ("tilepipe", "torch", "dask", "onnxruntime", "openvino", "monai")
        found = {package: version(package) for package in packages if find_spec(package)}
        about = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "processor": processor(), "versions": found}
        about |= {"system": platform.platform(), "threads": torch.get_num_threads(), "repeat": asked.repeat}
        asked.json.write_text(json.dumps({**about, "results": results}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
