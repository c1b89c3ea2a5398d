"""This module defines `tilepipe model` and its commands list, check, card, convert and export."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from tilepipe.cli import say
from tilepipe.cli.help import Command, option
from tilepipe.cli.machine_options import PRECISIONS, TRUST
from tilepipe.cli.options import given
from tilepipe.text import JSON, comma_list, yaml_of

MODEL_REFUSED = 5


@click.group(short_help="List, show, check, convert and export models.")
def model() -> None:
    """List the models that come with tilepipe; show, check, convert, export one."""


@model.command("list", cls=Command, short_help="List the models that come with tilepipe, with their scores.")
@option("--json", "as_json", is_flag=True, help="Print JSON: a list with one object for each model.")
def list_(as_json: bool) -> None:
    """List the models that come with tilepipe, with what -m takes and how well each was measured to work."""
    from tilepipe.models.listing import listed_models

    found = listed_models()
    if as_json:
        say.out(json.dumps([one.to_json() for one in found], indent=1))
        return
    say.out("\n\n".join(map(str, found)))


@model.command(cls=Command, short_help="Measure stride, reach and exactness of a network.")
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
        card_file(name)  # a model without a card of its own is refused before anything is measured
    found = check_model(name, **given(options))
    say.out(json.dumps(found.to_json(), indent=1) if as_json else found)
    if write:
        say.err_line(f"wrote {write_measured(found)}")
    # With --write the card says by now what was measured.
    return MODEL_REFUSED if found.problems and not write else 0


@model.command(cls=Command, short_help="Print the card of a model, or write its first one.")
@click.argument("name", metavar="MODEL")
@TRUST
@option("--json", "as_json", is_flag=True, help="Print JSON: a model.json to start from.")
@option(
    "--init", is_flag=True, help="Write a card for a model that has none, of what its file tells; ask for the rest."
)
@option("--set", "fields", multiple=True, metavar="FIELD=VALUE", help="With --init: a field, like classes='[a, b]'.")
def card(name: str, trust_model: str | None, as_json: bool, init: bool, fields: tuple[str, ...]) -> None:
    """Print the card of MODEL: bands, classes, scaling, resolution, training. Or write its first one: --init."""
    from tilepipe.models.formats.directory import load_model

    if fields and not init:
        raise click.UsageError("--set is for --init; edit the card of a model that has one")
    if init:
        _write_first(name, dict(_field(text) for text in fields))
        return
    found = load_model(name, trust_model=trust_model).card
    if as_json:
        say.out(found.to_json(), nl=False)
        return
    for field, value in found.model_dump(mode="json").items():
        say.out_line(f"{field:<12}  {_text(value)}")


@model.command(cls=Command, short_help="Make a model directory of a file of another program.")
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


@model.command(cls=Command, short_help="Write a model for other programs (ONNX).")
@click.argument("name", metavar="MODEL")
@click.argument("output", metavar="OUT")
@option("--to", "form", type=click.Choice(["onnx"]), default="onnx", help="Form of OUT.", show_default=True)
@TRUST
@option("--overwrite", is_flag=True, help="Replace what exists at OUT.")
def export(name: str, output: str, form: str, trust_model: str | None, overwrite: bool) -> None:
    """Write MODEL for other programs: a folder with an ONNX file that holds its card, and a model card for a hub."""
    from tilepipe.models.formats.onnx_export import export_onnx

    say.out_line(export_onnx(name, output, trust_model=trust_model, overwrite=overwrite))


def _write_first(name: str, fields: JSON) -> None:
    from tilepipe.models.formats.first_card import ASSUMED, NEEDED, first_card

    first = first_card(name)
    for field, value in first.fields.items():
        say.err_line(f"the file tells {field}: {_text(value)}")
    absent = first.missing(fields)
    # Nobody can answer a question that is asked in a script.
    if absent and not sys.stdin.isatty():
        told = f"; the model gives {first.channels} channels" if first.channels and "classes" in absent else ""
        listed = "; ".join(f"{field}, the {NEEDED[field]}" for field in absent)
        example = {"bands": "--set bands=3", "classes": "--set classes='[background, thing]'"}
        raise click.UsageError(
            f"the file does not tell {listed}{told}. Add {' '.join(example[field] for field in absent)}"
        )
    for field in absent:
        # The question goes to standard error, since standard output is data.
        fields |= dict([_field(f"{field}={click.prompt(f'{field} ({NEEDED[field]}, like 3 or [a, b])', err=True)}")])
    card = first.write(fields)
    for field, what in ASSUMED.items():
        if not getattr(card, field):
            say.err_line(f"the card has no {field}: {what}")
    say.out_line(first.path)


def _field(text: str) -> tuple[str, Any]:
    """Return the name and the value of FIELD=VALUE. The value is YAML; words with commas between them are a list."""
    name, equals, value = text.partition("=")
    try:
        found = yaml_of(value)
    except ValueError:
        found = None
    if not name.strip() or not equals or found is None:
        raise click.BadParameter(f"--set {text!r} is not a field with a value, like classes='[background, thing]'")
    if isinstance(found, str) and "," in found:
        found = list(comma_list(found))
    return name.strip(), found


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
