"""This module keeps results.jsonl: one line per finished run, reference or timing; the file only grows."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from tilepipe.errors import StorageError, UsageError
from tilepipe.storage import cannot_write, write_durably
from tilepipe.text import JSON, json_of

Line = JSON
Key = tuple[str, str, int]
"""Key of a run: (set, mechanism, seed)."""


class Results:
    """The lines of a folder's results.jsonl. If a crash has cut off the last line, the line is dropped."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "results.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
            whole = text[: text.rfind("\n") + 1]
            if whole != text:
                write_durably(self.path, whole)
            self.lines: list[Line] = [json_of(line) for line in whole.splitlines()]
        except (OSError, ValueError) as error:
            raise StorageError(f"{self.path} cannot be read: {error}") from None

    def add(self, line: Line) -> None:
        """Append a line; the line is on the disk when the function returns. Raises `StorageError`."""
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise cannot_write(self.path, error) from None
        self.lines.append(line)

    def check(self, wanted: Mapping[Key, str]) -> None:
        """Raise `UsageError` if a wanted run exists with another fingerprint."""
        for line in self.lines:
            key = _key(line)
            if key is not None and line["config"] != wanted.get(key, line["config"]):
                raise UsageError(
                    f"{self.path} holds {', '.join(map(str, key))} of another configuration; "
                    "delete the file or give another folder"
                )

    def run(self, key: Key) -> Line | None:
        """Return the line of a run; None if the run is not finished."""
        return next((line for line in self.lines if _key(line) == key), None)

    def runs(self, data: str, mechanism: str, seeds: Iterable[int]) -> list[Line]:
        """Return the finished runs of one mechanism on one set."""
        found = [self.run((data, mechanism, seed)) for seed in seeds]
        return [line for line in found if line is not None]

    def reference(self, data: str) -> Line:
        """Return the figures of a set that need no network; an empty line if they are missing."""
        return next((line["reference"] for line in self.lines if line["set"] == data and "reference" in line), {})

    def timing(self) -> Line:
        """Return the last timing; an empty line if there is none."""
        # The file only grows, so a later timing stands below the one that it replaces.
        return next((line for line in reversed(self.lines) if "speeds" in line), {"speeds": {}, "machine": {}})


def machine() -> dict[str, str | int]:
    """Return the time and the machine of the measurements."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "architecture": platform.machine(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "tilepipe": version("tilepipe"),
    }


def _key(line: Line) -> Key | None:
    return (line["set"], line["mechanism"], line["seed"]) if "mechanism" in line else None
