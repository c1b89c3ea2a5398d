"""This module is the comparison, to be read from top to bottom: missing runs are trained, measured and recorded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tilepipe.errors import UsageError
from tilepipe.evaluation.metrics.confusion import Confusion
from tilepipe.events import Event, Listener, silent
from tilepipe.models.model import Model
from tilepipe.models.nets.zoo import build
from tilepipe.text import JSON
from tilepipe.training.ablation.gallery import crop_of, save
from tilepipe.training.ablation.results import Results, machine
from tilepipe.training.ablation.scores import agreement, answer, figures_of_model, speeds, truth_lines, unevenness
from tilepipe.training.ablation.study_config import CompareConfig, Run
from tilepipe.training.ablation.table import write_summary
from tilepipe.training.dataset import Dataset
from tilepipe.training.loop import halo, start, train
from tilepipe.training.scenes import Scene
from tilepipe.training.state import snapshot
from tilepipe.training.threshold_baseline import best_threshold
from tilepipe.training.validation import compared, truth


def compare(path: str | Path, out: str | Path | None = None, listener: Listener = silent) -> Path:
    """Do the missing runs and return the path of summary.md in `out`, by default the file's name without its suffix.

    Raises `UsageError` if the configuration is wrong, or if the folder holds results of another configuration.
    """
    config = CompareConfig.load(path)
    config.check()
    results = Results(Path(out) if out is not None else Path(path).with_suffix(""))
    results.check({(run.set, run.mechanism, run.seed): config.fingerprint(run) for run in config.runs})
    datasets = {run.set: Dataset(config.training(run)) for run in config.runs}
    missing = {run.set for run in config.runs if results.run((run.set, run.mechanism, run.seed)) is None}
    for name, dataset in datasets.items():
        for said in dataset.check() if name in missing else ():  # finished runs need no data
            listener(Event("labels", message=f"{name}: {said}"))
        if not results.reference(name):
            results.add({"set": name, "reference": baselines(dataset)})
            pictured(dataset, results.folder, name)
    halos: dict[str, int] = {}
    for number, run in enumerate(config.runs):
        listener(Event("compare", number, len(config.runs), str(run)))
        if results.run((run.set, run.mechanism, run.seed)) is None:
            results.add(trained(config, run, datasets[run.set], halos, results.folder))
    # Speeds are compared with each other, so all mechanisms are timed again if one is new.
    if set(results.timing()["speeds"]) != set(config.mechanisms):
        results.add({"set": "", "speeds": timed(config, datasets), "machine": machine()})
    listener(Event("compare", len(config.runs), len(config.runs), "summary"))
    return write_summary(config, results)


def trained(config: CompareConfig, run: Run, dataset: Dataset, halos: dict[str, int], folder: Path) -> JSON:
    """Train and measure one run and return its line; `halos` keeps the halo found for each network."""
    training = config.training(run)
    dataset = dataset.under(training)
    state = start(dataset.scenes, training)
    overlap, first = unevenness(state.module)
    if run.mechanism not in halos:
        # The context follows from the layers, so it is measured once for all sets and seeds.
        halos[run.mechanism] = context(state.module, dataset.bands)
    checkpoints: JSON = {}

    def show(event: Event) -> None:
        if state.step not in (*config.early, training.steps):
            return
        model = snapshot(state.average, dataset, halos[run.mechanism])
        found = figures_of_model(model, dataset.scored, config.width)
        checkpoints[str(state.step)] = {**found, "imbalance": unevenness(model.module)[1]}
        if (state.step, run.seed) == (min(config.early, default=0), config.seeds[0]):
            save(crop(model, dataset.scored[0]), folder, run.set, run.mechanism)

    begin = perf_counter()
    # A run that is interrupted is trained anew, so its checkpoints are of no use later.
    with TemporaryDirectory(dir=folder) as checkpoint:
        train(state, dataset, Path(checkpoint), show)
    return {
        "set": run.set,
        "mechanism": run.mechanism,
        "seed": run.seed,
        "config": config.fingerprint(run),
        "parameters": sum(p.numel() for p in state.module.parameters()),
        "halo": halos[run.mechanism],
        "overlap": overlap,
        "imbalance": first,
        "checkpoints": checkpoints,
        "seconds": round(perf_counter() - begin, 1),
    }


def context(module: nn.Module, bands: int) -> int:
    """Return the context that the network needs on every side (pixels). Raises `UsageError` if no context is enough."""
    found = halo(module, bands)
    if found is None:  # a network of 1 x 1 convolutions needs no context, which is 0
        raise UsageError("a network that mixes the whole tile cannot be compared by tiles; use another normalisation")
    return found


def crop(model: Model, scene: Scene) -> NDArray[np.float32]:
    """Return the foreground's probability, (rows, columns), on the crop that the pictures show."""
    found = answer(model, scene)
    foreground: NDArray[np.float32] = 1 - found.probabilities[0][crop_of(scene).slices_in(found.area)]
    return foreground


def pictured(dataset: Dataset, folder: Path, name: str) -> None:
    """Save the image and the truth of the crop that the pictures show."""
    scene = dataset.scored[0]
    box = crop_of(scene)
    label = scene.label(box.shift(-scene.region.y0, -scene.region.x0))
    if scene.source.dtype == np.uint8 and scene.source.shape[0] == 3:
        save(scene.source.read(box), folder, name, "image")
    save((label > 0).astype(np.float32), folder, name, "truth")


def baselines(dataset: Dataset) -> JSON:
    """Return the figures that need no network: the commonest class, the best threshold, the spectrum of the truth."""
    confusion = Confusion.zero(len(dataset.config.classes))
    for scene in dataset.scored:
        labels = truth(scene, scene.full)
        confusion += compared(np.zeros(labels.shape, np.uint8), labels, len(dataset.config.classes))
    found = {"the commonest class": agreement(confusion.majority())}
    if len(dataset.config.classes) == 2:
        best, rule = best_threshold(dataset.scenes, dataset.scored)
        found[f"the best threshold, {rule}"] = agreement(best)
    stride = build(dataset.config.arch, dataset.bands, len(dataset.config.classes)).stride
    return {**found, "truth": truth_lines(dataset.scored, len(dataset.config.classes), stride)}


def timed(config: CompareConfig, datasets: Mapping[str, Dataset]) -> dict[str, float]:
    """Return the processor seconds per million pixels of each mechanism's network, for the first set's images."""
    name, dataset = next(iter(datasets.items()))
    classes = len(dataset.config.classes)
    with torch.random.fork_rng(devices=[]):
        networks = {
            mechanism: build(config.training(Run(name, mechanism, config.seeds[0])).arch, dataset.bands, classes)
            for mechanism in config.mechanisms
        }
    return speeds(networks, dataset.bands)
