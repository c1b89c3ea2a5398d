"""This module writes figures of a batch for Prometheus, in the text format that the textfile collector of its
node_exporter reads."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tilepipe.execution.batch.record import (
    DONE,
    EDITED,
    FAILED,
    KNOWN_BAD,
    PARTIAL,
    UNCHANGED,
    WAITING,
    Entry,
)
from tilepipe.storage import write_durably

STATUSES = (DONE, PARTIAL, FAILED, UNCHANGED, EDITED, WAITING, KNOWN_BAD)
"""Statuses in the order of the file; each has a line, also if no image has it."""


def write_metrics(path: Path, name: str, entries: Sequence[Entry], seconds: float) -> None:
    """Write the figures of a batch that has ended, whole or not at all. Raises `StorageError`.

    `name` is that of the jobs file, and `seconds` is the time that the batch took.
    """
    counts = Counter(entry.status for entry in entries)
    label = f'jobs="{_escaped(name)}"'
    lines = [
        "# HELP tilepipe_batch_images Images of the last batch, by what became of them.",
        "# TYPE tilepipe_batch_images gauge",
        *(f'tilepipe_batch_images{{{label},status="{status}"}} {counts[status]}' for status in STATUSES),
        "# HELP tilepipe_batch_duration_seconds Time that the last batch took.",
        "# TYPE tilepipe_batch_duration_seconds gauge",
        f"tilepipe_batch_duration_seconds{{{label}}} {seconds:.3f}",
        "# HELP tilepipe_batch_end_timestamp_seconds Time when the last batch ended, in seconds since 1970.",
        "# TYPE tilepipe_batch_end_timestamp_seconds gauge",
        f"tilepipe_batch_end_timestamp_seconds{{{label}}} {time.time():.3f}",
    ]
    write_durably(path, "\n".join(lines) + "\n")


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
