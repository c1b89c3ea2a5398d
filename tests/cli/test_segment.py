"""segment, plan, info and export on a real file through the real engine."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from helpers.onnx_files import pointwise, save, write_card
from PIL import Image

from tilepipe.box import Box
from tilepipe.cli.main import main
from tilepipe.planning.plan import Plan

Out = pytest.CaptureFixture[str]


def test_an_image_and_a_model_are_enough(image: Path, model: Path, capsys: Out) -> None:
    assert main(["segment", str(image), "-m", str(model)]) == 0
    out, err = capsys.readouterr()
    labels = image.with_name("scene.labels.tif")
    assert out == f"{labels}\n"
    assert "predict" in err
    with rasterio.open(image) as source, rasterio.open(labels) as product:
        assert (product.transform, product.crs, product.shape) == (source.transform, source.crs, source.shape)
        assert product.nodata == 255
        assert set(np.unique(product.read(1))) <= {0, 1}


def test_what_each_class_has_is_said_in_the_end(image: Path, model: Path, capsys: Out) -> None:
    assert main(["segment", str(image), "-m", str(model), "--of", "cog,csv"]) == 0
    said = [line.split() for line in capsys.readouterr().err.splitlines() if line.endswith(("object", "objects"))]
    rows = [row.split(",") for row in image.with_name("scene.labels.csv").read_text().splitlines()]
    assert rows[0] == ["value", "class", "pixels", "share", "area_m2", "area_ha", "objects", "objects_per_km2"]
    found = [[row[1], f"{100 * float(row[3]):.1f}", "%"] for row in rows[1:] if int(row[2])]
    assert found
    assert [words[:3] for words in said] == found
    assert main(["segment", str(image), "-m", str(model), "--of", "cog,csv", "-q"]) == 0
    assert capsys.readouterr().err == ""


def test_the_same_command_again_does_nothing(image: Path, model: Path, capsys: Out) -> None:
    command = ["segment", str(image), "-m", str(model)]
    assert main(command) == 0
    labels = image.with_name("scene.labels.tif")
    before = labels.stat().st_mtime_ns, labels.read_bytes()
    capsys.readouterr()
    assert main(command) == 0
    assert "nothing to do" in capsys.readouterr().err
    assert (labels.stat().st_mtime_ns, labels.read_bytes()) == before


def test_a_dry_run_prints_the_plan_and_writes_nothing(image: Path, model: Path, capsys: Out) -> None:
    assert main(["segment", str(image), "-m", str(model), "--dry-run"]) == 0
    dry = capsys.readouterr().out
    assert main(["plan", str(image), "-m", str(model)]) == 0
    shown = capsys.readouterr().out
    steady = [line for line in dry.splitlines() if " are free" not in line]  # what is free changes meanwhile
    assert [line for line in shown.splitlines() if " are free" not in line] == steady
    assert "150 x 210" in dry
    assert [path.name for path in image.parent.iterdir()] == ["scene.tif"]


@pytest.mark.parametrize(
    ("output", "options"),
    [
        ("out.tif", ["--of", "tiff"]),
        ("out.tif", ["--of", "geojson"]),
        ("out.kml", []),
        ("scene.tif", []),
        ("out.geojson", ["--layers", "margin"]),
    ],
)
def test_a_dry_run_refuses_the_outputs_that_the_run_refuses(
    image: Path, model: Path, capsys: Out, output: str, options: list[str]
) -> None:
    command = ["segment", str(image), str(image.with_name(output)), "-m", str(model), "-q", *options]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert main([*command, "--dry-run"]) == 2
    assert capsys.readouterr() == ("", said)
    assert [path.name for path in image.parent.iterdir()] == ["scene.tif"]


def test_a_plan_as_json_is_the_plan(image: Path, model: Path, capsys: Out) -> None:
    assert main(["plan", str(image), "-m", str(model), "--json", "--window", "10,20,100,50", "--memory", "8GiB"]) == 0
    plan = Plan.from_json(capsys.readouterr().out)
    assert plan.region == Box(20, 10, 70, 110)


def test_verbose_says_the_plan_and_quiet_nothing(image: Path, model: Path, capsys: Out) -> None:
    assert main(["segment", str(image), "-m", str(model), "-v", "--progress", "none"]) == 0
    assert "150 x 210" in capsys.readouterr().err
    assert main(["segment", str(image), "-m", str(model), "-q"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "part",
    [["--window", "30,40,100,60"], ["--bounds", "300015.25 5199950.75 300065.25 5199980.75"]],
)
def test_a_region_is_the_crop_of_the_whole(image: Path, model: Path, part: list[str], tmp_path: Path) -> None:
    assert main(["segment", str(image), str(tmp_path / "whole.tif"), "-m", str(model), "-q"]) == 0
    assert main(["segment", str(image), str(tmp_path / "part.tif"), "-m", str(model), "-q", *part]) == 0
    with rasterio.open(tmp_path / "whole.tif") as whole, rasterio.open(tmp_path / "part.tif") as region:
        assert (region.read(1) == whole.read(1)[40:100, 30:130]).all()
        assert region.transform == whole.transform @ whole.transform.translation(30, 40)


def test_progress_as_json(image: Path, model: Path, capsys: Out) -> None:
    assert main(["segment", str(image), "-m", str(model), "--progress", "json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert events[-1]["stage"] == "done"
    predicted = [event for event in events if event["stage"] == "predict"]
    assert predicted[-1]["done"] == predicted[-1]["total"] > 0


def test_info_of_labels_says_where_they_lie_in_the_image(image: Path, model: Path, capsys: Out) -> None:
    output = image.with_name("part.tif")
    assert main(["segment", str(image), str(output), "-m", str(model), "--window", "30,20,64,48", "-q"]) == 0
    capsys.readouterr()
    assert main(["info", str(output), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["origin"], facts["scale"]) == ([20, 30], [1.0, 1.0])


def test_info_of_an_image(image: Path, capsys: Out) -> None:
    assert main(["info", str(image), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["height"], facts["width"], facts["dtype"]) == (150, 210, "uint8")
    assert facts["resolution"] == {"y": pytest.approx(0.5, rel=1e-3), "x": pytest.approx(0.5, rel=1e-3), "unit": "m"}
    assert facts["transform"][:3] == [0.5, 0.0, 300000.25]
    assert facts["layout"] == "tiles"
    assert main(["info", str(image)]) == 0
    out = capsys.readouterr().out
    assert "crs: WGS 84 / UTM zone 33N\n" in out
    assert "m/px (height x width)\n" in out


def test_info_of_a_picture_has_a_line_for_each_fact(tmp_path: Path, capsys: Out) -> None:
    Image.new("RGB", (7, 5)).save(tmp_path / "x.png")
    assert main(["info", str(tmp_path / "x.png")]) == 0
    out = capsys.readouterr().out
    assert "height: 5\nwidth: 7\n" in out
    assert "layout: picture\n" in out
    assert "{" not in out


def test_info_of_a_model(model: Path, capsys: Out) -> None:
    assert main(["info", str(model), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["classes"] == ["other", "thing"]
    assert len(facts["sha256"]) == 64


def test_info_of_model_files(tmp_path: Path, capsys: Out) -> None:
    path = write_card(save(pointwise(), tmp_path / "x.onnx"))
    assert main(["info", str(path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["model"], facts["bands"], facts["classes"]) == (str(path), 3, ["other", "thing"])
    (tmp_path / "w.pth").write_bytes(b"PK")
    for name, words in (("w.pth", "tilepipe model convert"), ("y.onnx", "no model"), ("z.model", "no model")):
        assert main(["info", str(tmp_path / name)]) == 5
        assert words in capsys.readouterr().err


def test_info_of_a_run(image: Path, model: Path, capsys: Out) -> None:
    assert main(["segment", str(image), "-m", str(model), "-q"]) == 0
    capsys.readouterr()
    assert main(["info", str(image.with_name(".scene.labels.tif.tilepipe")), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["finished"]
    assert facts["blocks done"] == facts["blocks"] > 0
    assert facts["tiles done"] == facts["tiles"] > 0
    assert facts["tiles failed"] == []
    assert facts["plan"]["shape"] == [150, 210]
    assert facts["seams"] == "Labels do not depend on tiling, but for rounding in fp32."
    assert facts["certificate"][0].startswith("The labels do not depend on how the image was cut")


def test_export_to_another_product(image: Path, model: Path, capsys: Out, tmp_path: Path) -> None:
    assert main(["segment", str(image), str(tmp_path / "a.tif"), "-m", str(model), "-q"]) == 0
    capsys.readouterr()
    command = ["export", str(tmp_path / "a.tif"), str(tmp_path / "b.geojson")]
    assert main(command) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'b.geojson'}\n"
    assert json.loads((tmp_path / "b.geojson").read_text())["features"]
    assert main(command) == 2
    assert "exists" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0


def test_layers_by_a_list_or_one_by_one(image: Path, model: Path, capsys: Out) -> None:
    plan = ["plan", str(image), "-m", str(model)]

    def shown() -> list[str]:
        # What is free on the disk changes from one moment to the next.
        return [line for line in capsys.readouterr().out.splitlines() if "are free" not in line]

    assert main([*plan, "--layers", "margin,entropy"]) == 0
    one = shown()
    assert main([*plan, "--layers", "entropy", "--layers", "margin"]) == 0
    assert shown() == one
    assert "layers  margin, entropy" in one
    assert main(["segment", str(image), "-m", str(model), "--layers", "margin"]) == 0
    assert capsys.readouterr().out.split() == [
        str(image.with_name("scene.labels.tif")), str(image.with_name("scene.labels.margin.tif")),
    ]  # fmt: skip
    assert main([*plan, "--layers", "doubt"]) == 2
    assert "known are disagreement, entropy, margin" in capsys.readouterr().err
