"""The report as a product of a run, and after it: the same facts, the command that makes the run again."""

from __future__ import annotations

import shlex
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from helpers.cli_files import write_image
from helpers.pages import check_self_contained, picture, seen
from helpers.small_runs import CODES, IMAGE, segment
from PIL import Image

import tilepipe as tp
from tilepipe.box import Box
from tilepipe.cli.main import main, root
from tilepipe.errors import InputError, UsageError
from tilepipe.events import Event
from tilepipe.execution.command import NOT_KEPT, command_of, kept_settings
from tilepipe.execution.report import report
from tilepipe.planning.check_settings import KINDS
from tilepipe.planning.settings import Request
from tilepipe.sources.array import ArraySource


def test_a_run_writes_its_report(tmp_path: Path) -> None:
    result = segment(tmp_path / "out.tif", of=["cog", "report", "csv"])
    found = check_self_contained((tmp_path / "out.html").read_text())
    for text in (result.certificate.plain, *result.certificate.sentences, *(row.text for row in result.plan.fit_table)):
        assert " ".join(text.split()) in found.text
    assert [one["href"] for one in found.every("a")] == ["out.tif", "out.csv"]
    assert "complete" in found.text
    assert "bottleneck" in found.text
    assert "writing the products" in found.text, "a report is written last and knows the time of the others"
    assert "of all cores" in found.text
    assert "no command line makes it again" in found.text, "its image is an array"


def test_a_report_after_the_run_tells_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image(tmp_path / "a.tif")
    assert main(["segment", str(tmp_path / "a.tif"), "-m", "forest", "--force-resolution", "--of", "cog,report"]) == 0
    with_run = (tmp_path / "a.labels.html").read_text()
    assert main(["report", str(tmp_path / "a.labels.tif"), str(tmp_path / "b.html")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "b.html")
    after = check_self_contained((tmp_path / "b.html").read_text()).text
    words = check_self_contained(with_run).text
    for part in ("Classes", "Seams", "Fit of image", "How to make it again"):
        assert part in words
        assert part in after
    assert after.partition("Time total")[0] == words.partition("Time total")[0]
    before = (tmp_path / "b.html").read_bytes()
    assert main(["report", str(tmp_path / ".a.labels.tif.tilepipe"), str(tmp_path / "b.html")]) == 2
    assert "use --overwrite" in capsys.readouterr().err
    assert main(["report", str(tmp_path / ".a.labels.tif.tilepipe"), str(tmp_path / "b.html"), "--overwrite"]) == 0
    assert (tmp_path / "b.html").read_bytes() == before, "a page depends on the run alone"


def test_the_command_in_a_report_makes_the_run_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "my files"
    folder.mkdir()
    write_image(folder / "it's.tif")
    words = ["segment", "my files/it's.tif", "-m", "forest", "--force-resolution", "--window", "10,20,100,90"]
    assert main([*words, "--of", "cog,geojson,report", "--min-area", "3", "--bands", "3,2,1", "--tile", "128"]) == 0
    page = check_self_contained((folder / "it's.labels.html").read_text())
    assert "150 x 210 px, 3 bands, uint8; rows 20 to 110, columns 10 to 110 of it" in page.text
    command = page.text[page.text.index("tilepipe segment ") :].partition(" Files beside")[0]
    capsys.readouterr()
    monkeypatch.chdir("/")
    assert main(shlex.split(command)[1:]) == 0
    assert "nothing to do" in capsys.readouterr().err


EXAMPLES: dict[str, Any] = {
    "scene": 2, "z": 1, "t": 3, "bounds": (-1.5, 2.0, 3.25, 4e-05), "bounds_crs": "EPSG:4326", "bands": "R,G,3",
    "window": (1, 2, 3, 4), "tile": 512, "overlap": "auto", "window_shape": "hann", "statistics": "whole",
    "tolerance": 0.02, "max_cost": 5, "resolution": 0.5, "pixel_size": 0.25, "force_resolution": True, "mask": "tissue",
    "device": "cpu", "precision": "fp64", "runtime": "torch", "batch": 4, "block": 512, "memory": "4GiB", "workers": 2,
    "scheduler": "tls://host:8786", "trust_model": "sha256:ab", "on_tile_error": "fail", "record": False,
    "layers": ("margin", "entropy"), "region": "a b.geojson", "crs": "EPSG:32645", "min_area": 2.5, "fill_holes": "all",
    "simplify": 1.5, "smooth": True, "orthogonalize": True, "split": True, "neck": 0.5, "annotations": True,
    "with_image": True,
    "allow": ("/data/more files", "/data/b"), "tile_timeout": 30, "tta": "d4",
    "grid": "world", "classes": ("Tumor", "Immune cells, few"), "driver": "netCDF",
}  # fmt: skip


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_setting_comes_back_from_the_command_line(name: str) -> None:
    given = Request.of({name: EXAMPLES[name]}).given
    command = command_of("in.tif", "forest", kept_settings(given), {"cog": Path("/out.tif")})
    context = root.commands["segment"].make_context("segment", shlex.split(command)[2:])
    assert context.params["source"] == "in.tif"
    assert context.params["of"] == ("cog",)
    found = Request.of({name: context.params[name]})
    assert {**vars(found), "given": {}} == {**vars(Request.of({name: EXAMPLES[name]})), "given": {}}


def test_examples_are_of_every_setting() -> None:
    assert set(EXAMPLES) == set(KINDS) - NOT_KEPT


def test_a_box_becomes_a_window() -> None:
    for region in (Box(5, 7, 25, 37), (5, 7, 25, 37)):
        assert kept_settings(Request.of({"region": region}).given) == {"window": [7, 5, 30, 20]}


def test_an_image_that_is_gone_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image(tmp_path / "a.tif")
    assert main(["segment", str(tmp_path / "a.tif"), "-m", "forest", "--force-resolution"]) == 0
    (tmp_path / "a.tif").rename(tmp_path / "moved.tif")
    assert main(["report", str(tmp_path / "a.labels.tif")]) == 0
    assert "a.tif is no longer there, so the page shows labels alone; name it with --image" in capsys.readouterr().err
    assert len(check_self_contained((tmp_path / "a.labels.html").read_text()).every("img")) == 1
    words = ["report", str(tmp_path / "a.labels.tif"), "--overwrite", "--image", str(tmp_path / "moved.tif")]
    assert main(words) == 0
    assert len(check_self_contained((tmp_path / "a.labels.html").read_text()).every("img")) == 3


def test_labels_without_a_record_still_have_a_page(tmp_path: Path) -> None:
    segment(tmp_path / "out.tif", record=False)
    said: list[Event] = []
    page = report(tmp_path / "out.tif", image=IMAGE, listener=said.append)
    assert "The record of the run was not found" in check_self_contained(page.read_text()).text


def test_what_has_no_labels_has_no_report(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        report(tmp_path / "none.tif")
    segment(tmp_path / "out.tif")
    with pytest.raises(UsageError, match=r"ends in \.pdf"):
        report(tmp_path / "out.tif", tmp_path / "out.pdf")
    with pytest.raises(UsageError, match="not the image of"):
        report(tmp_path / "out.tif", image=ArraySource(CODES[:50]))


@pytest.mark.parametrize("of", [["cog"], ["geojson"], ["ome-zarr", "csv"]])
def test_a_notebook_shows_the_result(of: list[str], tmp_path: Path) -> None:
    write_image(tmp_path / "<b>.tif")
    result = tp.segment(tmp_path / "<b>.tif", "forest", tmp_path / "out", of=of, force_resolution=True)
    found = seen(result._repr_html_())
    assert result.numbers is not None
    assert "<b>.tif" in found.text
    assert result.certificate.plain in found.text
    for one in result.numbers.classes:
        assert not one.pixels or f"{one.name} {100 * one.share:.1f} %" in found.text
    (shown,) = found.every("img")
    assert Image.open(BytesIO(picture(shown["src"]))).size == (210, 150)
    assert not found.every("script")
    (tmp_path / "<b>.tif").unlink()
    assert "<img" in result._repr_html_(), "labels alone are shown if the image is gone"
