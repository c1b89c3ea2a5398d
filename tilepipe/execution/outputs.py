"""This module decides which files a run writes, and where."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from tilepipe.errors import UsageError
from tilepipe.execution.run_record import RunRecord
from tilepipe.paths import files_in, given_path, lock_of, refuse_inputs, work_directory
from tilepipe.planning.settings import Request
from tilepipe.products.formats import (
    DICOM_SEG,
    LOSSLESS,
    OF_TISSUE,
    OME_PROBABILITIES,
    PRODUCTS,
    File,
    files_of,
    product_of,
    touched,
)
from tilepipe.products.naming import output_paths
from tilepipe.products.vector_options import DRAWN, PLAIN, VectorOptions
from tilepipe.sources.base import Source
from tilepipe.sources.mosaic_files import would_be_part
from tilepipe.sources.open import image_files, place_of
from tilepipe.sources.slide import SlideSource
from tilepipe.sources.wrapped import unwrapped
from tilepipe.text import setting
from tilepipe.tiling.uncertainty import PROBABILITIES


@dataclass(frozen=True)
class Outputs:
    """The places of the products of a run, and how they are written."""

    paths: dict[str, Path]
    """Final path of each product; all lie in one folder."""
    overwrite: bool
    """Whether existing products may be replaced."""
    layers: tuple[str, ...] = ()
    """Uncertainty layers that are written beside the labels."""
    options: VectorOptions = PLAIN
    """Options of polygons and objects."""

    def drawn_otherwise(self, record: RunRecord) -> bool:
        """Return whether polygons or objects are written, and run.json says they had other options."""
        return bool(DRAWN & self.paths.keys()) and self.options.to_dict() != record.get("polygons", {})

    @property
    def files(self) -> list[File]:
        """Files that are written: labels first, then layers. Raises `UsageError`."""
        return files_of(self.paths, self.layers)

    @property
    def work(self) -> Path:
        """Work directory of this output; the order in which products are named does not matter."""
        first = self.paths[next(name for name in PRODUCTS if name in self.paths)]
        return work_directory(first)

    @property
    def locks(self) -> list[Path]:
        """Lock files, one per output, so that two runs never write the same output."""
        return [lock_of(file.path) for file in self.files]


def outputs_of(image: Source, models: Iterable[str], output: str | Path | None, request: Request) -> Outputs:
    """Return the outputs of a run. Raises `UsageError` if an output cannot be written, or is also an input."""
    path, products = _beside(image) if output is None else given_path(output), list(request.products)
    if not products and not output_paths(path, []):
        # A slide has no place on the earth, which a COG is for. napari opens the OME-Zarr, and QuPath imports the
        # GeoJSON.
        products = ["ome-zarr", "geojson"] if _is_slide(image) else ["cog"]
    if PROBABILITIES in products and not LOSSLESS & {*products, product_of(path)} and _is_slide(image):
        # Labels of a slide are an OME-Zarr if nobody chooses, so its probabilities are one too.
        products = [OME_PROBABILITIES if name == PROBABILITIES else name for name in products]
    outputs = Outputs(output_paths(path, products), request.overwrite, request.layers, request.polygons)
    request.polygons.refuse_unused(outputs.paths)
    if DICOM_SEG in outputs.paths:
        from tilepipe.products.dicom_seg import refuse_no_dicom_slide

        refuse_no_dicom_slide(image)
    if OF_TISSUE & outputs.paths.keys():
        from tilepipe.products.tissue import refuse_no_tissue

        refuse_no_tissue(image, request.mask)
    if "files" in outputs.paths and request.resolution != "full":
        raise UsageError(
            f"{setting(of='files')} cuts labels by the files of the image, so they need its pixels; leave `resolution` "
            "out"
        )
    if not (request.record or LOSSLESS & outputs.paths.keys()):
        raise UsageError(
            f"{setting(record=False)} needs a product that holds every label, as nothing else keeps them then: add "
            "cog, ome-zarr or ome-tiff to `of`"
        )
    named = [Path(name) for name in (request.mask, request.region) if isinstance(name, str) and Path(name).is_file()]
    refuse_inputs(touched(outputs.files), [*image_files(image), *chain.from_iterable(map(files_in, models)), *named])
    place = place_of(image)
    for file in outputs.files:
        if place is not None and place.is_dir() and would_be_part(file.path, place):
            raise UsageError(
                f"{file.path} would lie among the files of {image.name}, and be taken for one of them the next time; "
                "choose an output in another folder, or one that ends in .labels.tif"
            )
    return outputs


def _is_slide(image: Source) -> bool:
    return isinstance(unwrapped(image), SlideSource)


def _beside(image: Source) -> Path:
    """Return the path of labels beside their image, without a suffix."""
    path = place_of(image)
    if path is None:
        what = "an array" if image.name == "array" else "a list of files"
        raise UsageError(f"{what} has no place on disk; name the output")
    stem = path.name.removesuffix(".zarr").removesuffix(".ome") if path.suffix == ".zarr" else path.stem
    return path.with_name(f"{stem}.labels")
