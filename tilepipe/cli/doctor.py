"""This module defines `tilepipe doctor`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click

from tilepipe.cli import say
from tilepipe.cli.help import Command, option
from tilepipe.text import JSON, size_text


@click.command(cls=Command)
@click.argument("folder", metavar="[DIR]", type=click.Path(), default=".")
@option("--no-speed", is_flag=True, help="Do not run the bundled model.")
@option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(folder: str, no_speed: bool, as_json: bool) -> None:
    """Show what tilepipe finds on this machine.

    That is: versions, device, runtimes, codecs, the limits of memory and of the disk that DIR lies on, and the speed of
    a bundled model in each runtime, which takes some seconds. Nothing is written but what the cache keeps.
    """
    from tilepipe.planning.machine import machine

    found = machine(Path(folder), speed=not no_speed)
    if as_json:
        say.out(json.dumps(found, indent=1))
        return
    for name, text in _rows(found):
        say.out_line(f"{name:<12}", text)


def _rows(found: JSON) -> Iterator[tuple[str, str]]:
    yield "versions", ", ".join(f"{name} {text}" for name, text in found["versions"].items() if text)
    extras = found["extras"]
    yield "extras", ", ".join(f"{name} {text}" for name, text in extras.items() if text) or "none"
    if lacking := [name for name, text in extras.items() if not text]:
        yield "missing", ", ".join(lacking)
    computer = found["processor"]
    yield "processor", f"{computer['name']}, {computer['usable']} of {computer['processors']} processors"
    yield "device", found["device"]
    for name, text in found["runtimes"].items():
        yield "runtime", text if text.startswith(name) else f"{name}: {text}"
    yield "codecs", "TIFF: " + ", ".join(found["codecs"]["tiff"])
    if memory := found["memory"]:
        yield "memory", f"{size_text(memory['free_bytes'])} free of {size_text(memory['limit_bytes'])}"
    if (free := found["disk"]["free_bytes"]) is not None:
        yield "disk", f"{size_text(free)} free in {found['disk']['folder']}"
    yield "cache", found["cache"] or "none (TILEPIPE_CACHE is empty)"
    speed = found["speed"] or {"megapixels_per_second": {}}
    for name, pixels in speed["megapixels_per_second"].items():
        words = f"{pixels:g} megapixels per second" if isinstance(pixels, float) else pixels
        yield "speed", f"{name}: {words} ({speed['model']}, tiles of {speed['tile']} px, {speed['threads']} threads)"
