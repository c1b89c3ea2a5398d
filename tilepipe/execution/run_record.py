"""run.json: what a run has computed, and whether its products are in place."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict, cast

from tilepipe.errors import StorageError
from tilepipe.execution.file_state import FileState, is_same
from tilepipe.storage import read_json
from tilepipe.text import JSON

RECORD = "run.json"


class RunRecord(TypedDict, total=False):
    """The fields of run.json."""

    format: int
    """Version of the labels: `Plan`'s `FORMAT`."""
    source: str
    """Name or absolute path of the image."""
    model: str
    """Name or absolute path of the model."""
    choice: dict[str, int]
    """Which image of a file that holds several was chosen."""
    request: str
    """The request key."""
    key: str
    """The run key."""
    plan: JSON
    """Fields of the plan."""
    blocks: int
    """Blocks computed."""
    tiles: int
    """Tiles predicted."""
    failed: list[str]
    """Tiles that could not be read or predicted, and why."""
    seams: list[str]
    """Sentences of the certificate."""
    versions: dict[str, str]
    """Versions of the libraries that decide labels."""
    block_seconds: float
    """Time that all blocks took together."""
    elapsed_seconds: float
    """Time that the run took, over all attempts."""
    products: dict[str, FileState]
    """Each product as it was written, by its file name."""
    polygons: JSON
    """How polygons are written, where that was chosen."""
    contents: dict[str, str]
    """What each file holds, by its name: 'labels', or the name of a layer."""
    numbers: JSON
    """What each class has: pixels, area, objects; see `products.numbers.Numbers`."""
    replaces: dict[str, FileState]
    """What was at the final paths when the run began and may be replaced, by file name."""
    published: bool
    """Whether the products are in place."""


def load_record(directory: Path) -> RunRecord:
    """Return run.json of a work directory. Raises `StorageError` if it is missing or not what was written."""
    return cast(RunRecord, read_json(directory / RECORD))


def read_record(directory: Path) -> RunRecord | None:
    """Return run.json of a work directory; None if it is missing or not what was written."""
    try:
        record = load_record(directory)
    except StorageError:
        return None
    return record if {"products", "replaces", "published", "failed"} <= record.keys() else None


def as_written(record: RunRecord, path: Path) -> bool:
    """Return whether a product is the one that run.json speaks of."""
    return path.name in record["products"] and is_same(path, record["products"][path.name])
