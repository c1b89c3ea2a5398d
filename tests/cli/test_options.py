"""How option values are read."""

from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner

from tilepipe.cli.options import SETTINGS, given, with_options


@click.command()
@with_options(*SETTINGS)
@click.pass_context
def show(context: click.Context, **options: Any) -> None:
    context.obj.update(given(options))


def parse(*words: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    result = CliRunner().invoke(show, words, obj=found)
    assert result.exit_code == 0, result.output
    return found


def refusal(*words: str) -> str:
    result = CliRunner().invoke(show, words, obj={})
    assert result.exit_code == 2
    return result.output


def test_nothing_is_given_by_default() -> None:
    assert parse() == {}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--window", "10,20,300,400"], {"window": (10, 20, 300, 400)}),
        (["--window", " 10 20 300, 400 "], {"window": (10, 20, 300, 400)}),
        (["--bounds", "-1.5 2 3e2 4"], {"bounds": (-1.5, 2.0, 300.0, 4.0)}),
        (["--bounds", "-1,2,3,4", "--bounds-crs", "EPSG:4326"], {"bounds": (-1, 2, 3, 4), "bounds_crs": "EPSG:4326"}),
        (["--of", "cog, ome-zarr"], {"of": ("cog", "ome-zarr")}),
        (["--overlap", "auto", "--tile", "512"], {"overlap": "auto", "tile": 512}),
        (["--resolution", "0.5"], {"resolution": 0.5}),
        (["--resolution", "model"], {"resolution": "model"}),
        (["--memory", "4GiB", "--workers", "2", "--batch", "8"], {"memory": "4GiB", "workers": 2, "batch": 8}),
        (["--window-shape", "hann", "--precision", "fp64"], {"window_shape": "hann", "precision": "fp64"}),
    ],
)
def test_values(words: list[str], expected: dict[str, Any]) -> None:
    assert parse(*words) == expected


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--window", "1,2,3"], "'1,2,3' is not four whole numbers"),
        (["--window", "1,2,3,4.5"], "is not four whole numbers"),
        (["--bounds", "a b c d"], "is not four numbers"),
        (["--overlap", "some"], "'some' is neither a number nor auto"),
        (["--resolution", "half"], "'half' is neither a number nor full nor model"),
        (["--workers", "-1"], "-1 is not in the range x>=0"),
        (["--window-shape", "hat"], "'hat' is not one of"),
    ],
)
def test_refusals_say_what_to_write(words: list[str], sentence: str) -> None:
    assert sentence in refusal(*words)
