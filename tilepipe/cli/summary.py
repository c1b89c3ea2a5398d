"""This module makes the end of a run on the screen: classes, files, the certificate, and what to type next."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from tilepipe.paths import work_directory
from tilepipe.text import size_text

if TYPE_CHECKING:
    from tilepipe.execution.batch.run_batch import Report
    from tilepipe.execution.result import Result


def findings(result: Result) -> Iterator[str]:
    """Yield what a run has found, in lines: the share of each class, and whether labels depend on the tiling."""
    if result.numbers:
        yield from result.numbers.lines()
    yield result.certificate.plain
    if since := result.record.get("since"):
        yield since


def files(result: Result) -> Iterator[str]:
    """Yield the path and the size of each product."""
    return _sized({path: result.record["products"][path.name]["bytes"] for path in result.paths})


def _sized(sizes: Mapping[Path, int]) -> Iterator[str]:
    wide = max(len(str(path)) for path in sizes)
    for path, size in sizes.items():
        yield f"{path!s:<{wide}}  {size_text(size)}"


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
    """Yield how a batch ended: how many images have which status, the share of each class in all of them together, and
    whether labels depend on the tiling."""
    counts = Counter(entry.status for entry in report.entries)
    yield ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    if report.numbers:
        yield from report.numbers.lines()
    said = Counter(entry.seams for entry in report.entries if entry.seams)
    for sentence, count in said.most_common():
        yield sentence if len(said) == 1 else f"{count} images: {sentence}"


def batch_files(report: Report) -> Iterator[str]:
    """Yield the path and the size of each file about all images of a batch."""
    there = [path for path in (report.table, report.page) if path is not None and path.exists()]
    return _sized({path: path.stat().st_size for path in there}) if there else iter(())


def next_batch_command(report: Report, jobs: str) -> str:
    """Return what to do after a batch: the same again if images failed, else look at the report, or make it."""
    if report.failed:
        return f"next, to try the failed images again: tilepipe batch retry {shlex.quote(jobs)}"
    return f"next: open {report.page} in a browser" if report.page else f"next: tilepipe report {shlex.quote(jobs)}"


def batch_summary(jobs: str, report: Report) -> str:
    """Return one line about a batch that has ended."""
    from tilepipe.execution.batch.status import summary_line

    return summary_line(PurePath(jobs).stem, report.entries, report.seconds)
