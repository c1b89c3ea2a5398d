"""What calls from Python cost: a small image with a warm model, a thousand images, a training that predicts, a start.

Prints the table of docs/python.md. The network alone and `tp.predict` run in turn, with one thread, and medians are
shown; other times are those of the processor, so that other programs count less.
"""

from __future__ import annotations

import argparse
import gc
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import tilepipe as tp

SIDE = 256


def in_turn(model: tp.Model, image: np.ndarray, times: int) -> tuple[float, float]:
    """Return the medians of a call of the network alone and of `tp.predict` (milliseconds), which run in turn."""
    x = model.normalise(torch.from_numpy(image[None])).contiguous(memory_format=torch.channels_last)
    tp.predict(image, model, tile=image.shape[-1])
    alone, whole = [], []
    for _ in range(times):
        began = time.perf_counter()
        with torch.inference_mode():
            model.module(x)
        between = time.perf_counter()
        tp.predict(image, model, tile=image.shape[-1])
        alone.append(between - began)
        whole.append(time.perf_counter() - between)
    return 1000 * float(np.median(alone)), 1000 * float(np.median(whole))


def started(code: str) -> float:
    """Return the least processor time that a new process takes for `code` (seconds), of three."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = []
    for _ in range(3):
        subprocess.run([sys.executable, "-c", code], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        before = after
    return min(found)


def small_unet(seed: int) -> torch.nn.Module:
    """Return a U-Net with drawn weights, as a fresh one of a training."""
    from tilepipe.models.nets.zoo import build

    torch.manual_seed(seed)
    return build({"name": "unet", "width": 8, "depth": 3}, 3, 2)


def rows(times: int, images: int) -> list[tuple[str, str]]:
    """Return the rows of the table."""
    card = {"bands": 3, "classes": ["a", "b"], "mean": [127.0] * 3, "std": [60.0] * 3}
    random = np.random.default_rng(0)
    image = random.integers(0, 255, (3, SIDE, SIDE), dtype=np.uint8)
    began = time.process_time()
    model = tp.Model.from_torch(small_unet(0), card)
    tp.predict(image, model)
    first = time.process_time() - began
    forward, whole = in_turn(model, image, times)
    large = random.integers(0, 255, (3, 4 * SIDE, 4 * SIDE), dtype=np.uint8)
    large_forward, large_whole = in_turn(model, large, max(3, times // 16))
    began = time.process_time()
    for epoch in range(1, 4):
        tp.predict(image, tp.Model.from_torch(small_unet(epoch), card))
    epochs = (time.process_time() - began) / 3
    gc.collect()
    peaks = []
    for k in range(images):
        tp.predict(np.roll(image, k, 2), model)
        if k in (images // 10, images - 1):
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    size = f"{SIDE} x {SIDE} px"
    return [
        (f"the network alone on {size}", f"{forward:.1f} ms"),
        (f"`tp.predict` of {size}, the same model again", f"{whole:.1f} ms"),
        ("the difference", f"{whole - forward:.1f} ms"),
        (
            f"the same for {4 * SIDE} x {4 * SIDE} px in one tile",
            f"{large_whole / large_forward:.2f} times the network",
        ),
        (f"`tp.predict` of {size} with the first model of an architecture, measured", f"{1000 * first:.0f} ms"),
        ("the same with other weights, as after an epoch", f"{1000 * epochs:.0f} ms"),
        (
            f"largest memory after {images // 10 + 1} and after {images} images",
            " and ".join(f"{p:.0f} MiB" for p in peaks),
        ),
        ("a process that imports torch", f"{started('import torch'):.2f} s"),
        ("a process that imports tilepipe", f"{started('import tilepipe'):.2f} s"),
        (
            "a process that imports torch, and all that `tp.predict` needs",
            f"{started('import tilepipe as t; t.predict'):.2f} s",
        ),
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=200, help="pairs of calls of which the medians count")
    parser.add_argument("--images", type=int, default=1000, help="images of which the memory is taken")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        import os

        os.environ["TILEPIPE_CACHE"] = str(Path(folder))
        print("| what | time |\n|---|---|")
        for what, figure in rows(given.times, given.images):
            print(f"| {what} | {figure} |")


if __name__ == "__main__":
    main()
