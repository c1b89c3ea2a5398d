"""Export: a finished label map in other formats."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Unpack

from tilepipe.errors import UsageError, public
from tilepipe.events import silent
from tilepipe.execution.outputs import Outputs
from tilepipe.execution.publish import put_in_place, refuse_existing, write_products
from tilepipe.execution.run_record import RECORD, as_written, read_record
from tilepipe.paths import labels_file, refuse_inputs
from tilepipe.planning.settings import PolygonSettings, Request
from tilepipe.products.formats import PRODUCTS, layer_path, output_paths, touched
from tilepipe.products.label_map import LABELS, LabelMap
from tilepipe.products.labels import open_label_file, open_map
from tilepipe.products.material import Material
from tilepipe.storage import locked
from tilepipe.text import comma_list


@public
def export(
    labels: str | Path,
    output: str | Path,
    *,
    of: str | Sequence[str] | None = None,
    overwrite: bool = False,
    **options: Unpack[PolygonSettings],
) -> list[Path]:
    """Write a label map, or that of a run (its work directory), in other formats; return the new paths.

    `options` say how polygons are written. Tables of polygons tell of the margin too if the run has written that layer
    beside the labels. Raises `UsageError` when an output exists or an option cannot be meant, `InputError` when there
    are no labels to read.
    """
    labels = labels_file(labels)
    finished = open_label_file(labels)
    paths = output_paths(Path(output), list(comma_list(of) if isinstance(of, str) else of or ()))
    if not paths:
        raise UsageError(f"{output} has no known suffix; name the format with `of`: {', '.join(PRODUCTS)}")
    outputs = Outputs(paths, overwrite, options=Request.of(options).polygons)
    outputs.options.refuse_unused(paths)
    refuse_inputs(touched(outputs.files), [labels])
    refuse_existing(outputs)
    with locked(*outputs.locks):
        replaces, work = refuse_existing(outputs), outputs.work / "export"
        material = Material.of({LABELS: finished, **_margin(labels)}, options=outputs.options)
        products = write_products(material, outputs, work, silent)
        put_in_place(work, {"products": products, "replaces": replaces})
        shutil.rmtree(work, ignore_errors=True)
        with suppress(OSError):  # a run keeps its own things there
            outputs.work.rmdir()
    return list(paths.values())


def _margin(labels: Path) -> dict[str, LabelMap]:
    """Return the margin layer that the run of these very labels has written beside them, by its name."""
    beside = layer_path(labels, "margin")
    for path in labels.parent.glob(f".*.tilepipe/*/{RECORD}"):
        record = read_record(path.parent)
        if record and as_written(record, labels) and as_written(record, beside):
            return {"margin": open_map(beside)}
    return {}
