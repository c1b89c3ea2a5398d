"""Export: a finished label map in other formats."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tilepipe.errors import UsageError, public
from tilepipe.events import silent
from tilepipe.execution.outputs import Outputs
from tilepipe.execution.publish import put_in_place, refuse_existing, write_products
from tilepipe.paths import labels_file, refuse_inputs
from tilepipe.products.formats import PRODUCTS, output_paths, touched
from tilepipe.products.label_map import LABELS
from tilepipe.products.labels import open_label_file
from tilepipe.products.material import Material
from tilepipe.storage import locked
from tilepipe.text import comma_list


@public
def export(
    labels: str | Path, output: str | Path, *, of: str | Sequence[str] | None = None, overwrite: bool = False
) -> list[Path]:
    """Write a label map, or that of a run (its work directory), in other formats; return the new paths.

    Raises `UsageError` when one exists, `InputError` when there are no labels to read.
    """
    labels = labels_file(labels)
    finished = open_label_file(labels)
    paths = output_paths(Path(output), list(comma_list(of) if isinstance(of, str) else of or ()))
    if not paths:
        raise UsageError(f"{output} has no known suffix; name the format with --of {', '.join(PRODUCTS)}")
    outputs = Outputs(paths, overwrite)
    refuse_inputs(touched(outputs.files), [labels])
    refuse_existing(outputs)
    with locked(*outputs.locks):
        replaces, work = refuse_existing(outputs), outputs.work / "export"
        products = write_products(Material({LABELS: finished}), outputs, work, silent)
        put_in_place(work, {"products": products, "replaces": replaces})
        shutil.rmtree(work, ignore_errors=True)
        with suppress(OSError):  # a run keeps its own things there
            outputs.work.rmdir()
    return list(paths.values())
