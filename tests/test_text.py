"""Text of others: what a terminal would obey is made visible, damaged YAML and JSON end in a sentence."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, ValidationError

from tilepipe.text import (
    clean,
    clean_line,
    csv_cell,
    duration,
    json_of,
    kind_of,
    missing,
    read_yaml,
    setting,
    with_options,
    wrong_value,
    yaml_of,
)

OBEYED = ["\x1b[31m", "\x1b]0;title\x07", "\x1b]8;;http://x\x1b\\", "\x9b2J", "\r", "\x00", "\x7f", "\u202e", "\u2066"]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@a", "\t=1", "  =1", "=HYPERLINK('x')"])
def test_no_cell_of_a_table_is_a_formula(text: str) -> None:
    assert str(csv_cell(text)).startswith("'")


def test_other_cells_of_a_table_stay_as_they_are() -> None:
    assert [csv_cell(value) for value in ("a=1", "", -1, 2.5, None)] == ["a=1", "", -1, 2.5, ""]


@pytest.mark.parametrize("text", OBEYED)
def test_what_a_terminal_obeys_becomes_visible(text: str) -> None:
    assert text[0] not in clean(f"a{text}b")
    assert f"\\u{ord(text[0]):04x}" in clean(text)


@given(st.text())
def test_no_control_character_is_left_and_all_else_stays(text: str) -> None:
    found = clean(text)
    assert all(c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs") for c in found)
    assert clean(found) == found
    assert "\n" not in clean_line(text)
    if all(unicodedata.category(c)[0] in "LNPSM" or c == " " for c in text):
        assert found == text
    json.loads(clean(json.dumps({"a": text}, ensure_ascii=False)))


def test_deep_nesting_is_damage() -> None:
    with pytest.raises(ValueError, match="deep"):
        json_of("[" * 200_000)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"a: [" + b"[" * 5000, "is not YAML: it is nested too deeply"),
        (b"a: \xff\xfe", "UTF-8"),
        (b"a: \x00", "is not YAML"),
        (b"a: 2024-99-99", "is not YAML"),
        (b"a: !!python/object/apply:os.system [ls]", "is not YAML"),
        (b"a:\n\t- b", "line 2"),
    ],
)
def test_a_yaml_file_that_is_none(content: bytes, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=sentence) as error:
        read_yaml(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_byte_order_mark_is_no_part_of_a_key(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbfimages: a\r\n")
    assert read_yaml(tmp_path / "a.yaml") == {"images": "a"}


def test_a_missing_path_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "Scene_1.tif").touch()
    assert f"did you mean {tmp_path / 'Scene_1.tif'}?" in missing(tmp_path / "scene_l.tif")
    assert f"there is no folder {tmp_path / 'no'}" in missing(tmp_path / "no" / "a.tif")
    assert "characters" in missing("x" * 5000)


@pytest.mark.parametrize(
    ("there", "asked"), [("lines.geojson", "nope.geojson"), ("sure.tif", "nope.tif"), ("b.tif", "a.tif")]
)
def test_the_same_ending_makes_no_neighbour(there: str, asked: str, tmp_path: Path) -> None:
    (tmp_path / there).touch()
    assert "did you mean" not in missing(tmp_path / asked)


@pytest.mark.parametrize(("there", "asked"), [("scene.tif", "scene.tiff"), ("scene.tif", "scene"), ("a.tif", "A.tif2")])
def test_another_ending_leaves_a_neighbour(there: str, asked: str, tmp_path: Path) -> None:
    (tmp_path / there).touch()
    assert f"did you mean {tmp_path / there}?" in missing(tmp_path / asked)


def test_commands_know_each_others_files() -> None:
    assert kind_of({"images": [], "model": "m"}) == "batch run"
    assert kind_of({"name": "n", "train": [], "classes": []}) == "train"
    assert kind_of({"name": "n", "mechanisms": {}, "sets": {}}) == "compare"
    assert kind_of({"model": "m"}) == ""


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({}, "images is missing"),
        ({"images": 5}, "images needs a list, like [a, b]; it is 5"),
        ({"images": ["a"], "scale": "big"}, "scale needs a number; it is 'big'"),
        ({"images": ["a"], "steps": 1.5}, "steps needs a whole number; it is 1.5"),
        ({"images": ["a"], "flip": "maybe"}, "flip needs true or false; it is 'maybe'"),
        ({"images": ["a"], "name": 5}, "name needs text, in quotes if it looks like a number; it is 5"),
        ({"images": ["a"], "parts": "x"}, "parts needs keys with values, like {a: 1}; it is 'x'"),
        ({"images": ["a"], "steps": 0}, "steps: Input should be greater than or equal to 1"),
        ({"images": ["a"], "name": ["x" * 300]}, "xxx..."),
    ],
)
def test_what_a_value_of_a_settings_file_needs(fields: dict[str, object], sentence: str) -> None:
    class File(BaseModel):
        images: tuple[str, ...]
        scale: float = 1
        steps: int = Field(default=1, ge=1)
        flip: bool = True
        name: str = ""
        parts: dict[str, int] = {}

    with pytest.raises(ValidationError) as error:
        File(**fields)  # type: ignore[arg-type]
    assert wrong_value(error.value.errors()[0]).endswith(sentence)


OPTIONS = {"bands": "--bands", "mask": "--mask", "values": "--values", "arch": "--arch", "overwrite": "--overwrite"}
SETTINGS = [
    ({"bands": [1, 2, 3], "mask": "none"}, "--bands 1,2,3 --mask none"),
    ({"mask": "value:-9999"}, "--mask value:-9999"),
    ({"mask": "a b's.geojson"}, """--mask 'a b'"'"'s.geojson'"""),
    ({"values": {0: 0, 255: 1}}, "--values 0:0,255:1"),
    ({"arch": "{name: unet, width: 16}"}, "--arch '{name: unet, width: 16}'"),
    ({"overwrite": True}, "--overwrite"),
]


@pytest.mark.parametrize(("values", "options"), SETTINGS, ids=str)
def test_settings_in_a_message_are_shown_as_its_reader_types_them(values: dict[str, object], options: str) -> None:
    """In Python, on the command line and in a YAML file: Python and YAML themselves read them back."""
    message = f"give {setting(**values)} or fewer `workers`"
    typed = message.removeprefix("give `").removesuffix("` or fewer `workers`")
    assert eval(f"dict({typed})") == values
    assert with_options(message, OPTIONS | {"workers": "--workers"}) == f"give {options} or fewer --workers"
    in_file = with_options(message, {}).removeprefix("give `").removesuffix("` or fewer `workers`")
    assert yaml_of("{" + in_file + "}") == values


@pytest.mark.parametrize(
    "text", ["`forward`", "`x.isel(time=0)`", "`a=b`", "`a=" + "(" * 5000 + "`", "`a=__import__('os')`", "``", "`a b`"]
)
def test_what_is_no_setting_stays(text: str) -> None:
    assert with_options(text, {"a": "--a"}) == text


@given(st.text())
def test_any_text_can_be_shown(text: str) -> None:
    assert with_options(text, {}) == text or "`" in text


@pytest.mark.parametrize(("seconds", "words"), [(0, "0 s"), (89, "89 s"), (600, "10 min"), (11_100, "3 h 05 min")])
def test_durations_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words
