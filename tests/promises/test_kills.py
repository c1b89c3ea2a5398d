"""Two products, killed twice at drawn moments while an older pair is replaced: both are whole, and in the end both new.

In the pair "bands" labels are computed in bands of rows: a run that goes on begins its passes below the top, and ends
with the bytes of a run that nobody stopped. In the pair "since" a part of the image has changed, and the rest is taken
from the very labels that are replaced.

A moment is a call that changes the disk: an fsync or a rename. So every order of them that a kill can leave is drawn.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.banded_runs import banded_job, small_bands

import tilepipe as tp
from tilepipe.execution import publish
from tilepipe.sources.array import ArraySource
from tilepipe.testing import codes_model, noise, random_unet

OLD, NEW = 1, 2
PAIRS = {
    "files": ["cog", "geojson"],
    "folder": ["ome-zarr", "cog"],
    "bands": ["cog", "geojson"],
    "since": ["cog", "geojson"],
}
NAMES = {"cog": "out.tif", "geojson": "out.geojson", "ome-zarr": "out.ome.zarr"}


def segment(folder: Path, pair: str, seed: int = NEW) -> None:
    output = folder / NAMES[PAIRS[pair][0]]
    image = noise(60, 90, bands=1, seed=seed if pair != "since" else OLD)
    if pair != "bands":
        codes = image.read(tp.Box(0, 0, 60, 90)) % 4
        cut: Any = {"tile": 32, "overlap": 8, "block": 40 if pair != "since" else 1, "overwrite": True}
        if pair == "since":
            codes[:, 50:, 80:] = seed
            cut["since"] = output if output.exists() else None
        tp.segment(ArraySource(codes), codes_model(4), output, of=PAIRS[pair], **cut)
        return
    with pytest.MonkeyPatch.context() as patch:
        small_bands(patch, height=4, kept=32)
        model = random_unet(bands=1, classes=4, depth=1)
        assert len(list(banded_job(image, model).plan.blocks())) >= 6
        tp.segment(image, model, output, of=PAIRS[pair], overwrite=True, device="cpu")


def counted(act: Callable[[int], None]) -> None:
    """Call `act` with a running number before each fsync and each rename."""
    count = 0

    def before(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            nonlocal count
            count += 1
            act(count)
            return real(*given)

        return call

    os.fsync, os.replace, os.rename = before(os.fsync), before(os.replace), before(os.rename)
    publish.rename2 = before(publish.rename2)


def work(folder: Path, pair: str, moment: int) -> None:
    """What the child does: the run, killed at the moment of that number."""
    counted(lambda count: os.kill(os.getpid(), signal.SIGKILL) if count == moment else None)
    segment(folder, pair)


def count(folder: Path, pair: str, counts: Any) -> None:
    """Put into `counts` how many moments there are, and at which the first product is put in place."""
    moments = []
    counted(moments.append)
    real, first = publish._replace, []

    def replace(*paths: Path) -> None:
        first.append(len(moments))
        real(*paths)

    publish._replace = replace
    segment(folder, pair)
    counts.put((len(moments), first[0]))


def digest(path: Path) -> str:
    """Return the hash of a product's pixels or text; '' where there is nothing."""
    if not path.exists():
        return ""
    content = path.read_bytes() if path.suffix == ".geojson" else np.asarray(tp.open_labels(path)).tobytes()
    return hashlib.sha256(content).hexdigest()


def digests(folder: Path, pair: str) -> list[str]:
    return [digest(folder / NAMES[product]) for product in PAIRS[pair]]


def drawn(kills: int, draws: int, pair: str, folder: Path) -> None:
    """Kill `kills` runs twice each."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["tilepipe.execution.segment", "tilepipe.execution.executors.dask", "tilepipe.testing", "hypothesis"]
    )
    for name, seed in (("old", OLD), ("new", NEW)):
        (folder / name).mkdir()
        segment(folder / name, pair, seed)
    old, new = digests(folder / "old", pair), digests(folder / "new", pair)
    assert not set(old) & set(new)
    shutil.copytree(folder / "old", folder / "count")
    counts = context.Queue()
    child = context.Process(target=count, args=(folder / "count", pair, counts))
    child.start()
    moments, renames = counts.get(timeout=120)
    child.join()
    rng = random.Random(draws)
    for k in range(kills):
        place = folder / str(k)
        shutil.copytree(folder / "old", place)
        for _ in range(2):
            late = rng.random() < 0.6  # where the products are put in place
            moment = rng.randint(renames - 2, moments) if late else rng.randint(1, moments)
            child = context.Process(target=work, args=(place, pair, moment))
            child.start()
            child.join()
            assert child.exitcode in (-signal.SIGKILL, 0), (k, moment)
            found = digests(place, pair)
            assert all(there in (o, n) for there, o, n in zip(found, old, new, strict=True)), (k, moment)
            records = [publish.read_record(run.parent) for run in place.glob(".*.tilepipe/*/run.json")]
            assert found in (old, new) or not any(is_complete(record, place) for record in records), (k, moment)
        segment(place, pair)
        assert digests(place, pair) == new, (k, "the same command ends with the whole set")
        assert sorted(path.name for path in place.iterdir() if path.name.endswith(".lock")) == []
        shutil.rmtree(place)


def is_complete(record: dict[str, Any] | None, place: Path) -> bool:
    """Return whether a run.json says that its set is in place."""
    return bool(
        record and record["published"] and all(publish.as_written(record, place / n) for n in record["products"])
    )


def test_two_kills(tmp_path: Path) -> None:
    drawn(1, 7, "folder", tmp_path)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("pair", sorted(PAIRS))
def test_many_kills(pair: str, tmp_path: Path) -> None:
    drawn({"bands": 12, "since": 25}.get(pair, 50), 2026, pair, tmp_path)
