"""The import order of the rooms and one door per library, checked over the syntax tree.

Imports inside functions count like those at the top of a file.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from helpers.code import FILES, PACKAGE, nodes_of

# From the bottom upwards. A module may import from its own room and from rooms on lower floors. Rooms on one floor are
# siblings: they do not know each other.
FLOORS = [
    ["errors", "events", "text", "arrays", "table"],
    ["storage", "stage_times", "heap", "cache", "box", "paths", "supervisor", "progress"],
    ["models", "tiling", "sources"],
    ["inference", "products", "scripts"],
    ["planning"],
    ["execution"],
    ["evaluation"],
    ["training"],
    ["view"],
    ["cli", "testing"],
]
ONE_ROOM = (0, 1)
"""Floors whose modules are single files: they may know each other."""

DOORS = {
    "rasterio": ["sources/geo*.py", "sources/data_array.py", "products/*.py", "training/*.py", "testing.py"],
    "affine": ["sources/geo*.py", "products/cog.py"],
    "openslide": ["sources/slide_file.py"],
    "torch": ["models/*.py", "inference/*.py", "training/*.py", "testing.py"],
    "safetensors": ["models/formats/*.py"],
    "onnx": ["models/formats/onnx_*.py", "inference/runtimes/onnx_graph.py"],
    "onnxruntime": ["models/formats/onnx.py", "inference/runtimes/onnxruntime.py"],
    "openvino": ["inference/runtimes/openvino_model.py"],
    "segmentation_models_pytorch": ["models/formats/smp.py"],
    "bioimageio": ["models/formats/bioimageio_card.py"],
    "monai": ["models/formats/monai.py"],
    "huggingface_hub": ["models/formats/hub.py"],
    "timm": ["models/formats/pretrained.py"],
    "zarr": [
        "execution/durable_array.py",
        "sources/zarr*.py",
        "products/ome_zarr*.py",
    ],
    "dask": ["execution/executors/*.py", "execution/segment.py", "products/lazy.py", "sources/*.py"],
    "distributed": ["execution/executors/*.py"],
    "click": ["cli/*.py"],
    "rich": ["cli/*.py", "progress.py"],
    "psutil": ["cli/memory_use.py"],
    "matplotlib": ["training/*.py"],
    "jinja2": ["products/report/page.py"],
    "pyogrio": ["products/vector_files.py", "sources/geo_vectors.py"],
    "pyarrow": ["products/vector*.py", "products/object_table.py", "sources/stac_index.py", "sources/geo_vectors.py"],
    "shapely": ["products/arcs.py", "products/right_angles.py", "sources/geo_vectors.py"],
    "h5py": ["sources/geo_hdf.py"],
    "obstore": ["sources/remote_url.py"],
    "urllib3": ["sources/remote_file.py"],
    "highdicom": ["products/dicom_seg.py"],
    "pydicom": ["products/dicom_seg.py"],
    "tornado": ["view/server.py"],
    "apscheduler": ["execution/batch/slots.py"],
}


WRITERS = {"tilepipe.models.formats.directory", "tilepipe.models.formats.onnx_export"}
"""What a model's own methods `save` and `to_onnx` import when they are called: the only imports that go upwards."""


def module_name(path: Path) -> str:
    parts = ["tilepipe", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def place(module: str) -> tuple[int, str]:
    """Return the floor and the room of a module."""
    room = module.split(".")[1] if "." in module else ""
    if room in ("", "__main__"):  # the face of the package: the command line alone may use it
        return len(FLOORS) - 1, "cli"
    for floor, rooms in enumerate(FLOORS):
        if room in rooms:
            return floor, str(floor) if floor in ONE_ROOM else room
    raise AssertionError(f"{module} is in no room; see CONTRIBUTING.md for the rooms")


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Yield (module, line) for every import of a file, `from package import module` as the module."""
    for node in nodes_of(path):
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
    own = place(module_name(path))
    for module, line in imports(path):
        library = module.split(".")[0]
        if library in DOORS and not any(fnmatch(relative, door) for door in DOORS[library]):
            found.append(f"{relative}:{line} imports {library}, whose doors are {', '.join(DOORS[library])}")
        if library == "tilepipe":
            floor, room = place(module)
            if floor > own[0] or (floor == own[0] and room != own[1]):
                found.append(f"{relative}:{line} (floor {own[0]}) imports {module} (floor {floor})")
    return found


def test_imports_go_downwards_and_libraries_have_one_door() -> None:
    found = {module_name(path): problems(path) for path in FILES if path != PACKAGE / "__init__.py"}
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


def test_there_is_no_cycle() -> None:
    graph = {module_name(f): {m for m, _ in imports(f) if m.startswith("tilepipe.")} for f in FILES[1:]}
    graph["tilepipe.models.model"] -= WRITERS
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
        calls = [n for n in nodes_of(path) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
        if "cli" not in path.parts:
            assert not [c.lineno for c in calls if getattr(c.func, "id", "") == "print"], path


def test_the_checks_see_what_they_must(tmp_path: Path) -> None:
    assert place("tilepipe.sources.geotiff") == (2, "sources")
    assert place("tilepipe.errors") < place("tilepipe.sources.geotiff") < place("tilepipe.planning.plan")
    file = tmp_path / "x.py"
    file.write_text("def f():\n    import torch\n    from tilepipe.box import Box\n")
    assert list(imports(file)) == [("torch", 2), ("tilepipe.box", 3)]
