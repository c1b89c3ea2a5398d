"""This module shows and reads text that others wrote: names of files and classes, tags, errors of libraries.

A terminal obeys escape characters, and XML may not hold them. So text that is printed, or written into XML or HTML,
goes through `clean` first. YAML and JSON that nest too deeply, or are no text, end in one `ValueError`, as damaged YAML
and JSON do.
"""

from __future__ import annotations

import ast
import difflib
import json
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # these are controls but tab and line feed: escapes, bells, carriage returns
    "\u2028\u2029"  # these are line separators
    "\u202a-\u202e\u2066-\u2069"  # these turn the direction of the text that follows
    "\ud800-\udfff\ufffe\uffff]"  # these are halves of characters (file names that are no UTF-8), and no characters
)
JSON: TypeAlias = dict[str, Any]
"""A JSON object; the code that reads it checks the values."""
SETTING = re.compile(r"`([a-z_]+(?:=[^`]*)?)`")
"""Settings in a message, as `setting` writes them, or a setting's name alone."""
_USER = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*://)[^/\s@\"']+@")
"""The user, and the password if there is one, in an address."""
LONGEST_NAME = 200
"""Largest number of characters of a name that was not found; a longer name would fill the whole message."""


def redacted(text: str) -> str:
    """Return text in which the user and password of addresses are stars: 'tls://***@host'."""
    return _USER.sub(r"\1***@", text)


def clean(text: object) -> str:
    """Return text without characters that a terminal obeys or XML forbids: each becomes visible, as in \\u001b.

    Tabs and line feeds stay. JSON stays JSON. Passwords in addresses become stars.
    """
    return UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", redacted(str(text)))


def clean_line(text: object) -> str:
    """Return text as one clean line: line feeds become visible too."""
    return clean(text).replace("\n", "\\u000a").replace("\t", " ")


FORMULA = ("=", "+", "-", "@")
"""Beginnings of a text that a spreadsheet takes for a formula."""


def csv_cell(value: object) -> object:
    """Return the content of a CSV cell: an empty cell for None, and a text that no spreadsheet takes for a formula.

    A text that begins like a formula gets an apostrophe before it. Numbers stay numbers.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        return value
    text = clean_line(value)
    return f"'{text}" if text.lstrip().startswith(FORMULA) else text


def comma_list(text: str) -> tuple[str, ...]:
    """Return the words of a text that has commas between them."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "'word' is unknown" with the nearest known word, for messages."""
    # Sorted, so that a message is the same each time: `known` may be a set.
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1)
    return f"{word!r} is unknown; " + (f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}")


def alike(name: str, known: Iterable[str]) -> str | None:
    """Return the file name most like `name`, None if no name is alike; an equal ending is not enough."""
    folded = {other.casefold(): other for other in known}
    stem, near = PurePath(name.casefold()).stem, {PurePath(other).stem for other in folded}
    stems = set(difflib.get_close_matches(stem, near, n=len(near) or 1))
    of_these = [other for other in folded if PurePath(other).stem in stems]
    close = difflib.get_close_matches(name.casefold(), of_these, n=1)
    return folded[close[0]] if close else None


def missing(path: str | Path) -> str:
    """Return "path does not exist", with the existing file or folder of the nearest name, for messages."""
    path = Path(path)
    if len(str(path)) > LONGEST_NAME:
        return f"{str(path)[:LONGEST_NAME]}... does not exist; its name has {len(str(path))} characters"
    folder = path.parent
    if not folder.is_dir():
        there = next((above for above in folder.parents if above.is_dir()), None)
        return f"{path} does not exist: there is no folder {folder}" + (
            f" ({there.absolute()} is there)" if there else ""
        )
    try:
        # A folder may hold a million files, and the name is compared with each.
        names = [entry.name for entry in folder.iterdir()][:10_000]
    except OSError:
        names = []
    if close := alike(path.name, (name for name in names if not name.startswith("."))):
        return f"{path} does not exist; did you mean {folder / close}?"
    return f"{path} does not exist; check the name, it is looked for in {folder.absolute()}"


def crs_name(wkt: str) -> str:
    """Return the name of a CRS in its WKT, like 'WGS 84 / UTM zone 45N'; the text itself if it is no WKT."""
    found = re.match(r'[A-Z]+\["([^"]+)"', wkt)
    return found[1] if found else wkt


def size_text(size: int) -> str:
    """Return the size of a file, like '820 B', '12 KiB' or '3.4 GiB'."""
    for k, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if size >= 1 << 10 * k:
            number = size / (1 << 10 * k)
            return f"{number:.{0 if number >= 10 else 1}f} {unit}"
    return f"{size} B"


def duration(seconds: float) -> str:
    """Return a time in words: '40 s', '12 min', '3 h 05 min'."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"


def setting(**values: object) -> str:
    """Return settings as they are typed in Python, for messages: "`bands=[1, 2], mask='none'`".

    The code that shows the message may change the settings to what its reader types (see `with_options`). A setting
    without a value stands in a message as its name, like `workers`.
    """
    return "`" + ", ".join(f"{name}={value!r}" for name, value in values.items()) + "`"


def with_options(text: str, options: Mapping[str, str]) -> str:
    """Return a message for a user who types options: `bands=[1, 2], mask='none'` becomes --bands 1,2 --mask none.

    `options` are the options of the command, by setting. A setting that is no option stands in a file of the command:
    `bands: [1, 2], mask: none`.
    """

    def typed(found: re.Match[str]) -> str:
        try:
            # Parsing runs nothing of the text, which may come from a file or a library.
            call = ast.parse(f"f({found[1]})", mode="eval").body
            assert isinstance(call, ast.Call)
            named = {word.arg: ast.literal_eval(word.value) for word in call.keywords}
            named |= {word.id: None for word in call.args if isinstance(word, ast.Name)}
        except (SyntaxError, ValueError, RecursionError, MemoryError):  # messages of others may hold backticks too
            return found[0]
        if all(name in options for name in named):
            return " ".join(_option(options[str(name)], value) for name, value in named.items())
        if None in named.values():
            return found[0]
        import yaml  # most commands read and write no YAML

        # The great width keeps PyYAML from breaking the line.
        return f"`{yaml.safe_dump(named, default_flow_style=True, sort_keys=False, width=1 << 20).strip()[1:-1]}`"

    return SETTING.sub(typed, text)


def _option(option: str, value: object) -> str:
    """Return an option and its value as a shell takes them; None, True and the False of --no-X need no value."""
    if value is None or value is True or (value is False and option[2:].startswith("no-")):
        return option
    if isinstance(value, dict):
        value = ",".join(f"{key}:{of}" for key, of in value.items())
    elif isinstance(value, list):
        value = ",".join(map(str, value))
    return f"{option} {shlex.quote(str(value))}"


NEEDED = {
    "missing": "is missing",
    "tuple": "needs a list, like [a, b]",
    "list": "needs a list, like [a, b]",
    "dict": "needs keys with values, like {a: 1}",
    "model": "needs keys with values, like {a: 1}",
    "int": "needs a whole number",
    "float": "needs a number",
    "finite": "needs a number",
    "string": "needs text, in quotes if it looks like a number",
    "bool": "needs true or false",
}
"""Words that say what a value needs, by the first word of pydantic's name for the error."""


def wrong_value(problem: ErrorDetails) -> str:
    """Return what is wrong with a value in a file of settings, and what it needs, from one of pydantic's errors."""
    said = str(problem["msg"]).removeprefix("Value error, ")
    where, kind = ".".join(str(part) for part in problem["loc"]), str(problem["type"]).split("_")[0]
    if kind not in NEEDED:
        return f"{where}: {said}" if where else said
    needed, given = NEEDED[kind], clean_line(repr(problem["input"]))
    if kind == "missing":
        return f"{where} {needed}"
    return f"{where or 'it'} {needed}; it is {given if len(given) < LONGEST_NAME else given[:LONGEST_NAME] + '...'}"


def json_of(text: str | bytes) -> Any:
    """Parse JSON. Raises `ValueError`, also if the JSON is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def yaml_of(text: str) -> Any:
    """Parse YAML without running anything that it names. Raises `ValueError` with one line that gives the place."""
    import yaml

    try:
        return yaml.safe_load(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError comes from 2024-99-99, which is taken for a date
        raise ValueError(" ".join(str(error).split())) from None


KEYS = {"batch run": ("images", "output", "settings"), "train": ("train", "classes"), "compare": ("mechanisms", "sets")}
"""Keys that tell the YAML files of the commands apart."""


def kind_of(fields: JSON) -> str:
    """Return the command whose YAML file this is, by its keys; '' if they fit none or several."""
    found = {command: sum(key in fields for key in keys) for command, keys in KEYS.items()}
    best = max(found, key=lambda command: found[command])
    return best if found[best] and list(found.values()).count(found[best]) == 1 else ""


def read_yaml(path: str | Path, prepare: Callable[[str], str] = str) -> Any:
    """Read a YAML file whose text `prepare` may change. Raises `ValueError` with a sentence that names the file."""
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name the YAML file in it")
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is no plain file; name a YAML file")
    try:
        # Editors on Windows may put a byte order mark first.
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ValueError(missing(path)) from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}; check its permissions") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no text in UTF-8, so no YAML; save it as UTF-8, or name another file") from None
    try:
        return yaml_of(prepare(text))
    except ValueError as error:
        raise ValueError(f"{path} is not YAML: {error}") from None


def table_lines(rows: Sequence[Sequence[str]], gap: str = "  ") -> list[str]:
    """Return the rows of a table as lines of text: the first column on the left, the others on the right."""
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        gap.join([row[0].ljust(wide[0]), *(cell.rjust(w) for cell, w in zip(row[1:], wide[1:], strict=True))]).rstrip()
        for row in rows
    ]
