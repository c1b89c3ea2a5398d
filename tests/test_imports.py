"""The import order of the tour in tilepipe/__init__.py, and one door per library, checked over the syntax tree.

Imports inside functions count like those at the top of a file.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "tilepipe"
FILES = sorted(PACKAGE.rglob("*.py"))

# First match wins. A module may import modules of a lower level, of its own folder, and, at the same level, of its own
# group only: siblings such as sources and models, or exports and train, do not know each other.
LEVELS = [
    ("tilepipe.errors", 0, "base"),
    ("tilepipe.box", 0, "base"),
    ("tilepipe.events", 0, "base"),
    ("tilepipe.storage", 0, "base"),
    ("tilepipe.text", 0, "base"),
    ("tilepipe.trouble", 0, "base"),
    ("tilepipe.cache", 0, "base"),
    ("tilepipe.elapsed", 0, "base"),
    ("tilepipe.paths", 0, "base"),
    ("tilepipe.grid", 1, "grid"),
    ("tilepipe.window", 1, "grid"),
    ("tilepipe.field", 1, "grid"),
    ("tilepipe.border_merge", 1, "grid"),
    ("tilepipe.quality*", 1, "quality"),
    ("tilepipe.sources*", 2, "sources"),
    ("tilepipe.models.convert", 4, "plan"),
    ("tilepipe.models.contents", 1, "contents"),
    ("tilepipe.models.copying", 1, "contents"),
    ("tilepipe.models.identity", 3, "probe"),
    ("tilepipe.models.answers", 3, "probe"),
    ("tilepipe.models*", 2, "models"),
    ("tilepipe.arithmetic", 2, "arithmetic"),
    ("tilepipe.device", 3, "predict"),
    ("tilepipe.labelmap", 3, "labelmap"),
    ("tilepipe.predict", 3, "predict"),
    ("tilepipe.blend", 3, "blend"),
    ("tilepipe.uncertainty", 3, "blend"),
    ("tilepipe.store", 3, "store"),
    ("tilepipe.vectors", 3, "store"),
    ("tilepipe.probe*", 3, "probe"),
    ("tilepipe.classical", 3, "classical"),
    ("tilepipe.level", 3, "probe"),
    ("tilepipe.certificate", 3, "probe"),
    ("tilepipe.tolerance", 3, "probe"),
    ("tilepipe.memory", 4, "plan"),
    ("tilepipe.plan*", 4, "plan"),
    ("tilepipe.shapes", 4, "plan"),
    ("tilepipe.fit", 4, "plan"),
    ("tilepipe.given", 4, "plan"),
    ("tilepipe.speed", 4, "plan"),
    ("tilepipe.choice", 4, "plan"),
    ("tilepipe.reach", 4, "plan"),
    ("tilepipe.gauge", 4, "plan"),
    ("tilepipe.held", 4, "plan"),
    ("tilepipe.afford", 4, "plan"),
    ("tilepipe.frozen", 4, "plan"),
    ("tilepipe.certify", 4, "plan"),
    ("tilepipe.keys", 4, "plan"),
    ("tilepipe.region", 4, "plan"),
    ("tilepipe.wanted", 4, "plan"),
    ("tilepipe.output", 4, "plan"),
    ("tilepipe.engine*", 5, "engine"),
    ("tilepipe.exports*", 6, "exports"),
    ("tilepipe.evaluate*", 6, "evaluate"),
    ("tilepipe.train*", 6, "train"),
    ("tilepipe.check", 7, "api"),
    ("tilepipe.comparison", 7, "api"),
    ("tilepipe.run", 7, "api"),
    ("tilepipe.publish", 7, "api"),
    ("tilepipe.api", 7, "api"),
    ("tilepipe.verify*", 7, "api"),
    ("tilepipe.jobs", 8, "batch"),
    ("tilepipe.record", 8, "batch"),
    ("tilepipe.batch", 8, "batch"),
    ("tilepipe.cli*", 9, "cli"),
    ("tilepipe.__main__", 9, "cli"),
]

DOORS = {
    "rasterio": ["sources/geo*.py", "sources/position.py", "sources/data_array.py", "exports/*.py", "train/*.py"],
    "affine": ["sources/geo*.py", "exports/cog.py"],
    "openslide": ["sources/slide.py"],
    "torch": ["models/*.py", "arithmetic.py", "device.py", "predict.py", "probe/*.py", "tolerance.py", "train/*.py"],
    "safetensors": ["models/weights.py", "models/tensors.py"],
    "onnx": ["models/foreign/graph.py", "models/foreign/limits.py"],
    "onnxruntime": ["models/foreign/onnx.py"],
    "segmentation_models_pytorch": ["models/smp.py"],
    "timm": ["models/pretrained.py"],
    "zarr": ["store.py", "vectors.py", "sources/zarr.py", "exports/ome_zarr.py"],
    "dask": [
        "engine/dask.py",
        "engine/spawned.py",
        "sources/array.py",
        "sources/content.py",
        "sources/foreign.py",
        "sources/open.py",
        "exports/view.py",
    ],
    "distributed": ["engine/dask.py", "engine/gone.py"],
    "click": ["cli/*.py"],
    "rich": ["cli/*.py"],
}


def module_name(path: Path) -> str:
    parts = ["tilepipe", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def level(module: str) -> tuple[int, str]:
    for pattern, number, group in LEVELS:
        if fnmatch(module, pattern):
            return number, group
    raise AssertionError(f"{module} has no place in the import order; give it one in LEVELS and in the design")


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Yield (module, line) for every import of a file, `from package import module` as the module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} relative import"
            for alias in node.names:
                inner = PACKAGE.parent / Path(*(node.module or "").split("."), alias.name)
                is_module = inner.with_suffix(".py").exists() or (inner / "__init__.py").exists()
                yield (f"{node.module}.{alias.name}" if is_module else str(node.module)), node.lineno


def problems(path: Path) -> list[str]:
    found = []
    relative = path.relative_to(PACKAGE).as_posix()
    own = level(module_name(path))
    for module, line in imports(path):
        library = module.split(".")[0]
        if library in DOORS and not any(fnmatch(relative, door) for door in DOORS[library]):
            found.append(f"{relative}:{line} imports {library}, whose doors are {', '.join(DOORS[library])}")
        if library == "tilepipe":
            number, group = level(module)
            if number > own[0] or (number == own[0] and group != own[1]):
                found.append(f"{relative}:{line} (level {own[0]}, {own[1]}) imports {module} (level {number}, {group})")
    return found


@pytest.mark.parametrize("path", [f for f in FILES if f != PACKAGE / "__init__.py"], ids=module_name)
def test_imports_go_downwards_and_libraries_have_one_door(path: Path) -> None:
    assert problems(path) == []


def test_there_is_no_cycle() -> None:
    graph = {module_name(f): {m for m, _ in imports(f) if m.startswith("tilepipe.")} for f in FILES[1:]}
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " -> ".join([*above, module])
        if module not in done:
            for other in graph.get(module, ()):
                visit(other, (*above, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_only_the_command_line_prints() -> None:
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
        if "cli" not in path.parts:
            assert not [c.lineno for c in calls if getattr(c.func, "id", "") == "print"], path


def test_the_checks_see_what_they_must(tmp_path: Path) -> None:
    assert level("tilepipe.sources.geotiff") == (2, "sources")
    file = tmp_path / "x.py"
    file.write_text("def f():\n    import torch\n    from tilepipe.box import Box\n")
    assert list(imports(file)) == [("torch", 2), ("tilepipe.box", 3)]
