"""A tile on which the model ends the process, or never comes back: it is left out, and every other label is right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

from tilepipe.box import Box
from tilepipe.execution.model_watch import CALLS, ENDS, PATCHES, TILES, ModelWatch, begin_watch, suspects_of
from tilepipe.storage import append_line

RUN = """
import ctypes, json, os, signal, sys, time
import torch  # before the process is doubled, unlike on the command line: each start then takes less time
import tilepipe as tp
import tilepipe.execution.segment

def run():
    class Bad(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.layer = torch.nn.Conv2d(3, 4, 1)

        def forward(self, x):
            if ((x[:, 0] == 255) & (x[:, 1] == 0) & (x[:, 2] == 255)).any() and not os.environ.get("WORKS"):
                what = os.environ["WHAT"]
                if what == "hang":
                    time.sleep(10**6)
                elif what == "exit":
                    os._exit(0)
                elif what == "segfault":
                    ctypes.string_at(0)
                elif what == "abort":
                    os.abort()
                os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(60)
            return self.layer(x)

    model = tp.Model.from_torch(Bad(), tp.ModelCard(bands=3, classes=tuple("abcd"), stride=1, halo=0))
    if sys.argv[1] == "batch":
        from tilepipe.execution.batch import run_batch
        run_batch.open_known = lambda names, **_: model
        print(json.dumps([[entry.status, entry.message] for entry in run_batch.run("jobs.yaml").entries]))
        return 3
    if sys.argv[1] == "verify":
        print(tp.verify("out.tif", model=model))
        return 0
    settings = json.loads(sys.argv[2])
    cut = {"tile": 32, "overlap": 0, "window_shape": "crop", "block": 64, "batch": 4}
    result = tp.segment("in.tif", model, "out.tif", **{**cut, **settings})
    print(json.dumps(result.failed))
    return 3 if result.failed else 0

if __name__ == "__main__":
    from tilepipe.supervisor import supervised
    sys.exit(run() if sys.argv[1] == "alone" else supervised(run))
"""
PIXELS = np.random.default_rng(0).integers(1, 255, (3, 130, 200), dtype=np.uint8)
PIXELS[:, 75, 101] = 255, 0, 255
BAD = np.s_[64:96, 96:128]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shape = {"count": 3, "height": 130, "width": 200, "dtype": "uint8"}
    place = {"crs": "EPSG:32645", "transform": rasterio.Affine(0.5, 0, 3e5, 0, -0.5, 3e6)}
    with rasterio.open(tmp_path / "in.tif", "w", driver="GTiff", **shape, **place) as file:
        file.write(PIXELS)
    (tmp_path / "run.py").write_text(RUN)
    return tmp_path


def run(folder: Path, what: str, how: str = "supervised", **settings: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "run.py", how, json.dumps(settings)]
    environment = {"WHAT": what, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=folder, env={**os.environ, **environment}
    )


def truth() -> np.ndarray:
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, 4, 1)
    with torch.inference_mode():
        return layer(torch.from_numpy(PIXELS[None]).float()).argmax(1)[0].numpy().astype(np.uint8)


def left_out(folder: Path) -> np.ndarray:
    with rasterio.open(folder / "out.tif") as file:
        found = file.read(1)
    wanted = truth()
    wanted[BAD] = 255
    np.testing.assert_array_equal(found, wanted)
    return found


@pytest.mark.parametrize(
    ("what", "settings", "why"),
    [
        ("segfault", {}, "it ends the process (Segmentation fault)"),
        pytest.param("abort", {"batch": 1}, "it ends the process (Aborted)", marks=pytest.mark.long),
        pytest.param("exit", {}, "it ends the process (exit code 0)", marks=pytest.mark.long),
        pytest.param("hang", {"tile_timeout": 3}, "it gives no answer within 3 s", marks=pytest.mark.long),
        pytest.param("segfault", {"workers": 1}, "it ends the process (Segmentation fault)", marks=pytest.mark.long),
        pytest.param(
            "hang", {"workers": 1, "tile_timeout": 3}, "it gives no answer within 3 s", marks=pytest.mark.long
        ),
    ],
)
def test_that_tile_is_left_out_and_listed(folder: Path, what: str, settings: dict[str, int], why: str) -> None:
    done = run(folder, what, **settings)
    assert done.returncode == 3, done.stderr
    assert json.loads(done.stdout) == [f"the model fails in rows 64 to 96, columns 96 to 128: {why}"]
    left_out(folder)
    assert not list(folder.glob(f".out.tif.tilepipe/*/{CALLS}"))
    if not settings.get("workers"):
        said = (
            "tilepipe: the model has ended the process; the run goes on and tries the tiles that it worked on one by "
        )
        assert done.stderr.splitlines() == [f"{said}one"] * 2


@pytest.mark.long
def test_in_a_process_of_the_user_the_third_call_leaves_it_out(folder: Path) -> None:
    assert [run(folder, "segfault", "alone").returncode for _ in range(3)] == [-11, -11, 3]
    left_out(folder)


@pytest.mark.long
def test_in_a_batch_each_image_ends_two_processes_and_the_others_are_done(folder: Path) -> None:
    for name in ("first", "second", "third"):
        (folder / f"{name}.tif").write_bytes((folder / "in.tif").read_bytes())
    cut = "{tile: 32, overlap: 0, window_shape: crop, block: 64, batch: 1}"
    (folder / "jobs.yaml").write_text(
        f"model: x.model\nimages: ['*.tif']\noutput: 'out/{{stem}}.tif'\nsettings: {cut}\n"
    )
    done = run(folder, "segfault", "batch")
    assert done.returncode == 3, done.stderr
    statuses = json.loads(done.stdout)
    assert [status for status, _ in statuses] == ["partial"] * 4
    assert all("it ends the process (Segmentation fault)" in message for _, message in statuses)
    assert done.stderr.count("the model has ended the process") == 8


@pytest.mark.long
def test_verify_does_not_call_the_model_on_that_tile_and_compares_the_rest(folder: Path) -> None:
    assert run(folder, "segfault").returncode == 3
    done = run(folder, "segfault", "verify")
    assert done.returncode == 0, done.stderr
    assert "0 of" in done.stdout


@pytest.mark.long
def test_with_fail_the_run_ends_and_with_overwrite_the_tile_is_tried_again(folder: Path) -> None:
    failing = run(folder, "segfault", on_tile_error="fail")
    assert failing.returncode == 1
    assert "the model fails in rows 64 to 96, columns 96 to 128: it ends the process" in failing.stderr
    assert run(folder, "segfault").returncode == 3
    (folder / "run.py").write_text(RUN.replace('not os.environ.get("WORKS")', "not True"))  # repaired
    assert run(folder, "segfault", overwrite=True).returncode == 0


@pytest.mark.long
def test_a_process_that_is_killed_from_outside_blames_no_tile(folder: Path) -> None:
    assert [run(folder, "kill").returncode for _ in range(3)] == [-9, -9, -9]
    assert not list(folder.glob(f".out.tif.tilepipe/*/{ENDS}"))


def test_a_tile_is_given_up_only_if_it_was_alone_at_its_second_end(tmp_path: Path) -> None:
    one, two = [0, 0, 32, 32], [0, 32, 32, 64]

    def ended(*boxes: list[int], of: str = TILES) -> None:
        append_line(tmp_path / ENDS, {"of": of, "boxes": boxes, "seconds": 600, "why": "it ends the process"})

    ended(one)
    assert suspects_of(tmp_path, TILES).given_up == {}
    ended(one, two)
    assert suspects_of(tmp_path, TILES).given_up == {}
    assert suspects_of(tmp_path, TILES).ends == {Box(*one): 2, Box(*two): 1}
    ended(two)
    assert suspects_of(tmp_path, TILES).given_up == {Box(*two): "it ends the process"}
    assert suspects_of(tmp_path, PATCHES).ends == {}
    ended(of=PATCHES)
    assert suspects_of(tmp_path, PATCHES).hopeless == "it ends the process"


def test_a_note_without_a_reason_blames_nothing_and_is_removed(tmp_path: Path) -> None:
    watch = ModelWatch(tmp_path, TILES, 600)
    with watch.over([Box(0, 0, 32, 32)]):
        (note,) = [path for path in (tmp_path / CALLS).iterdir() if path.suffix != ".end"]
        assert json.loads(note.read_text()) == {"of": TILES, "boxes": [[0, 0, 32, 32]], "seconds": 600}
        assert note.with_name(f"{note.name}.end").read_bytes() == b""
    begin_watch(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_shorter_note_after_a_longer_one_is_read_whole(tmp_path: Path) -> None:
    watch = ModelWatch(tmp_path, TILES, 600)
    with watch.over([Box(0, 0, 32, 32), Box(0, 32, 32, 64)]):
        pass
    with watch.over([Box(0, 64, 32, 96)]):
        (end,) = (tmp_path / CALLS).glob("*.end")
        end.write_text("Fatal Python error: Segmentation fault\n\nCurrent thread\n")
    assert ModelWatch(tmp_path, TILES, 600).suspects.ends == {Box(0, 64, 32, 96): 1}
