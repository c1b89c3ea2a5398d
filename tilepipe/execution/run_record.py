"""This module reads run.json, which says what a run has computed and whether its products are in place."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import TypedDict, cast

from tilepipe.errors import StorageError
from tilepipe.execution.file_state import FileState, is_same
from tilepipe.paths import work_directory
from tilepipe.storage import read_json
from tilepipe.text import JSON

RECORD = "run.json"


class RunRecord(TypedDict, total=False):
    """The fields of run.json."""

    format: int
    """Version of the labels: the constant `FORMAT` of plans."""
    source: str
    """Name or absolute path of the image."""
    model: str | list[str]
    """Name or absolute path of the model; a list if several were averaged."""
    choice: JSON
    """Options with which the image is opened again: which of several images, and which folders were allowed."""
    request: str
    """Request key."""
    key: str
    """Run key."""
    asked: str
    """Hash of all that decides labels but the image and the choices of the plan."""
    surroundings: dict[str, str]
    """What decides the arithmetic besides `versions`: instructions of the processor and switches of torch."""
    canvas: list[int]
    """Row and column of the first pixel of the canvas on a world grid, counted from the origin of the CRS."""
    since: str
    """Sentence about the blocks that were taken over from an earlier run, or why none was; '' if none was named."""
    taken: int
    """Number of blocks that were taken over."""
    plan: JSON
    """Fields of the plan."""
    blocks: int
    """Number of blocks computed."""
    tiles: int
    """Number of tiles predicted."""
    failed: list[str]
    """Tiles that could not be read or predicted, each with the reason."""
    plain: str
    """Short sentence that says whether the labels depend on the tiling."""
    seams: list[str]
    """Sentences of the certificate."""
    versions: dict[str, str]
    """Versions of the libraries that decide labels."""
    block_seconds: float
    """Sum of the times of all blocks (seconds)."""
    stages: dict[str, float]
    """Seconds of each stage of the last attempt, summed over threads and processes: read (and decode), wait (for
    pixels), compute, blend, write, idle; and the wall time of all blocks (elapsed) and of the products. A run that was
    not alone in its process has that of the products only."""
    bottleneck: str
    """Sentence that says which stage took most of the time; '' if nothing was computed."""
    elapsed_seconds: float
    """Time that the run took over all attempts (seconds)."""
    processor_seconds: float
    """Processor time of all processes of the run (seconds); 0 if it is not known, because the run was interrupted or
    one of its processes worked on another image at the same time."""
    products: dict[str, FileState]
    """State of each product as it was written, by its file name."""
    polygons: JSON
    """Options of polygons and objects, if they were chosen."""
    contents: dict[str, str]
    """Content of each file, by its name: 'labels', or the name of a layer."""
    settings: JSON
    """Settings as the user gave them, without products."""
    command: str
    """Command that makes the run again; '' if no command line can name its image and model."""
    acquired: str
    """Time when the image was taken (ISO 8601), or the first and the last time with '/' between; '' if unknown."""
    ended: str
    """Time when all blocks were computed, in UTC (ISO 8601)."""
    numbers: JSON
    """Numbers of each class: pixels, area, objects; see `products.numbers.Numbers`."""
    replaces: dict[str, FileState]
    """State of the files at the final paths when the run began that may be replaced, by file name."""
    published: bool
    """Whether the products are in place."""


def load_record(directory: Path) -> RunRecord:
    """Return run.json of a work directory. Raises `StorageError` if it is missing or is not as it was written."""
    return cast(RunRecord, read_json(directory / RECORD))


def read_record(directory: Path) -> RunRecord | None:
    """Return run.json of a work directory; None if it is missing or is not as it was written."""
    try:
        record = load_record(directory)
    except StorageError:
        return None
    # Another version may have written fewer fields, and without these nothing can be put in place.
    return record if {"products", "replaces", "published", "failed"} <= record.keys() else None


def as_written(record: RunRecord, path: Path) -> bool:
    """Return whether a product is still as run.json says."""
    return path.name in record["products"] and is_same(path, record["products"][path.name])


def find_record(labels: Path) -> tuple[RunRecord, Path] | None:
    """Return run.json of the run that has written these labels, with its folder; None if it is not beside them, or if
    the labels were changed since."""
    # The run of a raster is named after it; only that of another product has to be looked for.
    own = work_directory(labels).glob(f"*/{RECORD}")
    for path in chain(own, labels.absolute().parent.glob(f".*.tilepipe/*/{RECORD}")):
        record = read_record(path.parent)
        if record and as_written(record, labels):
            return record, path.parent
    return None
