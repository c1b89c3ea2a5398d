"""This module exports a finished label map to other formats."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Unpack

from tilepipe.errors import StorageError, UsageError, public
from tilepipe.events import Listener, silent
from tilepipe.execution.outputs import Outputs
from tilepipe.execution.publish import ASIDE, put_in_place, refuse_existing, write_products
from tilepipe.execution.run_record import as_written, find_record
from tilepipe.paths import labels_file, refuse_inputs
from tilepipe.planning.certify import read_certificate
from tilepipe.planning.settings import PolygonSettings, Request
from tilepipe.products.formats import (
    DICOM_SEG,
    OF_PROBABILITIES,
    PRODUCTS,
    File,
    layer_path,
    product_of,
    touched,
)
from tilepipe.products.label_map import LABELS, LabelMap
from tilepipe.products.labels import open_label_file, open_map
from tilepipe.products.material import Asset, Material
from tilepipe.products.naming import output_paths
from tilepipe.products.probabilities import read_probabilities
from tilepipe.sources.base import Georeference, Source
from tilepipe.sources.georeference import apart, placed, where
from tilepipe.sources.open import image_files, open_source
from tilepipe.storage import locked
from tilepipe.text import JSON, comma_list, setting
from tilepipe.tiling.uncertainty import PROBABILITIES, probability_names

EXPORT = "export"
"""Name of an export's folder in a work directory. A folder that a killed process has left is useless."""


@public
def export(
    labels: str | Path,
    output: str | Path,
    *,
    of: str | Sequence[str] | None = None,
    image: str | Path | Source | None = None,
    overwrite: bool = False,
    listener: Listener = silent,
    **options: Unpack[PolygonSettings],
) -> list[Path]:
    """Write a label map in other formats and return the new paths; `labels` may be the work directory of a run.

    `image` is the image of the labels, for products that show or measure it. `options` say how polygons and objects are
    written. Tables of polygons and objects also hold the margin if the run has written this layer beside the labels.
    `listener` is called with each `Event`. Raises `UsageError` if an output exists, if an option is not allowed, or if
    an image is needed and not given. Raises `InputError` if there are no labels to read.
    """
    labels = labels_file(labels)
    finished = open_label_file(labels)
    paths = output_paths(Path(output), list(comma_list(of) if isinstance(of, str) else of or ()))
    if not paths:
        raise UsageError(f"{output} has no known suffix; name the format with `of`: {', '.join(PRODUCTS)}")
    outputs = Outputs(paths, overwrite, options=Request.of(options).polygons)
    outputs.options.refuse_unused(paths)
    if only := [name for name in paths if PRODUCTS[name].needs_run]:
        raise UsageError(
            f"{only[0]} shows what only a run knows, and no file of labels holds it; add it to `of` of its run"
        )
    if image is None and (shown := [name for name in paths if PRODUCTS[name].needs_image]):
        raise UsageError(
            f"{shown[0]} is made with the image of the labels, which only you can name: give it as `image`"
        )
    if image is None and outputs.options.with_image:
        raise UsageError(f"{setting(with_image=True)} writes the image, which only you can name: give it as `image`")
    source = None if image is None else image_of(finished, open_source(image), labels)
    if DICOM_SEG in paths:
        from tilepipe.products.dicom_seg import refuse_no_dicom_slide

        refuse_no_dicom_slide(source)
    refuse_inputs(touched(outputs.files), [labels, *(image_files(source) if source else ())])
    refuse_existing(outputs)
    with locked(*outputs.locks):
        # This is asked again under the lock, since another run may have put an output there meanwhile.
        replaces, work = refuse_existing(outputs), outputs.work / EXPORT
        maps = {
            LABELS: finished,
            **_margin(labels),
            **(_probabilities(labels) if OF_PROBABILITIES & paths.keys() else {}),
        }
        material = Material.of(maps, source, options=outputs.options)
        material = replace(material, facts=facts_of(labels), assets=_assets(labels, outputs))
        try:
            products = write_products(material, outputs, work, listener)
            put_in_place(work, {"products": products, "replaces": replaces})
        finally:  # an export that failed starts from the beginning
            # If the process stopped after an output was moved aside and before it was moved back, this is the only
            # copy.
            if not (work / ASIDE).exists():
                shutil.rmtree(work, ignore_errors=True)
            with suppress(OSError):  # a run keeps its own files there
                outputs.work.rmdir()
    return list(paths.values())


def image_of(labels: LabelMap, image: Source, path: Path) -> Source:
    """Return the image if the labels lie on it. Raises `UsageError` if they do not."""
    for size, start, scale, full, axis in zip(
        labels.shape, labels.origin, labels.scale, image.shape[1:], ("rows", "columns"), strict=True
    ):
        if start + size * scale > full + (scale if scale != 1 else 0):  # a coarser grid is rounded to whole pixels
            raise UsageError(
                f"{image.name} is not the image of {path}: it has {full} {axis}, and the labels are of {axis} {start} "
                f"to {start + size * scale:.0f}"
            )
    if apart(labels.georeference, _part(image.georeference, labels), *labels.shape) > 1:
        places = where(image.georeference, *image.shape[1:]), where(labels.georeference, *labels.shape)
        raise UsageError(f"{image.name} is not the image of {path}: it lies at {places[0]}, the labels at {places[1]}")
    return image


def _part(known: Georeference | None, labels: LabelMap) -> Georeference | None:
    """Return the georeference of labels that are a part of an image at `known`, or that have larger pixels."""
    if known is None or known.transform is None:
        return known
    (y, x), (sy, sx), (a, b, _, d, e, _) = labels.origin, labels.scale, known.transform
    left, top = placed(known.transform, x, y)
    return Georeference(known.crs, (a * sx, b * sy, left, d * sx, e * sy, top))


def _margin(labels: Path) -> dict[str, LabelMap]:
    """Return the margin layer that the run of these same labels has written beside them, by its name."""
    # A file of this name may lie there by chance, so the record of the run must know both files as they are now.
    found, beside = find_record(labels), layer_path(labels, "margin")
    return {"margin": open_map(beside)} if found and as_written(found[0], beside) else {}


def _assets(labels: Path, outputs: Outputs) -> tuple[Asset, ...]:
    """Return the labels and the other files of their run that are as they were written and are not written anew."""
    found = find_record(labels)
    named = {labels.absolute(): LABELS}
    if found is not None:
        record, folder = found[0], labels.absolute().parent
        beside = {folder / name: content for name, content in record["contents"].items()}
        named |= {path: content for path, content in beside.items() if as_written(record, path)}
    new = {path.absolute() for path in outputs.paths.values()}
    files = [File(product, path, content) for path, content in named.items() if (product := product_of(path))]
    return tuple(file.asset for file in files if file.path not in new)


def _probabilities(labels: Path) -> dict[str, LabelMap]:
    """Return the probabilities that the run of these same labels has written beside them, by their names."""
    record = (find_record(labels) or ({},))[0]
    named = [labels.with_name(name) for name, what in record.get("contents", {}).items() if what == PROBABILITIES]
    path = next((path for path in named if as_written(record, path)), None)
    planes = read_probabilities(path) if path else ()
    return dict(zip(probability_names(len(planes)), planes, strict=True))


def facts_of(labels: Path) -> JSON:
    """Return run.json of the run that has written these labels, with its certificate as it is today; else nothing."""
    found = find_record(labels)
    if found is None:
        return {}
    record, directory = found
    facts: JSON = dict(record)
    with suppress(StorageError):  # `tilepipe verify` adds to the certificate what it has found
        certificate = read_certificate(directory)
        facts |= {"plain": certificate.plain, "seams": list(certificate.sentences)}
    return facts
