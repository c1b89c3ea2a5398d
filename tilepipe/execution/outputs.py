"""Outputs: where the products of a run go, and what of a request decides that."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tilepipe.errors import UsageError
from tilepipe.execution.run_record import RunRecord
from tilepipe.paths import files_in, lock_of, refuse_inputs, work_directory
from tilepipe.planning.settings import Request
from tilepipe.products.formats import LOSSLESS, PRODUCTS, File, files_of, output_paths, touched
from tilepipe.products.vector_options import OBJECTS, PLAIN, POLYGONS, VectorOptions
from tilepipe.sources.base import Source
from tilepipe.sources.open import image_files
from tilepipe.sources.slide import SlideSource
from tilepipe.sources.wrapped import unwrapped
from tilepipe.text import setting


@dataclass(frozen=True)
class Outputs:
    """Where the products of a run go."""

    paths: dict[str, Path]
    """Final path by product, all in one folder."""
    overwrite: bool
    """Whether products that exist may be replaced."""
    layers: tuple[str, ...] = ()
    """Uncertainty layers that are written beside the labels."""
    options: VectorOptions = PLAIN
    """How polygons and objects are written."""

    def drawn_otherwise(self, record: RunRecord) -> bool:
        """Return whether polygons or objects are here, and run.json says that they were written with other options."""
        return bool((POLYGONS | OBJECTS) & self.paths.keys()) and self.options.to_dict() != record.get("polygons", {})

    @property
    def files(self) -> list[File]:
        """All that is written: labels first, then layers. Raises `UsageError`."""
        return files_of(self.paths, self.layers)

    @property
    def work(self) -> Path:
        """Work directory of this output; the same in whatever order products are named."""
        first = self.paths[next(name for name in PRODUCTS if name in self.paths)]
        return work_directory(first)

    @property
    def locks(self) -> list[Path]:
        """Lock files, one per output: two runs never write the same one."""
        return [lock_of(file.path) for file in self.files]


def outputs_of(image: Source, model: str, output: str | Path | None, request: Request) -> Outputs:
    """Return what a run writes. Raises `UsageError` if that cannot be written, or is read."""
    path, products = _beside(image) if output is None else Path(output), list(request.products)
    if not products and not output_paths(path, []):
        products = ["ome-zarr", "geojson"] if isinstance(unwrapped(image), SlideSource) else ["cog"]
    outputs = Outputs(output_paths(path, products), request.overwrite, request.layers, request.polygons)
    request.polygons.refuse_unused(outputs.paths)
    if not (request.record or LOSSLESS & outputs.paths.keys()):
        raise UsageError(
            f"{setting(record=False)} needs a product that holds every label, as nothing else keeps them then: add cog "
            "or ome-zarr to `of`"
        )
    named = [Path(name) for name in (request.mask, request.region) if isinstance(name, str) and Path(name).is_file()]
    refuse_inputs(touched(outputs.files), [*image_files(image), *files_in(model), *named])
    return outputs


def _beside(image: Source) -> Path:
    """Return the path of labels beside their image, without a suffix."""
    if image.name == "array":
        raise UsageError("an array has no place on disk; name the output")
    path = Path(image.name)
    stem = path.name.removesuffix(".zarr").removesuffix(".ome") if path.suffix == ".zarr" else path.stem
    return path.with_name(f"{stem}.labels")
