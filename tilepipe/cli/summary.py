"""This module makes the end of a run on the screen: classes, files, the certificate, and what to type next."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tilepipe.paths import work_directory
from tilepipe.text import size_text

if TYPE_CHECKING:
    from tilepipe.execution.batch.run_batch import Report
    from tilepipe.execution.segment import Result


def findings(result: Result) -> Iterator[str]:
    """Yield what a run has found, in lines: the share of each class, and whether labels depend on the tiling."""
    if result.numbers:
        yield from result.numbers.lines()
    yield result.certificate.plain


def files(result: Result) -> Iterator[str]:
    """Yield the path and the size of each product."""
    sizes = [size_text(result.record["products"][path.name]["bytes"]) for path in result.paths]
    wide = max(len(str(path)) for path in result.paths)
    for path, size in zip(result.paths, sizes, strict=True):
        yield f"{path!s:<{wide}}  {size}"


def next_command(result: Result) -> str:
    """Return the command to type next: polygons of the labels; if there are polygons, a report; else a check."""
    from tilepipe.products.formats import LOSSLESS, PRODUCTS, missing_packages, product_of, stem_of
    from tilepipe.products.vector_options import POLYGONS

    by_product = {product_of(path): path for path in result.paths}
    labels = next((path for path in result.paths if product_of(path) in LOSSLESS), None)
    if labels is None or POLYGONS & by_product.keys():
        # A report shows labels, which polygons alone do not hold; and both commands read the record of the run.
        command = "report" if labels is not None and "report" not in by_product else "verify"
        if not any(work_directory(path).exists() for path in result.paths):
            command = "info"
        return f"next: tilepipe {command} {shlex.quote(str(labels or result.paths[0]))}"
    # GeoJSON needs no package of an extra.
    suffix = PRODUCTS["geojson" if missing_packages("vectors") else "vectors"].suffix
    polygons = labels.with_name(stem_of(labels) + suffix)
    return f"next: tilepipe export {shlex.quote(str(labels))} {shlex.quote(str(polygons))}"


def batch_lines(report: Report) -> Iterator[str]:
    """Yield how a batch ended: how many images have which status, and whether labels depend on the tiling."""
    counts = Counter(entry.status for entry in report.entries)
    yield ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    said = Counter(entry.seams for entry in report.entries if entry.seams)
    for sentence, count in said.most_common():
        yield sentence if len(said) == 1 else f"{count} images: {sentence}"
