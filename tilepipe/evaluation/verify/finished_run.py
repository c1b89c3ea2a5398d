"""Finds the finished run of a path, and opens what is needed to compute parts of it again."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from tilepipe.errors import InputError, ModelError, StorageError, UsageError
from tilepipe.execution.job import Job, job_of
from tilepipe.execution.keys import read_plan
from tilepipe.execution.run_record import RunRecord, load_record
from tilepipe.execution.statistics.provider import StatisticsProvider
from tilepipe.execution.statistics.whole_image import Constant, whole_so_far
from tilepipe.execution.store import Store
from tilepipe.inference.device import resolve_device
from tilepipe.models.identity import identify
from tilepipe.models.model import Model
from tilepipe.models.unread import AnyModel, open_models
from tilepipe.paths import work_directory
from tilepipe.planning.certificate import Certificate
from tilepipe.planning.certify import certificate_of, read_certificate
from tilepipe.planning.plan import Plan
from tilepipe.planning.planner import Image
from tilepipe.planning.region import area_of
from tilepipe.planning.settings import Request
from tilepipe.products.formats import LOSSLESS, OF_PROBABILITIES, product_of
from tilepipe.products.label_map import LABELS, LabelMap
from tilepipe.products.labels import open_map
from tilepipe.products.probabilities import read_probabilities
from tilepipe.sources.bands import Picked, with_picked
from tilepipe.sources.content import identity_of
from tilepipe.sources.mosaic_files import is_pattern
from tilepipe.sources.open import open_source
from tilepipe.sources.world_grid import anchored
from tilepipe.text import JSON

Given = TypeVar("Given")


@dataclass(frozen=True)
class Run:
    """A finished run on disk."""

    directory: Path
    """Work directory of the run, which its run key names."""
    plan: Plan
    """Plan that the run carried out."""
    record: RunRecord
    """Contents of run.json."""

    @property
    def products(self) -> list[Path]:
        """Products that hold every label and are still there."""
        return self.files(LABELS)

    def stored(self) -> Store | None:
        """Return the arrays of the run if they are kept: if tiles failed, or no product holds every label."""
        return Store(self.directory) if (self.directory / "run.zarr" / "labels" / "zarr.json").exists() else None

    def labels(self) -> LabelMap:
        """Return the labels of the first product. Raises `InputError` if none is left."""
        return self.kept(LABELS)

    def kept(self, content: str) -> LabelMap:
        """Return the labels (`LABELS`), a layer or the probability of a class, from the first product.

        Raises `InputError` if none is left.
        """
        kind, _, plane = content.partition("/")
        files = self.files(kind)
        if not files:
            raise InputError(f"{self.directory}: no product of this run is left that holds all of its {kind}")
        return read_probabilities(files[0])[int(plane)] if plane else open_map(files[0])

    def files(self, content: str) -> list[Path]:
        """Return the products that hold all labels (`LABELS`), a layer or probabilities, and are still there."""
        folder = self.directory.parent.parent
        paths = [folder / name for name, what in self.record["contents"].items() if what == content]
        return [path for path in paths if path.exists() and product_of(path) in LOSSLESS | OF_PROBABILITIES]


def find_run(path: Path) -> Run | None:
    """Return the run that a path stands for: its work directory, or any of its products; None if it is neither.

    Raises `InputError` if the run has not finished.
    """
    # The path may be a product, the folder of one request, or the folder above that holds all requests.
    beside = work_directory(path)
    runs = [
        plan.parent for where in (path, beside) for name in ("plan.json", "*/plan.json") for plan in where.glob(name)
    ]
    runs = runs or [record.parent for record in path.parent.glob(".*.tilepipe/*/run.json") if _wrote(record, path.name)]
    if not runs:
        return None
    # Several requests may have a folder here; the one that was planned last is meant.
    directory = max(runs, key=lambda run: (run / "plan.json").stat().st_mtime_ns)
    try:
        return Run(directory.resolve(), read_plan(directory).plan, load_record(directory))
    except StorageError as error:
        raise InputError(
            f"{directory} holds no finished run: {error}. Give the command of the run again, it goes on"
        ) from None


def _wrote(record: Path, name: str) -> bool:
    """Return whether a product of this name is one of a finished run, by its run.json."""
    with suppress(StorageError):
        return name in load_record(record.parent)["contents"]
    return False


def _selected(run: Run, image: Image | None) -> JSON:
    """Return which image of a file the run was made from; empty if the image is no file."""
    return run.record.get("choice", {}) if image is None or isinstance(image, str | Path) else {}


def reopen(run: Run, image: Image | None, model: AnyModel | None, settings: JSON) -> Job:
    """Return the job of a run, with the image and the model that it was made from.

    `settings` may hold `device`, `mask` (the file of the run's polygons) and `trust_model`. Raises `UsageError` if
    image or model must be named, and `InputError` if image, model or polygons are not those of the run.
    """
    named_image: Image = _named(image, run.record["source"], "array", "image")
    opened = open_source(named_image, **_selected(run, image))
    full = with_picked(opened, Picked(run.plan.picked, run.plan.valid_band))
    if run.plan.shape != full.shape[1:] and full.georeference:  # the run was on a world grid, if it was of this image
        cut, block = run.plan.tiling, run.record.get("settings", {}).get("block", Request.block)
        full = anchored(full, cut.tile, cut.tile - cut.overlap, block)
    plan, recorded = run.plan, run.record["model"]
    if model is None:
        model = [
            _named(None, name, "python", "model") for name in ([recorded] if isinstance(recorded, str) else recorded)
        ]
    model = open_models(model, plan.tta, trust_model=settings.get("trust_model"))
    identity = identify(model, plan.compute.device, plan.compute.precision)
    if identity.trouble:
        raise ModelError(f"a run of {model.name} cannot be verified: {identity.trouble}")
    # The key holds the device of the run, so it is compared before another device is put in.
    if plan.key(identity_of(full), identity.key) != run.record["key"]:
        raise InputError(
            f"{full.name} or {model.name} is not what {run.directory} was made from; "
            "name the image and the model of the run as they were"
        )
    area = area_of(full, plan.mask, settings.get("mask"), _classes(run.record))
    if settings.get("device"):
        plan = replace(plan, compute=replace(plan.compute, device=resolve_device(settings["device"])))
    else:
        # This raises an error if the device of the run is not here.
        resolve_device(plan.compute.device)
    return job_of(plan, full, model, area)


def provider_of_run(run: Run) -> StatisticsProvider | None:
    """Return the statistics of the whole image that a run has kept; None if it has none, or not all of them.

    Raises `StorageError` if they are damaged.
    """
    statistics = run.plan.statistics
    if statistics is None or statistics.kind != "whole":
        return None
    known = whole_so_far(run.directory)
    return Constant(run.plan, known) if len(known) == sum(statistics.values) else None


def claim(run: Run, model: Model) -> Certificate:
    """Return the certificate that the run was made under, before anything was checked."""
    level = None
    with suppress(StorageError):  # the run's own file, unless it is lost
        level = read_certificate(run.directory).level
    return replace(certificate_of(run.plan, model, level), versions=run.record["versions"])


def _named(given: Given | None, recorded: str, nameless: str, what: str) -> Given | str:
    if given is None and recorded == nameless:
        raise UsageError(f"the {what} of this run was given from Python; name it: verify(run, {what}=...)")
    # A path was made absolute for the record, so a name that is none is that of a bundled model.
    gone = Path(recorded).is_absolute() and not (Path(recorded).exists() or is_pattern(recorded))
    if given is None and gone:
        raise InputError(f"{recorded}, the {what} of this run, is no longer there; name it with `{what}`")
    return recorded if given is None else given


def _classes(record: RunRecord) -> list[str]:
    """Return the classes of the polygons that a run computed inside; empty for all polygons."""
    found = record.get("settings", {}).get("classes", [])
    return [found] if isinstance(found, str) else list(found)
