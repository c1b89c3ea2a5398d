"""The schemas of STAC's extensions, without a network: they lie in the package eopf, which is never imported.

Its folder is found by its name. Two schemas that they refer to lie elsewhere: PROJJSON beside PROJ, in pyproj, and the
geometry of GeoJSON in pystac.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

PACKAGE = "eopf"
HAS_SCHEMAS = importlib.util.find_spec(PACKAGE) is not None
needs_schemas = pytest.mark.skipif(not HAS_SCHEMAS, reason=f"{PACKAGE} is not installed: make setup")
REFERRED = {
    "https://geojson.org/schema/Geometry.json": ("pystac", "validation/jsonschemas/geojson/Geometry.json"),
    "https://proj.org/schemas/v0.7/projjson.schema.json": ("pyproj", "proj_dir/share/proj/projjson.schema.json"),
}


def refuse_wrong_extensions(item: dict[str, Any]) -> None:
    """Raise `jsonschema.ValidationError` if an item breaks the schema of an extension that it declares.

    Raises `AssertionError` if there is no schema. Needs the package.
    """
    folder = _package(PACKAGE) / "product" / "stac_extensions" / "extensions"
    schemas = {name: _schema(_package(package) / path) for name, (package, path) in REFERRED.items()}
    registry = Registry().with_resources((name, Resource(schema, DRAFT7)) for name, schema in schemas.items())
    for address in item["stac_extensions"]:
        name, version, _ = address.removeprefix("https://stac-extensions.github.io/").split("/")
        schema = _schema(folder / f"{name}_{version}.json")
        assert schema["$id"].rstrip("#") == address
        Draft7Validator(schema, registry=registry).validate(item)


def _package(name: str) -> Path:
    found = importlib.util.find_spec(name)
    assert found is not None
    assert found.submodule_search_locations
    return Path(found.submodule_search_locations[0])


def _schema(path: Path) -> Any:
    assert path.exists(), f"there is no schema {path.name}"
    return json.loads(path.read_text())
