"""This module says what tilepipe finds on this machine: versions, devices, runtimes, codecs, limits and speed."""

from __future__ import annotations

import os
import platform
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter

import numpy as np

from tilepipe.cache import cache_directory
from tilepipe.errors import TilepipeError
from tilepipe.inference.device import Compute, resolve_device
from tilepipe.inference.profile.speed import processor
from tilepipe.inference.runtimes.base import PACKAGES, missing, stated
from tilepipe.planning.memory import machine_memory
from tilepipe.sources.geo_codecs import gdal_version, working_compressions
from tilepipe.storage import free_space
from tilepipe.text import JSON

LIBRARIES = ("tilepipe", "torch", "numpy", "dask", "distributed", "zarr", "rasterio", "tifffile", "openslide-python")
EXTRAS = ("onnx", "onnxruntime", "openvino", "pyogrio", "pyarrow", "shapely", "pydicom", "highdicom", "h5py")
MODEL, TILE, TURNS = "buildings", 512, 3
"""Bundled model whose speed is measured, side of its tile (pixels), and how often it is called."""
SLOW = "compile"
"""Runtime that is not timed: compiling takes a minute."""


def machine(folder: Path, *, speed: bool = True) -> JSON:
    """Return what is found on this machine as JSON types; bytes, seconds and million pixels per second.

    `folder` is where outputs would go. With `speed`, the bundled model is run for some seconds in each runtime.
    """
    memory, cache = machine_memory(), cache_directory()
    return {
        "versions": {"python": platform.python_version(), **_versions(LIBRARIES), "gdal": gdal_version()},
        "extras": _versions(EXTRAS),
        "processor": {"name": processor()[0], "processors": os.cpu_count(), "usable": len(_usable())},
        "device": resolve_device("auto"),
        "runtimes": {name: missing(name) or stated(name) for name in PACKAGES},
        "codecs": {"tiff": working_compressions()},
        "memory": {"free_bytes": memory[0], "limit_bytes": memory[1]} if memory else None,
        "disk": {"folder": str(folder.absolute()), "free_bytes": free_space(folder.absolute())},
        "cache": str(cache) if cache else None,
        "speed": _speed() if speed else None,
    }


def _usable() -> set[int]:
    """Return the processors that this process may use, which a job or a container may limit."""
    return set(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def _versions(names: tuple[str, ...]) -> dict[str, str | None]:
    """Return the version of each package; None if it is not installed."""
    found: dict[str, str | None] = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def _speed() -> JSON:
    """Return the speed of the bundled model on the CPU by runtime, or the reason why it cannot be computed there."""
    from tilepipe.inference.predictor import Predictor, threads
    from tilepipe.models.formats.directory import load_model

    model, found = load_model(MODEL), dict[str, float | str]()
    tile = np.random.default_rng(0).integers(0, 256, (1, model.card.bands, TILE, TILE), np.uint8)
    for name in PACKAGES:
        if name == SLOW or missing(name):
            continue
        try:
            predictor = Predictor(model, (TILE, TILE), replace(Compute(), runtime=stated(name)))
            predictor.labels(tile)  # the first call of a network is slow
            found[name] = round(TILE**2 / 1e6 / min(_timed(predictor, tile) for _ in range(TURNS)), 3)
        except TilepipeError as error:
            found[name] = str(error)
    return {"model": MODEL, "tile": TILE, "threads": threads(), "megapixels_per_second": found}


def _timed(predictor: object, tile: object) -> float:
    began = perf_counter()
    predictor.labels(tile)  # type: ignore[attr-defined]
    return perf_counter() - began
