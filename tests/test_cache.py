"""The cache: what was kept comes back, and what somebody else has planted is not believed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tilepipe.cache import keep, recall


def test_what_was_kept_comes_back(tmp_path: Path) -> None:
    keep("a", "text", tmp_path)
    assert recall("a", tmp_path) == "text"
    assert recall("b", tmp_path) is None
    assert recall("a", None) is None


@pytest.mark.parametrize("how", ["owner", "group writes", "others write", "link", "other name", "pipe", "bit"])
def test_a_planted_entry_is_not_believed(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keep("a", "reach 0", tmp_path)
    path = tmp_path / "a"
    name = "a"
    if how == "owner":
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
        if os.getuid() == 0:
            os.chown(path, 54321, -1)
    elif how in ("group writes", "others write"):
        path.chmod(0o660 if how == "group writes" else 0o606)
    elif how == "link":
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    elif how == "other name":
        path.rename(tmp_path / "b")
        name = "b"
    elif how == "pipe":
        path.unlink()
        os.mkfifo(path)
    else:
        path.write_bytes(path.read_bytes().replace(b"reach 0", b"reach 1"))
    assert recall(name, tmp_path) is None
    path.unlink(missing_ok=True)
    keep(name, "measured", tmp_path)
    monkeypatch.undo()
    assert recall(name, tmp_path) == "measured"
