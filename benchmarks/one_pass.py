"""One pass in bands of rows: draws how rows travel through a network, and measures what bands cost.

    python benchmarks/one_pass.py --picture docs/images/one_pass.png
    python benchmarks/one_pass.py --time [--width 2048 --width 8192]

The times are those of the network alone on random pixels: forward passes over tiles of 512 px without overlap, which
give wrong labels at every border, and bands of a column, which give those of one pass. Both run in turn, channels last.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from tilepipe.inference.banded.network import BandedNetwork, banded
from tilepipe.inference.banded.rules import Rule
from tilepipe.models.nets import zoo
from tilepipe.planning.band_tiling import bands_of

NETWORKS = {
    "U-Net 16": ({"name": "unet", "width": 16, "depth": 4}, 16, 96),
    "U-Net ResNet-34": ({"name": "unet", "width": 16, "depth": 5, "encoder": "resnet34"}, 32, 544),
}
"""Architecture, stride and halo (pixels) by name."""
TILE = 512


class Noted(Rule):
    """A rule that notes how many rows it has given, and how many it gave last."""

    def __init__(self, rule: Rule) -> None:
        self.rule, self.given, self.fresh = rule, 0, 0

    def push(self, arrived: list[Tensor | None], last: bool) -> Tensor | None:
        """Return what the rule gives."""
        made = self.rule.push(arrived, last)
        self.fresh += 0 if made is None else made.shape[2]
        return made

    @property
    def kept(self) -> int:
        """Rows that wait to be used."""
        waiting = getattr(self.rule, "waiting", [])
        return max((rows.end - rows.first for rows in (waiting if isinstance(waiting, list) else [waiting])), default=0)


def picture(path: Path) -> None:
    """Draw which rows each layer of a small U-Net has given, and which it keeps, after three bands."""
    from matplotlib import pyplot as plt

    network = zoo.build({"name": "unet", "width": 4, "depth": 2}, 3, 2).eval()
    graph = banded(network, 3, 32)
    noted: dict[str, Noted] = {}

    def watched(name: str, make: object) -> object:
        def begin() -> Rule:
            noted[name] = Noted(make())  # type: ignore[operator]
            return noted[name]

        return begin

    steps = tuple(replace(step, make=watched(step.name, step.make)) for step in graph.steps)  # type: ignore[arg-type]
    going = BandedNetwork(steps, graph.source, graph.result).begin()
    shown = [step for step in steps if any(word in step.name for word in ("conv", "pool", "upsample", "cat"))]
    height, band = 96, 16
    figure, panels = plt.subplots(1, 3, figsize=(13, 4.6), sharey=True, layout="constrained")
    for k in range(height // band):
        for rule in noted.values():
            rule.given, rule.fresh = rule.given + rule.fresh, 0
        with torch.inference_mode():
            going.feed(torch.rand(1, 3, band, 32), last=(k + 1) * band == height)
        if k not in (1, 3, 5):
            continue
        panel = panels[(k - 1) // 2]
        panel.set_title("after the last band" if k == 5 else f"after band {k + 1}")
        panel.bar(0, k * band, color="#d9d9d9", width=0.9)
        panel.bar(0, band, bottom=k * band, color="#4477aa", width=0.9)
        for place, step in enumerate(shown, start=1):
            rule, rows = noted[step.name], 1 / step.share
            panel.bar(place, rule.given * rows, color="#d9d9d9", width=0.9)
            panel.bar(place, rule.fresh * rows, bottom=rule.given * rows, color="#4477aa", width=0.9)
            end = (rule.given + rule.fresh) * rows
            panel.bar(place, rule.kept * rows if k < 5 else 0, bottom=end, color="#ee9944", width=0.9)
        panel.set_xticks(range(len(shown) + 1), ["image", *(step.name for step in shown)], rotation=90, fontsize=7)
        panel.set_ylim(height, 0)
    panels[0].set_ylabel("rows of the image")
    colours = {
        "given before": "#d9d9d9",
        "given in this band": "#4477aa",
        "rows above are kept until more come": "#ee9944",
    }
    patches = [plt.Rectangle((0, 0), 1, 1, color=colour, label=text) for text, colour in colours.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=110)


def measured(name: str, width: int, repeats: int) -> tuple[float, float]:
    """Return the seconds per million pixels of tiles and of bands, medians of runs in turn."""
    arch, stride, halo = NETWORKS[name]
    torch.manual_seed(0)
    network = zoo.build(arch, 3, 4).eval()
    graph, bands = banded(network, 3, 64), bands_of(width, halo, stride)
    tile = torch.rand(1, 3, TILE, TILE).contiguous(memory_format=torch.channels_last)
    band = torch.rand(1, 3, bands.height, width).contiguous(memory_format=torch.channels_last)
    found: dict[str, list[float]] = {"tiles": [], "bands": []}
    going = graph.begin()
    with torch.inference_mode():
        for _ in range(-(-2 * bands.lead // bands.height)):  # until the deepest layers give rows
            going.feed(band)
        network(tile)
        for _ in range(repeats):
            for what, call, pixels in (
                ("tiles", lambda: network(tile), TILE**2),
                ("bands", lambda: going.feed(band), bands.height * width),
            ):
                count = max(2, 2_000_000 // pixels)
                began = time.perf_counter()
                for _ in range(count):
                    call()
                found[what].append((time.perf_counter() - began) / (count * pixels) * 1e6)
    tiles, banded_ = (statistics.median(found[what]) for what in ("tiles", "bands"))
    return tiles, banded_


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--width", type=int, action="append")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    if given.picture:
        picture(given.picture)
    if given.time:
        print("network          width  band  tiles s/Mpx  bands s/Mpx  ratio")
        for name, (_, stride, halo) in NETWORKS.items():
            for width in given.width or (2048, 4096, 8192):
                tiles, bands = measured(name, width, given.repeats)
                height = bands_of(width, halo, stride).height
                print(f"{name:16} {width:5} {height:5} {tiles:12.2f} {bands:12.2f} {bands / tiles:6.2f}", flush=True)


if __name__ == "__main__":
    main()
