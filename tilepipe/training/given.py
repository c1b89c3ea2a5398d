"""This module takes what a configuration in Python may hold beside texts and numbers: arrays, and functions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

from tilepipe.models.contents import hash_of
from tilepipe.sources.foreign import is_array


def is_path(value: object) -> bool:
    """Return whether an image or labels are named by a path; if not, they are an array."""
    return isinstance(value, str | Path)


def _path_or_array(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, str) or is_array(value):
        return value
    raise ValueError(f"a {type(value).__name__} is no image; give a path, or an array of numpy, dask, torch or xarray")


def _function(value: object) -> object:
    if not callable(value) or isinstance(value, type):
        raise ValueError(f"a {type(value).__name__} is no function")
    return value


def _words(value: Any) -> str:
    """Return what a record keeps of an array: its shape. Its pixels are identified when they are read."""
    return value if isinstance(value, str) else f"array {tuple(value.shape)}"


def _name_and_code(value: Any) -> str:
    """Return what a record keeps of a function: its name, and a hash of its code and of what it uses."""
    return f"{getattr(value, '__qualname__', type(value).__name__)} {hash_of(value)[:16]}"


PathOrArray = Annotated[Any, BeforeValidator(_path_or_array), PlainSerializer(_words, return_type=str)]
"""A path as text, or an array."""
Function = Annotated[Callable[..., Any], BeforeValidator(_function), PlainSerializer(_name_and_code, return_type=str)]
"""A function of the caller's."""
