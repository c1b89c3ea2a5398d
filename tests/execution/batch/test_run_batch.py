"""Batches: idempotent, locked, one bad image never stops the rest. The engine is a fake one here; see the end."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from tilepipe.cli.main import main
from tilepipe.errors import InputError, LockedError, ModelError, StorageError, UsageError
from tilepipe.events import Event
from tilepipe.execution.batch import one_image, run_batch
from tilepipe.execution.batch.record import DONE, FAILED, NEW, PARTIAL, UNCHANGED
from tilepipe.execution.batch.run_batch import Report
from tilepipe.models.formats.directory import save_model
from tilepipe.storage import append_line, locked
from tilepipe.testing import random_unet


@dataclass
class Api:
    """Stands for tilepipe.execution.segment: 'segments' by hashing; counts what it computes."""

    computed: list[str] = field(default_factory=list)
    weights: str = "w1"
    failed: tuple[str, ...] = ()
    numbers: dict[str, Any] = field(default_factory=dict)

    def load_model(self, name: str) -> SimpleNamespace:
        if name == "missing":
            raise ModelError("no model 'missing'")
        return SimpleNamespace(sha256=lambda: self.weights, card=None)

    def open_source(self, path: Path) -> SimpleNamespace:
        if not path.exists():
            raise InputError(f"{path} is missing")
        content = path.read_bytes()
        if content == b"bad":
            raise InputError(f"{path} is not an image")
        if content == b"bug":
            raise ZeroDivisionError("division by zero")
        identity = {"sha256": hashlib.sha256(content).hexdigest()}
        return SimpleNamespace(path=path, name=str(path), identity=lambda: identity)

    def plan(self, source: Any, model: Any, **settings: Any) -> None:
        """Nothing is refused."""

    def keys(self, source: Any, model: Any, request: Any) -> SimpleNamespace:
        mask = Path(request.mask).read_text() if Path(request.mask).is_file() else ""
        return SimpleNamespace(request=lambda asked: f"{source.identity()}{model.sha256()}{request.tile}{mask}")

    def segment(self, source: Any, model: Any, output: Path, *, listener: Any, **settings: Any) -> SimpleNamespace:
        if output.exists() and not settings.get("overwrite"):
            raise UsageError(f"{output} exists")
        listener(Event("predict", 1, 1))
        self.computed.append(source.path.name)
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_bytes(source.path.read_bytes() + model.sha256().encode() + str(settings.get("tile")).encode())
        certificate = SimpleNamespace(plain="Labels do not depend on tiling.")
        record = {"numbers": self.numbers}
        return SimpleNamespace(paths=(output,), failed=self.failed, record=record, certificate=certificate)


NOWHERE = SimpleNamespace(identity=lambda: "")
"""An image without content."""


def _call(fake: Api, name: str, *args: Any, **keywords: Any) -> Any:
    return getattr(fake, name)(*args, **keywords)  # as it is then: tests replace methods


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Api:
    fake = Api()
    monkeypatch.setattr(run_batch, "open_known", lambda names, **_: fake.load_model(names[0]))
    monkeypatch.setattr(one_image, "plan", partial(_call, fake, "plan"))
    monkeypatch.setattr("tilepipe.execution.segment.segment", partial(_call, fake, "segment"))
    monkeypatch.setattr(run_batch, "measure_receptive_field", lambda *_: None)
    monkeypatch.setattr(one_image, "opened", lambda path, model, _: (model, fake.open_source(path)))
    monkeypatch.setattr(one_image, "Keys", SimpleNamespace(of=fake.keys))
    monkeypatch.setattr(
        one_image, "asked_of", lambda model, request: fake.keys(NOWHERE, model, request).request(request)
    )
    return fake


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.tif").write_text(name)
    return write_jobs(tmp_path)


def write_jobs(folder: Path, **changes: Any) -> Path:
    fields = {"images": "*.tif", "model": "m", "output": "out/{stem}.labels.tif", "settle": 0, **changes}
    (folder / "night.yaml").write_text(yaml.safe_dump(fields))
    return folder / "night.yaml"


def statuses(report: Report) -> list[str]:
    return [entry.status for entry in report.entries]


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in sorted(folder.glob("*")) if p.is_file()}


def record(jobs: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (jobs.parent / "out" / "night.jsonl").read_text().splitlines()]


def test_the_second_run_computes_nothing_and_touches_nothing(fake: Api, jobs: Path) -> None:
    assert statuses(run_batch.run(jobs)) == [DONE, DONE, DONE]
    before = state(jobs.parent / "out")
    assert statuses(run_batch.run(jobs)) == [UNCHANGED, UNCHANGED, UNCHANGED]
    assert state(jobs.parent / "out") == before
    assert fake.computed == ["a.tif", "b.tif", "c.tif"]


def test_one_record_per_image(fake: Api, jobs: Path) -> None:
    run_batch.run(jobs)
    lines = record(jobs)
    assert [Path(line["image"]).name for line in lines] == ["a.tif", "b.tif", "c.tif"]
    content = (jobs.parent / "out" / "a.labels.tif").read_bytes()
    facts = lines[0]["files"]["a.labels.tif"]
    assert (facts["bytes"], facts["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert lines[0]["status"] == DONE
    assert lines[0]["key"]
    assert lines[0]["seconds"] >= 0


def test_only_what_changed_is_done_again(fake: Api, jobs: Path) -> None:
    run_batch.run(jobs)
    (jobs.parent / "b.tif").write_text("b, new")
    (jobs.parent / "d.tif").write_text("d")
    assert statuses(run_batch.run(jobs)) == [UNCHANGED, DONE, UNCHANGED, DONE]
    assert (jobs.parent / "out" / "b.labels.tif").read_text().startswith("b, new")


def test_a_touched_image_or_output_is_not_done_again(fake: Api, jobs: Path) -> None:
    run_batch.run(jobs)
    (jobs.parent / "a.tif").touch()
    (jobs.parent / "out" / "a.labels.tif").touch()
    assert statuses(run_batch.run(jobs)) == [UNCHANGED] * 3


@pytest.mark.parametrize("change", ["weights", "tile", "mask", "of"])
def test_other_weights_or_settings_do_all_again(fake: Api, jobs: Path, change: str) -> None:
    mask = jobs.parent / "mask.geojson"
    mask.write_text("1")
    write_jobs(jobs.parent, settings={"mask": "mask.geojson"})
    run_batch.run(jobs)
    if change == "weights":
        fake.weights = "w2"
    elif change == "mask":
        mask.write_text("2")
    elif change == "tile":
        write_jobs(jobs.parent, settings={"mask": "mask.geojson", "tile": 64})
    else:
        write_jobs(jobs.parent, settings={"mask": "mask.geojson"}, of=["cog", "geojson"])
    assert statuses(run_batch.run(jobs)) == [DONE] * 3
    assert statuses(run_batch.run(jobs)) == [UNCHANGED] * 3


def test_existence_is_not_done(fake: Api, jobs: Path) -> None:
    """A file that somebody else put there is neither taken for a result nor overwritten."""
    (jobs.parent / "out").mkdir()
    (jobs.parent / "out" / "b.labels.tif").write_text("drawn by hand")
    report = run_batch.run(jobs)
    assert statuses(report) == [DONE, FAILED, DONE]
    assert "exists" in report.entries[1].message
    assert (jobs.parent / "out" / "b.labels.tif").read_text() == "drawn by hand"


def test_an_output_that_was_edited_is_not_overwritten(fake: Api, jobs: Path) -> None:
    run_batch.run(jobs)
    (jobs.parent / "out" / "b.labels.tif").write_text("corrected by hand")
    fake.weights = "w2"
    assert statuses(run_batch.run(jobs)) == [DONE, FAILED, DONE]
    assert (jobs.parent / "out" / "b.labels.tif").read_text() == "corrected by hand"


def test_a_foreign_file_beside_an_output_of_ours_is_not_overwritten(fake: Api, jobs: Path) -> None:
    run_batch.run(jobs)
    (jobs.parent / "out" / "b.labels.geojson").write_text("drawn by hand")
    write_jobs(jobs.parent, of=["cog", "geojson"])
    assert statuses(run_batch.run(jobs)) == [DONE, FAILED, DONE]


def test_a_lost_output_is_made_again(fake: Api, jobs: Path) -> None:
    run_batch.run(jobs)
    (jobs.parent / "out" / "b.labels.tif").unlink()
    assert statuses(run_batch.run(jobs)) == [UNCHANGED, DONE, UNCHANGED]


@pytest.mark.parametrize(("content", "error"), [("bad", "InputError"), ("bug", "ZeroDivisionError")])
def test_a_bad_image_is_recorded_and_the_rest_goes_on(fake: Api, jobs: Path, content: str, error: str) -> None:
    (jobs.parent / "b.tif").write_text(content)
    report = run_batch.run(jobs)
    assert statuses(report) == [DONE, FAILED, DONE]
    assert record(jobs)[1]["error"] == error
    assert record(jobs)[1]["message"]
    (jobs.parent / "b.tif").write_text("good")
    assert statuses(run_batch.run(jobs)) == [UNCHANGED, DONE, UNCHANGED]


def test_an_image_that_broke_keeps_its_earlier_output_until_it_is_good_again(fake: Api, jobs: Path) -> None:
    run_batch.run(jobs)
    output = jobs.parent / "out" / "b.labels.tif"
    before = output.read_bytes()
    (jobs.parent / "b.tif").write_text("bad")
    assert statuses(run_batch.run(jobs)) == [UNCHANGED, FAILED, UNCHANGED]
    assert output.read_bytes() == before
    (jobs.parent / "b.tif").write_text("good")
    assert statuses(run_batch.run(jobs)) == [UNCHANGED, DONE, UNCHANGED]
    assert output.read_bytes() != before


def test_failed_tiles_are_tried_again(fake: Api, jobs: Path) -> None:
    fake.failed = ("tile 3: corrupt",)
    assert statuses(run_batch.run(jobs)) == [PARTIAL] * 3
    fake.failed = ()
    assert statuses(run_batch.run(jobs)) == [DONE] * 3


def test_a_listed_image_that_is_missing_is_recorded(fake: Api, jobs: Path) -> None:
    write_jobs(jobs.parent, images=["a.tif", "nowhere.tif"])
    assert statuses(run_batch.run(jobs)) == [DONE, FAILED]


def test_ctrl_c_comes_out_and_what_was_done_stays_done(fake: Api, jobs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = fake.segment

    def stop_at_b(source: Any, *args: Any, **settings: Any) -> SimpleNamespace:
        if source.path.name == "b.tif":
            raise KeyboardInterrupt
        return real(source, *args, **settings)

    monkeypatch.setattr(fake, "segment", stop_at_b)
    with pytest.raises(KeyboardInterrupt):
        run_batch.run(jobs)
    monkeypatch.setattr(fake, "segment", real)
    assert statuses(run_batch.run(jobs)) == [UNCHANGED, DONE, DONE]


def test_a_torn_record_line_is_passed_over(fake: Api, jobs: Path) -> None:
    run_batch.run(jobs)
    path = jobs.parent / "out" / "night.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    (jobs.parent / "out" / "c.labels.tif").unlink()
    assert statuses(run_batch.run(jobs)) == [UNCHANGED, UNCHANGED, DONE]
    assert statuses(run_batch.run(jobs)) == [UNCHANGED] * 3


@pytest.mark.parametrize(
    "change",
    [
        {"weather": "fine"},
        {"of": 3},
        {"numbers": {"classes": [{"value": 0, "colour": "red"}], "nodata": 0, "unit": ""}},
    ],
)
def test_a_record_of_another_version_is_said(fake: Api, jobs: Path, change: dict[str, Any]) -> None:
    run_batch.run(jobs)
    path, computed = jobs.parent / "out" / "night.jsonl", list(fake.computed)
    append_line(path, {**record(jobs)[0], **change})
    before = state(jobs.parent)
    with pytest.raises(
        StorageError, match=r"night\.jsonl was written by another version of tilepipe; use that version"
    ):
        run_batch.run(jobs)
    assert (state(jobs.parent), fake.computed) == (before, computed)


def test_two_batches_do_not_work_on_one_folder(fake: Api, jobs: Path) -> None:
    (jobs.parent / "out").mkdir()
    with locked(jobs.parent / "out" / ".tilepipe-batch.lock"), pytest.raises(LockedError):
        run_batch.run(jobs)
    assert fake.computed == []
    assert statuses(run_batch.run(jobs)) == [DONE] * 3


def test_a_dry_run_writes_nothing(fake: Api, jobs: Path) -> None:
    (jobs.parent / "c.tif").write_text("bad")
    assert statuses(run_batch.run(jobs, dry_run=True)) == [NEW, NEW, FAILED]
    assert not (jobs.parent / "out").exists()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"settings": {"tyle": 3}}, "settings: 'tyle' is unknown; did you mean 'tile'?"),
        ({"model": "missing"}, "no model"),
        ({"output": "out/x.tif"}, "would be the same for every image"),
    ],
)
def test_a_wrong_jobs_file_stops_before_the_first_image(
    fake: Api, jobs: Path, changes: dict[str, Any], error: str
) -> None:
    write_jobs(jobs.parent, **changes)
    with pytest.raises((UsageError, ModelError), match=error):
        run_batch.run(jobs)
    assert not (jobs.parent / "out").exists()


@pytest.mark.parametrize("dry", [False, True])
def test_a_model_whose_card_is_wrong_stops_before_the_first_image(jobs: Path, dry: bool) -> None:
    model = random_unet()
    fields = {"arch": {"name": "unet", "width": 4, "depth": 2}, "halo": 8}
    save_model(replace(model, card=model.card.model_copy(update=fields)), jobs.parent / "net.model")
    write_jobs(jobs.parent, model="net.model")
    with pytest.raises(ModelError, match="the card says halo 8, measured reach is 22"):
        run_batch.run(jobs, dry_run=dry)
    assert not (jobs.parent / "out").exists()


def test_the_command_says_what_became_of_each_image(fake: Api, jobs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (jobs.parent / "b.tif").write_text("bad")
    assert main(["batch", "run", str(jobs)]) == 3
    out, err = capsys.readouterr()
    assert [line.split("\t")[0] for line in out.splitlines()] == [DONE, FAILED, DONE]
    assert out.splitlines()[0].split("\t")[2] == str(jobs.parent / "out" / "a.labels.tif")
    assert "2 done, 1 failed" in err
    assert "is not an image" in err
    (jobs.parent / "b.tif").unlink()
    assert main(["batch", "run", "-q", str(jobs)]) == 0
    assert capsys.readouterr().err == ""
