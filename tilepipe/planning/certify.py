"""This module makes the certificate of a run from its plan, and keeps it as `certificate.json`."""

from __future__ import annotations

import json
import platform
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from tilepipe.box import Sides
from tilepipe.errors import StorageError, TilepipeError
from tilepipe.inference.device import resolve_device
from tilepipe.inference.profile.reproducibility import Reproducibility
from tilepipe.models.model import Model
from tilepipe.planning.certificate import Certificate, Mode
from tilepipe.planning.plan import Plan
from tilepipe.storage import read_json, write_json

CERTIFICATE = "certificate.json"


def versions_of(plan: Plan, model: Model) -> dict[str, str]:
    """Return what may change a label besides the plan: packages, the device's software, the weights' sha256."""

    # torch is opened here alone: reading a certificate does without.
    from tilepipe.inference.predictor import device_versions

    packages = ("tilepipe", "torch", "zarr", "dask", "rasterio", "numpy")
    found = {"python": platform.python_version(), **{name: version(name) for name in packages}}
    name, _, runtime = plan.compute.runtime.partition(" ")
    found |= {name: runtime} if runtime else {}
    return {**found, **device_versions(plan.compute.device), "weights": model.sha256()}


def certificate_of(plan: Plan, model: Model, level: Reproducibility | None = None) -> Certificate:
    """Return the certificate of this plan before anything is checked, on a device of this reproducibility level."""
    cut = plan.tiling
    whole = plan.grid.y.count == plan.grid.x.count == 1
    return Certificate(
        mode=_mode(plan),
        stride=cut.stride,
        # One tile has no neighbour, so no pixel of the tile is context.
        halo=Sides(*4 * (0 if whole else cut.overlap // 2,)),
        tile=cut.tile,
        reach=plan.reach.sides,
        tolerance=plan.reach.tolerance,
        device=plan.compute.device,
        precision=plan.compute.precision,
        versions=versions_of(plan, model),
        known=plan.reach.known,
        whole=whole,
        work=round(plan.work, 4),
        half=round(plan.baseline_work, 4),
        whole_work=round(plan.whole.work, 4),
        level=level,
        statistics=plan.statistics.kind if plan.statistics else "",
        bands=cut.bands.height if cut.bands else 0,
        agreement=plan.agreement,
    )


def _mode(plan: Plan) -> Mode:
    # Full context comes first: a tile that covers the image is exact with any window and any reach.
    if plan.full_context:
        return "FIELD" if plan.statistics else "EXACT"
    if plan.reach.tolerance:
        return "TOLERANCE"
    return "UNCERTIFIED" if plan.tiling.window == "crop" else "BLEND"


def write_certificate(certificate: Certificate, directory: Path) -> None:
    """Write `certificate.json` into a work directory. Raises `StorageError`."""
    write_json(directory / CERTIFICATE, json.loads(certificate.to_json()))


def read_certificate(directory: Path) -> Certificate:
    """Read `certificate.json` of a work directory. Raises `StorageError`."""
    path = directory / CERTIFICATE
    return Certificate.from_json(json.dumps(read_json(path)), str(path))


def certificate_in(plan: Plan, model: Model, directory: Path) -> Certificate:
    """Return the certificate of a finished run, with the results that `tilepipe verify` has added since."""
    try:
        return read_certificate(directory)
    except StorageError:  # the work directory was removed
        return certificate_of(plan, model)


def reproducibility_of(plan: Plan, model: Model, *, measure: bool | None = None) -> Reproducibility | None:
    """Return the level of a plan's device, precision, tile and batch; None if it is unknown.

    The level is measured unless a measurement was kept before. By default it is not measured for fp32 on a CPU, because
    that would take more time than a small image. A device that is missing, or too small for the measurement, has no
    level.
    """
    from tilepipe.inference.profile.measure_reproducibility import Setting, known_reproducibility

    # A level is kept under all fields of `compute`, and the number of processes does not change what a device rounds.
    cut, compute = plan.tiling, replace(plan.compute, workers=0)
    setting = Setting(plan.grid.tile_shape, cut.stride, cut.halo, compute, plan.dtype, plan.statistics)
    if measure is None:
        measure = (compute.device, compute.precision) != ("cpu", "fp32")
    with suppress(TilepipeError):
        resolve_device(compute.device)
        return known_reproducibility(model, setting, measure=measure)
    return None
