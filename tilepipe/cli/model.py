"""`tilepipe model`: check, card, convert."""

from __future__ import annotations

import json
from typing import Any

import click

from tilepipe.cli import say
from tilepipe.cli.help import Command, option
from tilepipe.cli.options import PRECISIONS, TRUST, given
from tilepipe.text import JSON

MODEL_REFUSED = 5


@click.group()
def model() -> None:
    """What a model is, whether its card is right, and models of others."""


@model.command(cls=Command)
@click.argument("name", metavar="MODEL")
@TRUST
@option("--device", help="Where its arithmetic is measured: cpu (the default), cuda or cuda:1.")
@option("--precision", type=PRECISIONS, help="In which its arithmetic is measured; auto is fp32.")
@option("--write", is_flag=True, help="Write stride and halo as measured into the model's card.")
@option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(name: str, write: bool, as_json: bool, **options: Any) -> int:
    """Measure MODEL's total stride, reach and global layers, and look for checkerboards in its weights.

    Also how exactly a device gives the same labels again, in any batch and in any tile.

    Ends with exit code 5 where its card says otherwise.
    """
    from tilepipe.evaluation.model_check import card_file, check_model, write_measured

    if write:
        card_file(name)  # refused before anything is measured
    found = check_model(name, **given(options))
    say.out(json.dumps(found.to_json(), indent=1) if as_json else found)
    if write:
        say.err_line(f"wrote {write_measured(found)}")
    return MODEL_REFUSED if found.problems and not write else 0


@model.command(cls=Command)
@click.argument("name", metavar="MODEL")
@TRUST
@option("--json", "as_json", is_flag=True, help="Print JSON: a model.json to start from.")
def card(name: str, trust_model: str | None, as_json: bool) -> None:
    """Print the card of MODEL: bands, classes, scaling, resolution, training."""
    from tilepipe.models.formats.directory import load_model

    found = load_model(name, trust_model=trust_model).card
    if as_json:
        say.out(found.to_json(), nl=False)
        return
    for field, value in found.model_dump(mode="json").items():
        say.out_line(f"{field:<12}  {_text(value)}")


@model.command(cls=Command)
@click.argument("source", metavar="IN")
@click.argument("output", metavar="OUT")
@option("--card", type=click.Path(), help="Card of the new model, like model.json; the one beside IN by default.")
@option("--arch", help="Network of a state dict, where the card names none, like '{name: unet, width: 16}'.")
@TRUST
@option("--overwrite", is_flag=True, help="Replace an existing model directory.")
def convert(source: str, output: str, arch: str | None, **options: Any) -> None:
    """Make the model directory OUT of a state dict, an ONNX, TorchScript or .pt2 file, or a save_pretrained folder."""
    from tilepipe.models.formats.convert import convert as make

    say.out_line(make(source, output, arch=None if arch is None else _arch(arch), **options))


def _arch(text: str) -> JSON:
    import yaml

    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        found = None
    if not isinstance(found, dict):
        raise click.BadParameter(f"--arch {text!r} is not a network like '{{name: unet, width: 16}}'")
    return found


def _text(value: object) -> str:
    if isinstance(value, list) and not any(isinstance(item, (list, dict)) for item in value):
        return ", ".join(map(str, value)) or "-"
    if isinstance(value, (list, dict)):
        return json.dumps(value) if value else "-"
    return "-" if value in (None, "") else str(value)
