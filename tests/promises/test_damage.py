"""Whatever is damaged in a stopped or finished run: it is noticed, or labels are the same. Never wrong in silence."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from helpers.fakes import global_model
from helpers.small_runs import StopError, stop_at

import tilepipe as tp
from tilepipe.box import Box
from tilepipe.errors import TilepipeError
from tilepipe.products.labels import open_map
from tilepipe.testing import noise, random_unet

IMAGE = noise(150, 170)
SETTINGS: dict[str, dict[str, Any]] = {
    "hann": {"tile": 48, "overlap": 24, "block": 48, "window_shape": "hann", "layers": "margin"},
    "crop": {"tile": 64, "overlap": 24, "block": 40, "window_shape": "crop", "of": ["cog", "ome-zarr"]},
    "field": {"tile": 64, "block": 64, "statistics": "field"},
    "whole": {"tile": 64, "block": 64, "statistics": "whole"},
}


def segment(folder: Path, kind: str, listener: Any = lambda event: None) -> Any:
    model = global_model("squeeze") if kind in ("field", "whole") else random_unet(depth=1)
    return tp.segment(IMAGE, model, folder / "out.tif", listener=listener, **SETTINGS[kind])


def flip(file: Path, rng: random.Random) -> None:
    content = bytearray(file.read_bytes() or b"\0")  # an empty file gets a byte
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(content)


def digit(file: Path, rng: random.Random) -> None:
    """Another digit in a text: what no parser minds."""
    content = bytearray(file.read_bytes())
    places = [k for k, byte in enumerate(content) if 48 <= byte < 58]
    if not places:
        return flip(file, rng)
    k = rng.choice(places)
    content[k] = 48 + (content[k] - 48 + rng.randrange(1, 10)) % 10
    file.write_bytes(content)


def cut(file: Path, rng: random.Random) -> None:
    file.write_bytes(file.read_bytes()[: rng.randrange(max(1, file.stat().st_size))])


def remove(file: Path, rng: random.Random) -> None:
    file.unlink()


def zeros(file: Path, rng: random.Random) -> None:
    file.write_bytes(file.read_bytes() + bytes(rng.randrange(1, 5000)))


def lines(file: Path, rng: random.Random) -> None:
    """Lines removed, doubled and in another order."""
    found = file.read_bytes().splitlines(keepends=True)
    if not found:
        return flip(file, rng)
    file.write_bytes(b"".join(rng.choices(found, k=rng.randrange(1, 2 * len(found)))))


def swap(file: Path, rng: random.Random) -> None:
    """Changes places with a file of the same name or the same size."""
    top = next(folder for folder in file.parents if folder.name.endswith(".tilepipe"))
    like = [other for other in top.rglob("*") if other.is_file() and other != file and other.suffix == file.suffix]
    if not like:
        return flip(file, rng)
    other = rng.choice(like)
    mine, theirs = file.read_bytes(), other.read_bytes()
    file.write_bytes(theirs)
    other.write_bytes(mine)


DAMAGES: list[Callable[[Path, random.Random], None]] = [flip, flip, digit, digit, cut, remove, zeros, lines, swap]


def small_files_first(files: list[Path], rng: random.Random) -> Path:
    """Return a file; ledgers, plans and records as often as all chunks together."""
    texts = [file for file in files if file.suffix in (".json", ".jsonl") and file.name != "zarr.json"]
    return rng.choice(texts if texts and rng.random() < 0.5 else files)


def labels(result: Any) -> dict[str, bytes]:
    maps = {path.name: open_map(path) for path in result.paths}
    return {name: kept.read(Box.of_shape(*kept.shape)).tobytes() for name, kept in maps.items()}


def outcome(folder: Path, kind: str, truth: dict[str, bytes], rng: random.Random) -> tuple[str, str]:
    """Damage a file of a stopped (one time in four: finished) run, give the command again; twice if refused."""
    count = {"field": 4, "whole": 4}.get(kind, 9)
    with suppress(StopError):
        segment(folder, kind, stop_at("predict", rng.randrange(1, count)) if rng.random() < 0.75 else lambda e: None)
    files = sorted(file for file in (folder / ".out.tif.tilepipe").rglob("*") if file.is_file())
    file, damage = small_files_first(files, rng), rng.choice(DAMAGES)
    what = f"{damage.__name__} {file.relative_to(folder / '.out.tif.tilepipe').parts[1:]}"
    damage(file, rng)
    said: list[str] = []
    for _ in range(2):
        try:
            found = labels(segment(folder, kind, lambda event: said.append(event.message)))
        except TilepipeError as error:
            if error.exit_code != 6 and "exists" not in str(error):
                return f"exit {error.exit_code}", f"{what}: {error}"
            continue
        return ("same" if found == truth else "WRONG"), what
    return "refused", what


@pytest.fixture(scope="module")
def truths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    found = {}
    for kind in SETTINGS:
        folder = tmp_path_factory.mktemp(kind)
        found[kind] = labels(segment(folder, kind))
    return found


def drawn(count: int, seed: int, truths: dict[str, dict[str, bytes]], folder: Path) -> Counter[str]:
    rng, found = random.Random(seed), Counter[str]()
    for k in range(count):
        kind = sorted(SETTINGS)[k % len(SETTINGS)]
        place = folder / str(k)
        place.mkdir()
        result, what = outcome(place, kind, truths[kind], rng)
        assert result in ("same", "refused"), (k, kind, result, what)
        found[result] += 1
        shutil.rmtree(place)
    return found


@pytest.mark.long
def test_a_few_damages(truths: dict[str, dict[str, bytes]], tmp_path: Path) -> None:
    assert drawn(6, 1, truths, tmp_path)["same"] >= 4


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_200_damages(truths: dict[str, dict[str, bytes]], tmp_path: Path) -> None:
    found = drawn(200, 2026, truths, tmp_path)
    assert found["same"] >= 180, found
