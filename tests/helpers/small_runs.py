"""Small runs of a model that returns its input: made, stopped, looked at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import tilepipe as tp
from tilepipe.events import Event
from tilepipe.sources.array import ArraySource
from tilepipe.testing import codes_model

CODES = np.random.default_rng(0).integers(0, 4, (90, 130), dtype=np.uint8)
IMAGE = ArraySource(CODES)
CUT: dict[str, Any] = {"tile": 32, "overlap": 8, "block": 40}


def segment(output: Path, source: Any = IMAGE, listener: Any = lambda event: None, **settings: Any) -> Any:
    return tp.segment(source, codes_model(4), output, listener=listener, **{**CUT, **settings})


def labels_of(output: Path) -> NDArray[Any]:
    return np.asarray(tp.open_labels(output))


def work(output: Path) -> Path:
    return output.with_name(f".{output.name}.tilepipe")


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return (mtime, content) of every file below a folder."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


class StopError(Exception):
    """Stands for whatever interrupts a run."""


def stop_at(stage: str, count: int = 1) -> Callable[[Event], None]:
    seen = 0

    def listen(event: Event) -> None:
        nonlocal seen
        if event.stage != stage or (stage == "predict" and "failed" not in event.data):
            return  # before the first block an event says how many are done
        seen += 1
        if seen == count:
            raise StopError

    return listen
