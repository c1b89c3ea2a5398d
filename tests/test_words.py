"""One word per thing: names that the field has other words for do not come back."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from helpers.code import FILES, PACKAGE, nodes_of

ROOT = Path(__file__).parents[1]

OLD = {
    "afford": "reduced_halo",
    "choice": "tile_size, or what is chosen",
    "freeze": "fix_global_statistics",
    "Freeze": "FixGlobals",
    "Frozen": "FixedStatistics",
    "gauge": "measure_reproducibility",
    "Gauge": "Reproducibility",
    "look": "measure_receptive_field, or what is done",
    "dear": "costly",
    "void": "nodata (ignore in truth only)",
    "no_label": "nodata (ignore in truth only)",
    "Worker": "BlockWorker",
    "Book": "BlockQueue",
    "givers": "dependencies",
    "Around": "StatisticsProvider",
    "Live": "OnDemand",
    "Kept": "Stored (statistics) or CropCanvas (labels)",
    "Same": "Constant",
    "Coded": "CropLayerCanvas",
    "Sums": "BlendCanvas",
    "Asked": "RegionRequest, MapOptions",
    "Ground": "Dataset",
    "resolve": "resolve_region",
}
"""Old name: what it is called. None of them is the name of a module, class, function or parameter."""

WINDOW = {
    "window_shape",  # the shape of the weights
    "planning/tile_size.py window",
    "tiling/tiling.py window",
    "tiling/blend.py window",
    "tiling/uncertainty.py window",
    "planning/settings.py window",  # the setting `window`, a region
    "evaluation/verify/verify.py windows",  # the setting `windows` and the field of the report
    "evaluation/verify/verification.py windows",
    "inference/profile/edge_errors.py windows",  # a field of the kept file
    "tiling/statistics_grid.py window",  # a field of plan.json
    "sources/geotiff_read.py window",
}
"""Names with the word "window", each in its file: the weights of a tile, and names that are known outside."""

OLD_IN_DOCS = ["afford", "gauge", "freeze", "no_label"]


def names(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the module's name and every name of a class, function and parameter, with its line."""
    yield path.parent.name if path.stem == "__init__" else path.stem, 1
    for node in nodes_of(path):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno


def all_names(path: Path) -> Iterator[str]:
    """Yield the names of a module that `names` knows, and those that values are given."""
    for node in nodes_of(path):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
    yield from (name for name, _ in names(path))


def test_code_uses_the_words_of_the_field() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}, line {line}: {name} is called {OLD[plain]}"
        for path in FILES
        for name, line in names(path)
        if (plain := name.strip("_")) in OLD
    ]
    assert found == []


def test_a_window_is_the_weights_of_a_tile() -> None:
    found = {
        name if name in WINDOW else f"{path.relative_to(PACKAGE).as_posix()} {name}"
        for path in FILES
        for name in all_names(path)
        if "window" in name.lower()
    }
    assert found == WINDOW, "a region, a crop, a patch have their own words"


def test_pages_use_the_words_of_the_field() -> None:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    texts = {page.name: page.read_text(encoding="utf-8") for page in pages}
    found = [
        (name, word) for name, text in texts.items() for word in OLD_IN_DOCS if re.search(rf"\b{word}", text, re.I)
    ]
    assert found == []
