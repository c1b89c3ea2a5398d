"""This module defines `tilepipe info`, which describes an image, a model or a run."""

from __future__ import annotations

import io
import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tilepipe.cli import say
from tilepipe.cli.help import Command, option
from tilepipe.cli.image_options import ALLOW, BANDS, SCENE
from tilepipe.cli.machine_options import TRUST
from tilepipe.cli.options import given, with_options
from tilepipe.errors import TilepipeError
from tilepipe.paths import is_remote, refuse_special
from tilepipe.text import JSON, crs_name

if TYPE_CHECKING:
    from tilepipe.sources.base import Source

MODELS = (".model", ".onnx", ".ts", ".torchscript", ".pt", ".pt2", ".pth", ".ckpt", ".safetensors")
"""Suffixes of models; a file that holds weights only is refused, and the message says what to do instead."""


@click.command(cls=Command, short_help="Say what an image, a model or a run is.")
@click.argument("target", metavar="IMAGE|MODEL|RUN")
@TRUST
@with_options(BANDS, *SCENE, ALLOW)
@option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(target: str, trust_model: str | None, as_json: bool, **options: Any) -> None:
    """Print what an image, a model (directory, file or bundled name) or a run (its work directory) is."""
    described = describe(target, trust_model, given(options))
    if as_json:
        say.out(json.dumps(described, indent=1))
        return
    say.out("".join(_line(name, value) for name, value in described.items()), nl=False)


def _line(name: str, value: object) -> str:
    """Return a fact as YAML that starts on its own line; it does not depend on the other facts."""
    import yaml

    dumper = yaml.SafeDumper(io.StringIO(), default_flow_style=None, sort_keys=False)
    node: Any = dumper.represent_data({name: _text(value)})
    node.flow_style = False
    return str(yaml.serialize(node, Dumper=yaml.SafeDumper, width=120))


def describe(target: str, trust_model: str | None = None, options: JSON | None = None) -> JSON:
    """Return the description as JSON types; `options` pick bands, or one image of a file.

    Raises `InputError`, `UsageError` or `ModelError`.
    """
    path = Path(target)
    if is_remote(target):
        return _image(target, options or {})
    if runs := [plan.parent for pattern in ("plan.json", "*/plan.json") for plan in path.glob(pattern)]:
        # Several requests may have a folder here; the one that was planned last is meant.
        return _run(max(runs, key=lambda run: (run / "plan.json").stat().st_mtime_ns))
    # A word without an ending that is no file is taken for the name of a bundled model.
    wild = set("*?[") & set(target)
    named = path.suffix.lower() in MODELS or not (path.suffix or path.exists() or wild)
    if named or (path / "model.json").exists():
        return _model(target, trust_model)
    # Labels are images too, so they are looked for first.
    return _labels(path) or _image(target, options or {})


def _model(name: str, trust_model: str | None) -> JSON:
    from tilepipe.models.unread import open_model

    model = open_model(name, trust_model=trust_model)
    return {"model": name, "sha256": model.sha256(), **model.card.model_dump(mode="json")}


def _labels(path: Path) -> JSON | None:
    """Return the description of labels made by tilepipe; None if a path holds something else."""
    from tilepipe.products.labels import open_map

    refuse_special(path)
    try:
        found = open_map(path)
    except TilepipeError:
        return None
    (height, width), where, legend = found.shape, found.georeference, found.legend
    return {
        "labels" if legend.measure is None else "layer": str(path),
        "height": height,
        "width": width,
        "dtype": str(found.dtype),
        "classes": list(legend.classes),
        "nodata": legend.nodata,
        "resolution": asdict(found.resolution) if found.resolution else None,
        "crs": where.crs if where else None,
        "transform": where.transform if where else None,
        "origin": found.origin,
        "scale": found.scale,
    }


def _image(path: str, options: JSON) -> JSON:
    from tilepipe.sources.alpha_band import alpha_of
    from tilepipe.sources.bands import read_of
    from tilepipe.sources.open import open_source

    if (known := _variables(path, options)) is not None:
        return known
    source = open_source(path, **options)
    bands, height, width = source.shape
    where = source.georeference
    named = ", ".join(f"{number} {band}" for number, band in read_of(source).items())
    notes = list(getattr(source, "notes", ()))
    return {
        "image": source.name,
        "bands": bands,
        "band names": named if hasattr(source, "file_bands") else None,
        "alpha": alpha_of(source),
        "height": height,
        "width": width,
        "dtype": str(source.dtype),
        "resolution": asdict(source.resolution) if source.resolution else None,
        "crs": where.crs if where else None,
        "transform": where.transform if where else None,
        "gcps": len(where.gcps) if where else 0,
        "layout": _layout(source),
        "reader": source.identity().get("reader"),
    } | ({"notes": notes} if notes else {})


def _variables(path: str, options: JSON) -> JSON | None:
    """Return the variables of a netCDF or HDF5 file that holds several, if none is named; None for other images."""
    from tilepipe.sources.geo_raster import variables_to_name

    known = variables_to_name(path, options)
    if known is None:
        return None
    words = ["tilepipe", "info", path, "--driver", str(options["driver"]), "--scene", next(iter(known))]
    return {"image": path, "variables": known, "next": shlex.join(words)}


def _layout(source: Source) -> str:
    """Return how the pixels are stored, as far as the source knows."""
    if levels := getattr(source, "levels", None):
        sizes = [level if isinstance(level, tuple) else level.shape[1:] for level in levels]
        vendor = getattr(source, "vendor", "OME-TIFF")
        return f"{vendor}, levels of " + ", ".join(f"{height} x {width}" for height, width in sizes)
    if (striped := getattr(source, "striped", None)) is not None:
        return "strips of full rows" if striped else "tiles"
    return "picture" if source.identity().get("reader") == "picture" else type(source).__name__


def _run(directory: Path) -> JSON:
    """Return the description of a work directory, which is only read: a run may be writing to it."""
    from tilepipe.execution.elapsed import elapsed_before
    from tilepipe.execution.keys import read_plan
    from tilepipe.execution.ledger import read_records
    from tilepipe.planning.certify import read_certificate

    plan = read_plan(directory).plan
    done, _ = read_records(directory / "ledger.jsonl")
    try:
        certificate = read_certificate(directory)
    except TilepipeError:  # a run that is not finished has none
        certificate = None
    return {
        "run": str(directory),
        "finished": (directory / "run.json").exists(),
        "blocks": len(list(plan.blocks())),
        "blocks done": len(done),
        "tiles": plan.tile_count,
        "tiles done": sum(record.tiles for record in done.values()),
        "tiles failed": [message for record in done.values() for message in record.failed],
        "elapsed seconds": round(elapsed_before(directory), 1),
        "block seconds": round(sum(record.seconds for record in done.values()), 1),
        "seams": certificate.plain if certificate else None,
        "certificate": list(certificate.sentences) if certificate else None,
        "plan": plan.to_dict(),
    }


def _text(value: object) -> object:
    """Return a fact in a form that is easy to read for people."""
    if isinstance(value, dict) and set(value) == {"y", "x", "unit"}:
        return f"{value['y']:.6g} x {value['x']:.6g} {value['unit']}/px (height x width)"
    if isinstance(value, str) and crs_name(value) != value:
        return crs_name(value)
    return list(value) if isinstance(value, tuple) else value
