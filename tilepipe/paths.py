"""This module checks paths that a user names: no pipe or device is read as a file, no output overwrites an input."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from tilepipe.errors import InputError, TilepipeError, UsageError
from tilepipe.text import setting

_WORK = ".tilepipe"
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def refuse_special(path: str | Path, error: type[TilepipeError] = InputError) -> None:
    """Raise `error` if `path` is a pipe, a socket or a device; opening one could wait for ever.

    Nothing is opened. A path that does not exist passes, since opening it raises an error later.
    """
    try:
        # A zero byte in a path raises a ValueError and no OSError.
        kind = stat.S_IFMT(os.stat(path).st_mode)
    except (OSError, ValueError):
        return
    if kind in _KINDS:
        raise error(f"{path} is {_KINDS[kind]} and no file; copy its content into a file and name that")


def is_remote(what: object) -> bool:
    """Return whether `what` names a file by an address, or by a virtual file system of GDAL."""
    return isinstance(what, str | Path) and ("://" in str(what) or str(what).startswith("/vsi"))


def refuse_remote(index: str | Path, name: str, error: type[TilepipeError] = InputError) -> None:
    """Raise `error` if the file or list `index` names an image on a server: a user names such images himself."""
    if is_remote(name):
        raise error(
            f"{index} names {without_secrets(name)[:120]}, which is not on this machine; only an address that you type "
            "is asked for an image. Download it, or give it alone: tilepipe segment ADDRESS -m MODEL"
        )


def without_secrets(name: str) -> str:
    """Return an address without user, password and query, for messages."""
    scheme, found, rest = name.partition("://")
    return scheme + found + re.sub(r"^[^/]*@", "", rest).split("?")[0].split("#")[0] if found else name


def refuse_inputs(outputs: Iterable[str | Path], inputs: Iterable[str | Path]) -> None:
    """Raise `UsageError` if an output is also an input, holds an input, or lies inside an input.

    Links are followed; hard links and other spellings of a name are recognised.
    """
    read = [Path(os.path.realpath(path)) for path in inputs]
    folders = {path for path in read if path.is_dir()}
    within = {above: path for path in read for above in (path, *path.parents)}
    # A hard link has another path, which `realpath` cannot see through, but the same inode.
    same = {number: path for path in read if (number := _inode(path))}
    for output in outputs:
        real = Path(os.path.realpath(output))
        number = _inode(real)
        found = within.get(real) or (same.get(number) if number else None)
        if found is None and folders.intersection(real.parents):
            found = next(path for path in real.parents if path in folders)
        if found is not None:
            raise UsageError(f"{output} would be written over {found}, which is read; give another output")


def work_directory(output: Path) -> Path:
    """Return the work directory of an output's run: `.OUTPUT.tilepipe` beside the output."""
    return output.with_name(f".{output.name}{_WORK}")


def is_work(path: Path) -> bool:
    """Return whether a path lies in a work directory, or is a lock file."""
    return any(part.startswith(".") and part.endswith((_WORK, ".lock")) for part in path.parts)


def lock_of(output: Path) -> Path:
    """Return the file that a process locks while it writes an output."""
    return output.with_name(f".{output.name}.lock")


def output_of_run(path: str | Path) -> Path | None:
    """Return the output of a run if `path` is its work directory or lies in it; None if it does not.

    Only names are compared; nothing is opened.
    """
    absolute = Path(os.path.abspath(path))
    for folder in (absolute, *absolute.parents):
        # A folder that is called `.tilepipe` alone belongs to no output.
        if folder.name.startswith(".") and folder.name.endswith(_WORK) and folder.name != _WORK:
            output = folder.with_name(folder.name.removeprefix(".").removesuffix(_WORK))
            return output if Path(path).is_absolute() else Path(os.path.relpath(output))
    return None


def refuse_no_path(path: object) -> None:
    """Raise `UsageError` for an object that is no path."""
    if not isinstance(path, str | os.PathLike):
        raise UsageError(f"a {type(path).__name__} is no path; give the path of a file as a text or a pathlib.Path")


def given_path(path: str | Path) -> Path:
    """Return a path that a user gave. Raises `UsageError` for an object that is no path, and for a folder's dots."""
    refuse_no_path(path)
    found = Path(path)
    if not found.name:
        raise UsageError(f"{str(path)!r} names no file; add the name of one")
    return found


def labels_file(path: str | Path) -> Path:
    """Return the output of a run if `path` is the run's work directory, else `path` unchanged.

    Raises `InputError` if the run has not written its output, and `UsageError` for an object that is no path.
    """
    refuse_no_path(path)
    output = output_of_run(path) if os.path.isdir(path) else None
    if output is not None and not output.exists():
        raise InputError(
            f"{path} is the work directory of a run, and its output {output} is not there; if it has not finished, "
            "give the command of the run again, it goes on; else name the labels where they are"
        )
    return Path(path) if output is None else output


def files_in(path: str | Path) -> Iterator[Path]:
    """Yield the file `path`, or the files in the folder `path`; yield nothing if `path` does not exist."""
    if os.path.isdir(path):
        yield from (Path(entry.path) for entry in os.scandir(path))
    elif os.path.exists(path):
        yield Path(path)


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def refuse_place(path: Path, *, overwrite: bool) -> None:
    """Raise `UsageError` if a page or a picture cannot be written: it exists, or its folder does not."""
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists; use {setting(overwrite=True)} or another name")
    if not path.parent.is_dir():
        raise UsageError(f"folder {path.parent} does not exist; make it first")
