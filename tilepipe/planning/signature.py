"""Signature: shows every setting of a public function to `help()`, to notebooks and to editors.

The functions take `**settings`, so that a setting is written once. Python would show just that word.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from pathlib import Path
from textwrap import fill
from typing import TypeVar

from tilepipe.planning import settings
from tilepipe.products.vector_options import VectorOptions

F = TypeVar("F", bound=Callable[..., object])


def with_settings(kind: type) -> Callable[[F], F]:
    """Decorate a function whose last parameter takes the settings of `kind`, a `TypedDict` of the settings.

    Its signature names each setting with its type and default, and its docstring says what each one means.
    """

    def decorate(function: F) -> F:
        own = inspect.signature(function)
        named = [each for each in own.parameters.values() if each.kind != inspect.Parameter.VAR_KEYWORD]
        known, defaults = _known(), _defaults()
        names = [name for name in known if name in kind.__annotations__]
        more = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=defaults[name],
                annotation=known[name][0] + (" | None" if defaults[name] is None else ""),
            )
            for name in names
        ]
        # An attribute of functions that typing does not declare; `inspect.signature` and `help` read it.
        vars(function)["__signature__"] = own.replace(parameters=[*named, *more])
        lines = [fill(f"{name}: {known[name][1]}", 110, subsequent_indent="    ") for name in names]
        said = "\n".join(f"    {line}" for text in lines for line in text.splitlines())
        function.__doc__ = f"{inspect.cleandoc(function.__doc__ or '')}\n\nSettings:\n{said}\n"
        return function

    return decorate


@cache
def _known() -> dict[str, tuple[str, str]]:
    """Return the type and the meaning of each setting by name, as they are written in `settings`."""
    # A meaning is a text behind the field, which Python does not keep; so it is read from the file.
    tree = ast.parse(Path(settings.__file__).read_text(encoding="utf-8"))
    found = {}
    for each in tree.body:
        if isinstance(each, ast.ClassDef) and each.name in ("Settings", "Choices", "RunSettings", "PolygonSettings"):
            for line, text in zip(each.body, each.body[1:], strict=False):
                if isinstance(line, ast.AnnAssign) and isinstance(text, ast.Expr):
                    assert isinstance(line.target, ast.Name)
                    assert isinstance(text.value, ast.Constant)
                    meaning = " ".join(str(text.value.value).split())
                    found[line.target.id] = (ast.unparse(line.annotation), meaning)
    return found


def _defaults() -> dict[str, object]:
    """Return the default of each setting; None stands for a default that depends on the image or the model."""
    request = {each.name: each.default for each in fields(settings.Request)}
    drawn = {each.name: each.default for each in fields(VectorOptions)}
    return {**request, **drawn, "of": request["products"]}
