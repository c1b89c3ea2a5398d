"""This module makes help that fits a screen: common options come first, `--help-all` shows those of experts too.

Both are shown in named groups.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import click

from tilepipe.cli import say

Function = TypeVar("Function", bound=Callable[..., object])


class Decorator(Protocol):
    """A decorator that adds an option to a command's function."""

    def __call__(self, function: Function, /) -> Function:
        """Return the function with the option added."""


OTHER_WORDS = {
    "--per-file": "--of cog,files",
    "--tissue": "--mask tissue",
    "--aoi": "--region FILE",
    "--roi": "--region FILE",
    "--bbox": "--bounds 'L B R T'",
    "--format": "--of LIST",
    "--formats": "--of LIST",
    "--channels": "--bands LIST",
    "--channel": "--bands LIST",
    "--mpp": "--pixel-size NUMBER",
    "--gsd": "--pixel-size NUMBER",
    "--series": "--scene N",
    "--subdataset": "--scene NAME",
    "--variable": "--scene NAME",
    "--tile-size": "--tile N",
    "--batch-size": "--batch N",
    "--gpu": "--device cuda",
    "--output": "OUTPUT, as the word after INPUT",
    "-o": "OUTPUT, as the word after INPUT",
}
"""Options of other programs, and what is typed here in their place."""

COMMON = "Options"
"""Name of the group of options that name no group; it is always shown."""


class Option(click.Option):
    """An option in a group; `expert` options are shown by `--help-all` only."""

    def __init__(self, names: Sequence[str], *, group: str = COMMON, expert: bool = False, **fields: Any) -> None:
        """Take the parameters of `click.Option`, and besides the group's name and whether the option is for experts."""
        super().__init__(names, **fields)
        self.group, self.expert = group, expert

    def get_help_extra(self, ctx: click.Context) -> click.types.OptionHelpExtra:
        """Return the text in brackets: the default in plain words, or that the option must be given."""
        extra = super().get_help_extra(ctx)
        # The message about a wrong number names the range; here it would take the room of a word.
        extra.pop("range", None)
        # click would put such a text in parentheses.
        if isinstance(self.show_default, str):
            extra["default"] = self.show_default
        return extra


class Command(click.Command):
    """A command whose help shows its options in groups."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the parameters, with `--help-all` last if there is an option for experts."""
        found = super().get_params(ctx)
        if any(isinstance(parameter, Option) and parameter.expert for parameter in found):
            found.append(_HELP_ALL)
        return found

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the words of a command line. Raises `click.UsageError` that says what to type if there are too many."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            typed = OTHER_WORDS.get(error.option_name, "")
            known = {
                name for parameter in self.params for name in (*parameter.opts, parameter.make_metavar(ctx).strip("[]"))
            }
            if typed.replace(",", " ").split(" ")[0] not in known:
                raise
            raise click.UsageError(f"No such option {error.option_name!r}. Type {typed}", ctx) from error
        except click.UsageError as error:
            words = error.message.partition("unexpected extra argument")[2].partition("(")[2].rstrip(")").split()
            if len(words) < 2 or not all(Path(word).exists() for word in words):
                raise
            # An interactive shell replaces a pattern before this program sees it.
            raise click.UsageError(
                f"{len(words)} files too many, from {words[0]} on; a pattern that stands for several files is written "
                'in quotes: "tiles/*.tif"',
                ctx,
            ) from error

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a list of options for each group; the common group is first, the others come in the order they
        appear."""
        groups: dict[str, list[tuple[str, str]]] = {COMMON: []}
        for parameter in self.get_params(ctx):
            if getattr(parameter, "expert", False) and not ctx.meta.get(_SHOW_ALL):
                continue
            row = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if row is not None:
                groups.setdefault(getattr(parameter, "group", COMMON), []).append(row)
        for name, rows in groups.items():
            with formatter.section(name):
                formatter.write_dl(rows, col_max=26)


def option(*words: str, **fields: Any) -> Decorator:
    """Return the decorator that adds an `Option`."""
    return click.option(*words, cls=Option, **fields)


def expert(group: str, *words: str, **fields: Any) -> Decorator:
    """Return the decorator that adds an `Option` to `group` that only `--help-all` shows."""
    return option(*words, group=group, expert=True, **fields)


def _show_all(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    # While a shell completes a word nothing may be printed.
    if value and not context.resilient_parsing:
        context.meta[_SHOW_ALL] = True
        say.out(context.get_help())
        context.exit()


_SHOW_ALL = "tilepipe.help_all"
# The option is eager: it is looked at before a missing argument becomes an error.
_HELP_ALL = click.Option(
    ["--help-all"],
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_all,
    help="Show every option and exit.",
)
