from __future__ import annotations

from pathlib import Path

import pytest

from tilepipe.cache import cache_directory, keep, recall
from tilepipe.errors import StorageError
from tilepipe.storage import read_json, write_json, write_new


def test_directory_is_what_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEPIPE_CACHE", str(tmp_path / "own"))
    assert cache_directory() == tmp_path / "own"
    monkeypatch.setenv("TILEPIPE_CACHE", "")
    assert cache_directory() is None
    monkeypatch.delenv("TILEPIPE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_directory() == tmp_path / "tilepipe"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory() == tmp_path / ".cache" / "tilepipe"


def test_texts_are_kept_and_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "deep"
    assert recall("a.json", folder) is None
    keep("a.json", "one", folder)
    keep("a.json", "two: ä", folder)
    assert recall("a.json", folder) == "two: ä"
    assert [path.name for path in folder.iterdir()] == ["a.json"]


def test_what_cannot_be_kept_or_read_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\xff\xfe")
    keep("a.json", "text", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"\xff\xfe"
    assert recall("file", tmp_path) is None
    keep("a.json", "text", None)
    assert recall("a.json", None) is None


@pytest.mark.parametrize("bit", range(0, 300, 7))
def test_a_flipped_bit_is_never_read(bit: int, tmp_path: Path) -> None:
    keep("a.json", '{"halo": 16, "stride": 8}', tmp_path)
    file = tmp_path / "a.json"
    content = bytearray(file.read_bytes())
    content[bit // 8 % len(content)] ^= 1 << bit % 8
    file.write_bytes(content)
    assert recall("a.json", tmp_path) in (None, '{"halo": 16, "stride": 8}')


def test_a_new_file_never_replaces_one(tmp_path: Path) -> None:
    write_new(tmp_path / "a", "one")
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "a", "two")
    assert (tmp_path / "a").read_text() == "one"
    with pytest.raises(StorageError):
        write_new(tmp_path / "none" / "a", "one")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_copy_of_another_file_is_damage(tmp_path: Path) -> None:
    write_json(tmp_path / "plan.json", {"tile": 512})
    assert read_json(tmp_path / "plan.json") == {"tile": 512}
    (tmp_path / "run.json").write_bytes((tmp_path / "plan.json").read_bytes())
    with pytest.raises(StorageError, match="is not what tilepipe wrote there"):
        read_json(tmp_path / "run.json")
