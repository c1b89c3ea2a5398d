"""The cache: what was kept comes back, and what somebody else has planted is not believed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from tilepipe import cache
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


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file that counts as large, and was changed long ago; the clock stands."""
    monkeypatch.setenv("TILEPIPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "LARGE", 4)
    path = tmp_path / "weights"
    path.write_bytes(b"12345678")
    monkeypatch.setattr("tilepipe.cache.time.time_ns", lambda: path.stat().st_ctime_ns + cache.SETTLED + 1)
    return path


def test_the_hash_of_a_large_file_is_taken_once(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = hashlib.sha256(b"12345678").hexdigest()
    assert cache.file_sha256(large) == right
    monkeypatch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("it is read again"))
    assert cache.file_sha256(large) == right


@pytest.mark.parametrize("how", ["in place", "time set back", "another file", "young", "planted"])
def test_the_hash_is_that_of_the_content(large: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "young":
        monkeypatch.setattr("tilepipe.cache.time.time_ns", lambda: large.stat().st_ctime_ns + 1)
    cache.file_sha256(large)
    known = large.stat()
    if how == "young":
        assert not (large.parent / "cache").exists()
    elif how == "planted":
        (entry,) = (large.parent / "cache").iterdir()
        entry.chmod(0o666)
        entry.write_text(entry.read_text().replace('sha256\\": \\"', 'sha256\\": \\"0'))
    if how == "another file":
        (large.parent / "new").write_bytes(b"12345679")
        os.utime(large.parent / "new", ns=(known.st_atime_ns, known.st_mtime_ns))
        os.replace(large.parent / "new", large)
    elif how != "planted":
        large.write_bytes(b"12345679")
        if how == "time set back":
            os.utime(large, ns=(known.st_atime_ns, known.st_mtime_ns))
    assert cache.file_sha256(large) == hashlib.sha256(large.read_bytes()).hexdigest()
