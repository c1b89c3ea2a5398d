"""One word per thing: names that the field has other words for do not come back."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tilepipe"

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

OLD_IN_DOCS = ["afford", "gauge", "freeze", "no_label"]


def names(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the module's name and every name of a class, function and parameter, with its line."""
    yield path.parent.name if path.stem == "__init__" else path.stem, 1
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_code_uses_the_words_of_the_field(path: Path) -> None:
    found = [
        f"line {line}: {name} is called {OLD[plain]}" for name, line in names(path) if (plain := name.strip("_")) in OLD
    ]
    assert found == []


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda page: page.name
)
def test_pages_use_the_words_of_the_field(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [word for word in OLD_IN_DOCS if re.search(rf"\b{word}", text, re.IGNORECASE)] == []
