"""The usual tile settings of other tools against the automatic ones: cost, and labels that depend on the cut.

    python benchmarks/seams.py pipelines/sample/banepa_east_rgb.tif buildings --tile 256

prints a Markdown table. The truth is one forward pass over the whole image, so the image must fit memory.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import tilepipe as tp


def settings(tile: int, stride: int) -> dict[str, dict[str, Any]]:
    """Return tile settings by name."""

    def share(percent: int) -> int:
        return tile * percent // 100 // (2 * stride) * 2 * stride

    return {
        "auto": {},
        "no overlap": {"overlap": 0, "window_shape": "crop"},
        "25 % Gaussian": {"overlap": share(25), "window_shape": "gaussian"},
        "50 % Gaussian": {"overlap": share(50), "window_shape": "gaussian"},
        "50 % Hann": {"overlap": share(50), "window_shape": "hann"},
    }


def main() -> None:
    """Read the command line and print the table."""
    words = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    words.add_argument("image")
    words.add_argument("model")
    words.add_argument("--tile", type=int, default=256)
    words.add_argument("--windows", type=int, default=12)
    asked = words.parse_args()
    model = tp.load_model(asked.model)
    side = max(tp.plan(asked.image, model, resolution="model").predicted)
    whole = tp.predict(asked.image, model, resolution="model", tile=-(-side // model.card.stride) * model.card.stride)
    print("| setting | mode | work | labels that differ from the whole image | flips on a moved grid |")
    print("|---|---|---|---|---|")
    for name, chosen in settings(asked.tile, model.card.stride).items():
        with tempfile.TemporaryDirectory() as folder:
            run: dict[str, Any] = {"resolution": "model", "tile": asked.tile, **chosen}
            result = tp.segment(asked.image, model, Path(folder) / "labels.tif", **run)
            found = tp.verify(result, windows=asked.windows)
            flips = float((np.asarray(result.labels) != whole).mean())
            moved = found.shifted.flips.share if found.shifted else float("nan")
            mode, work = result.certificate.mode, result.plan.work
        print(f"| {name} | {mode} | {work:.2f} | {flips:.3%} | {moved:.3%} |", flush=True)


if __name__ == "__main__":
    main()
