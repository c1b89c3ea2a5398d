"""The Python face: segment a file, predict a region, plan, open labels. Thin."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Unpack

from numpy.typing import NDArray

from tilepipe.box import Box
from tilepipe.errors import UsageError, public
from tilepipe.events import Event, Listener, silent
from tilepipe.execution import run
from tilepipe.execution.job import Image, Job, job_of, kept_job, make_job, opened
from tilepipe.execution.keys import Keys, kept_plan
from tilepipe.execution.publish import Outputs, finish_others
from tilepipe.execution.region_labels import region_labels
from tilepipe.execution.store import Store
from tilepipe.models.identity import identities_held
from tilepipe.models.model import Model
from tilepipe.paths import files_in, refuse_inputs
from tilepipe.planning.certificate import Certificate
from tilepipe.planning.check_settings import checked
from tilepipe.planning.memory import format_bytes
from tilepipe.planning.plan import Plan
from tilepipe.planning.settings import Choices, Settings
from tilepipe.products.formats import LABELS, LOSSLESS, output_paths, touched
from tilepipe.products.label_map import LabelMap
from tilepipe.products.labels import Labels, Layer, open_map
from tilepipe.sources.base import Source
from tilepipe.sources.geotiff import rows_forgotten
from tilepipe.sources.open import image_files
from tilepipe.sources.slide import SlideSource
from tilepipe.sources.wrapped import unwrapped
from tilepipe.tiling.uncertainty import layer_names

SAID = 1 << 30
"""Bytes of a dask array whose identity takes long enough to be said."""


@dataclass(frozen=True)
class Result:
    """What a run has made."""

    paths: tuple[Path, ...]
    """The products: labels first, then layers."""
    labels: Labels
    """The label map, lazy."""
    layers: dict[str, Layer]
    """The uncertainty layers asked for, lazy, by name."""
    plan: Plan
    """What was computed."""
    certificate: Certificate
    """What is known about seams; two plain sentences in `certificate.sentences`."""
    record: dict[str, Any] = field(repr=False)
    """What run.json says."""

    @property
    def failed(self) -> list[str]:
        """Tiles that could not be read or predicted, and why; their pixels are nodata."""
        return list(self.record["failed"])

    def to_xarray(self) -> Any:
        """Return the labels as an xarray.DataArray with coordinates and CRS."""
        return self.labels.to_xarray()


@public
@identities_held()
@rows_forgotten()
def segment(
    source: Image,
    model: str | Path | Model,
    output: str | Path | None = None,
    *,
    listener: Listener | None = None,
    **settings: Unpack[Settings],
) -> Result:
    """Segment an image, or the region asked for, into a label map on disk; runs, or resumes what was interrupted.

    Without `output` it lies beside the image as `<stem>.labels.tif` (slides: `.labels.ome.zarr` and `.labels.geojson`).
    `listener` is told what the run says; without one, warnings are Python's warnings. Raises `TilepipeError`; then an
    output that existed is as it was.
    """
    asked, heard = checked(settings), listener is not None
    listener = listener or silent
    model, full = opened(source, model, asked)
    for note in getattr(full, "notes", ()):
        listener(Event("plan", message=note))
    outputs = _outputs(full, model, output, asked)
    finish_others(outputs)
    size = getattr(full, "identity_bytes", 0)
    if size > SAID:
        listener(Event("plan", message=f"computing the {format_bytes(size)} of the dask array once, to know it again"))
    keys = Keys.of(full, model, asked)
    if keys.trouble:
        listener(Event("plan", message=f"{model.name} has no identity: {keys.trouble}; the run cannot be resumed"))
    request = run.Request(keys.request(asked), keys, outputs)
    kept = kept_plan(request.directory, request.key)
    job = kept_job(full, model, asked, kept) if kept else make_job(full, model, asked, listener=listener)
    for text in job.plan.fit if kept else ():
        listener(Event("plan", message=text))
    if not heard:
        _warn(job.plan, decorators=3)
    if job.plan.costly:
        listener(Event("plan", message=f"work: {job.plan.costly}"))
    if job.plan.reach.tolerance:
        listener(Event("plan", message=f"seams: {job.plan.seams}"))
    record = run.execute(job, full, request, listener, asked.get("scheduler"))
    maps, certificate = _maps(job, full, request), run.certificate(job, request.directory)
    layers = {name: Layer(maps[name]) for name in job.plan.layers}
    written = tuple(file.path for file in outputs.files)
    return Result(written, Labels(maps[LABELS]), layers, job.plan, certificate, record)


@public
@identities_held()
def dry_run(
    source: Image, model: str | Path | Model, output: str | Path | None = None, **settings: Unpack[Settings]
) -> Plan:
    """Return the plan of `segment` with the same arguments, whose outputs are checked first. Nothing is written."""
    asked = checked(settings)
    model, full = opened(source, model, asked)
    _outputs(full, model, output, asked)
    return make_job(full, model, asked).plan


@public
@identities_held()
def predict(
    source: Image,
    model: str | Path | Model,
    region: Box | tuple[int, int, int, int] | None = None,
    **choices: Unpack[Choices],
) -> NDArray[Any]:
    """Return the labels of a region, (height, width) uint8 or uint16, in memory: no store, no cluster.

    They equal the same crop of the full run with the same settings, bit for bit on the same device. Warns if the
    image's pixels are more than twice as large as those of the model, or if `bounds` reach beyond the image. Raises
    `InputError` if the image cannot be read or does not fit, `ModelError` if the model fails on a tile.
    """
    if choices.get("layers"):
        raise UsageError("predict returns labels alone; use segment, with the same region, for layers")
    settings: Settings = {**choices, "region": region} if region is not None else {**choices}  # type: ignore[typeddict-item]
    job, full = job_of(source, model, settings)
    _warn(job.plan, decorators=2)
    return region_labels(job, full)


def _warn(plan: Plan, *, decorators: int) -> None:
    """Say what is likely wrong as Python's warnings, at the line that called a public function."""
    for text in plan.fit:
        if text.startswith("warning: "):
            warnings.warn(text.removeprefix("warning: "), stacklevel=3 + decorators)


def _outputs(source: Source, model: Model, output: str | Path | None, asked: Settings) -> Outputs:
    """Return what a run writes. Raises `UsageError` where that cannot be written, or is read."""
    paths = _output_paths(source, output, asked.get("of"))
    outputs = Outputs(paths, bool(asked.get("overwrite")), layer_names(asked.get("layers", ())))
    refuse_inputs(touched(outputs.files), _read(source, model.name, asked))
    return outputs


def _output_paths(source: Source, output: str | Path | None, of: Sequence[str] | None) -> dict[str, Path]:
    products = list(of or ())
    if output is None:
        if source.name == "array":
            raise UsageError("an array has no place on disk; name the output")
        path = Path(source.name)
        stem = path.name.removesuffix(".zarr").removesuffix(".ome") if path.suffix == ".zarr" else path.stem
        output = path.with_name(f"{stem}.labels")
    if not products and not output_paths(Path(output), []):
        products = ["ome-zarr", "geojson"] if _is_slide(source) else ["cog"]
    return output_paths(Path(output), products)


def _read(source: Source, model: str, settings: Settings) -> list[Path]:
    """Return the files and folders that a run reads."""
    named = [Path(str(settings[name])) for name in ("mask", "region") if name in settings]
    return [*image_files(source), *files_in(model), *(path for path in named if path.is_file())]


def _is_slide(source: Source) -> bool:
    return isinstance(unwrapped(source), SlideSource)


def _maps(job: Job, full: Source, request: run.Request) -> dict[str, LabelMap]:
    """Return labels and layers by name: from the first product that holds them, else from the work directory."""
    found = {file.content: open_map(file.path) for file in reversed(request.outputs.files) if file.product in LOSSLESS}
    return found or run.maps_of(job, full, Store(request.directory))
