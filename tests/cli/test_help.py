"""Help fits a screen, names every option once with its default, and hides what only experts need."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tilepipe.cli.help import OTHER_WORDS, Command, Option
from tilepipe.cli.main import main, root
from tilepipe.planning.settings import Settings

SCREEN = 40
"""Lines of 80 characters that are read without scrolling."""


def commands(group: click.Group = root, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*above, name))
        else:
            yield (*above, name), command


COMMANDS = dict(commands())


def shown(words: tuple[str, ...], flag: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main([*words, flag]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_fits_a_screen(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(words, "--help", capsys).splitlines()
    assert len(lines) <= SCREEN
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("words", [(), ("batch",), ("model",), ("qgis",), ("qupath",)], ids=" ".join)
def test_a_list_of_commands_says_each_in_one_whole_line(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, listed = shown(words, "--help", capsys).partition("Commands:\n")
    lines = listed.partition("\n\n")[0].splitlines()
    assert lines
    assert all(line.endswith(".") and not line.endswith("...") for line in lines)
    assert all(line[2] != " " and len(line) <= 80 for line in lines)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_option_is_explained_once(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    command = COMMANDS[words]
    assert isinstance(command, Command)
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    assert all(isinstance(option, Option) and option.help for option in options)
    few = shown(words, "--help", capsys)
    every = shown(words, "--help-all", capsys) if "--help-all" in few else few
    for option in options:
        name = f"  {option.opts[-1]}" if len(option.opts) == 1 else ", ".join(option.opts)
        assert every.count(f"{name} ") + every.count(f"{name}\n") == 1
        assert (f"{name} " in few or f"{name}\n" in few) != getattr(option, "expert", False)


def test_settings_say_their_defaults_and_no_other_program_s_brackets(capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(shown(("segment",), "--help-all", capsys).split())
    for words in ("[default: auto]", "[default: 4]", "[default: 1024]", "[default: nodata]", "[required]"):
        assert words in text
    assert "[default: (" not in text
    assert "x>=" not in text


def test_every_setting_of_python_is_an_option() -> None:
    names = {parameter.name for parameter in COMMANDS["segment",].params}
    assert set(Settings.__annotations__) - names == set()


def test_a_pattern_without_quotes_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / f"{k}.tif" for k in range(4)]
    for file in files:
        file.touch()
    assert main(["segment", *map(str, files), "-m", "forest"]) == 2
    assert 'written in quotes: "tiles/*.tif"' in capsys.readouterr().err.replace("\n", " ")
    assert main(["segment", "a", "b", "c", "d", "-m", "forest"]) == 2
    assert "unexpected extra arguments (c d)" in capsys.readouterr().err


def test_options_of_other_programs_lead_to_ours(capsys: pytest.CaptureFixture[str]) -> None:
    known = {name for parameter in COMMANDS["segment",].params for name in parameter.opts}
    for theirs, ours in OTHER_WORDS.items():
        assert main(["segment", "a.tif", "-m", "forest", theirs, "1"]) == 2
        assert f"No such option '{theirs}'. Type {ours}" in " ".join(capsys.readouterr().err.split())
        assert ours.split()[0].strip(",") in known | {"OUTPUT"}
        assert theirs not in known
    # A command that has no such option leads to none.
    assert main(["clean", ".", "--per-file"]) == 2
    assert "Type" not in capsys.readouterr().err
