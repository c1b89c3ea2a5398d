"""This module writes the command that makes a run again, from the settings that run.json keeps."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from tilepipe.box import Box
from tilepipe.text import JSON, redacted

NOT_KEPT = {"of", "overwrite", "since"}
"""Settings that the command says in another way, or that belong to one attempt alone."""
FOLDERS = "allow"
"""Setting that names folders; its option is given once for each of them."""


def kept_settings(given: Mapping[str, object]) -> JSON:
    """Return settings as they were given, in JSON types; files have absolute paths, and a `Box` becomes `window`."""
    kept: JSON = {}
    for name, value in given.items():
        if name in NOT_KEPT:
            continue
        if name == "region" and not isinstance(value, str | Path):
            box = value if isinstance(value, Box) else Box(*value)  # type: ignore[misc]
            kept["window"] = [box.x0, box.y0, box.width, box.height]
        elif name == FOLDERS:
            named = [value] if isinstance(value, str | Path) else list(value)  # type: ignore[call-overload]
            kept[name] = [str(Path(folder).resolve()) for folder in named]
        elif isinstance(value, str | Path):
            # An address of a scheduler may hold a password, which must not stay on the disk.
            kept[name] = str(Path(value).resolve()) if Path(value).is_file() else redacted(str(value))
        else:
            kept[name] = list(value) if isinstance(value, tuple | list) else value
    return kept


def command_of(source: str, models: Sequence[str], settings: JSON, outputs: Mapping[str, Path]) -> str:
    """Return the command for a shell; '' if the image or the model came from Python's memory and has no name.

    Several `models` are averaged. `outputs` are the paths of the products, by product.
    """
    if source == "array" or "python" in models:
        return ""
    first = next(iter(outputs.values())).absolute()
    named = [word for model in models for word in ("-m", model)]
    words = ["tilepipe", "segment", source, str(first), *named, "--of", ",".join(outputs)]
    return shlex.join([*words, *(word for name, value in settings.items() for word in _option(name, value))])


def _option(name: str, value: object) -> list[str]:
    """Return the words of one setting: an option of the command line has the setting's name, with hyphens."""
    long = f"--{name.replace('_', '-')}"
    if value is None or value is False:
        return ["--no-record"] if name == "record" else []
    if value is True:
        return [] if name == "record" else [long]
    if name == "classes":
        return [word for one in ([value] if isinstance(value, str) else value) for word in ("--class", one)]  # type: ignore[attr-defined]
    if name == FOLDERS:
        return [word for folder in value for word in (long, folder)]  # type: ignore[attr-defined]
    return [long, ",".join(map(str, value)) if isinstance(value, list) else str(value)]
