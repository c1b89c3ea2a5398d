"""Every mistake that a newcomer makes has its exit code and says what to type next; no text of others is obeyed."""

from __future__ import annotations

import ast
import json
import re
import shutil
from functools import cache
from pathlib import Path
from xml.dom import minidom

import click
import pytest
from helpers.code import FILES, PACKAGE, nodes_of

from tilepipe.cli.help import OTHER_WORDS
from tilepipe.cli.main import main, root
from tilepipe.cli.screen import lasting
from tilepipe.events import Event

Err = pytest.CaptureFixture[str]
ESCAPE = "\x1b]0;OWNED\x07\x1b[2J"


@pytest.fixture
def folder(image: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as a newcomer has it: the image scene.tif, tiny.model, and files that are something else."""
    here = image.parent
    shutil.copytree(model, here / "tiny.model")
    (here / "empty.tif").touch()
    (here / "page.tif").write_text("<!doctype html><title>404</title>")
    (here / "jobs.yaml").write_text("images: scene.tif\nmodel: tiny.model\nmodle: x\n")
    masked = "images: scene.tif\nmodel: tiny.model\noutput: '{stem}.labels.tif'\nsettings: {mask: 'value:256'}\n"
    (here / "masked.yaml").write_text(masked)
    (here / "train.yaml").write_text("name: n\noutput: o.model\nclasses: [a, b]\ntrain: []\n")
    (here / "deep.yaml").write_text("images: " + "[" * 5000)
    (here / "torn.onnx").write_bytes(b"no")
    (here / "areas.gpkg").write_bytes(b"SQLite format 3\x00")
    road = {"type": "LineString", "coordinates": [[0, 0], [1, 1]]}
    (here / "roads.geojson").write_text(json.dumps({"type": "Feature", "properties": {}, "geometry": road}))
    (here / "notes.txt").write_text("hello")
    (here / "images").mkdir()
    monkeypatch.chdir(here)
    return here


S = "segment scene.tif out.tif -m tiny.model -q "
MISTAKES = [
    ("segment scen.tif -m tiny.model", 4, "did you mean scene.tif?"),
    ("segment images/scene.tif -m tiny.model", 4, "does not exist"),
    ("segment nofolder/scene.tif -m tiny.model", 4, "there is no folder nofolder"),
    ("segment images -m tiny.model", 4, "name a file in it"),
    ("segment empty.tif -m tiny.model", 4, "empty.tif"),
    ("segment page.tif -m tiny.model", 4, "HTML"),
    ("segment notes.txt -m tiny.model", 4, "not an image"),
    ("segment tiny.model scene.tif -m tiny.model", 4, "-m tiny.model"),
    ("segment http://127.0.0.1:9/a.tif -m tiny.model", 4, "takes no connection"),
    ("segment scene.tif", 2, "--model"),
    ("segment scene.tif -m tiny.modle", 5, "tiny.model"),
    ("segment scene.tif -m scene.tif", 5, "model"),
    ("segment scene.tif -m images", 5, "model.json"),
    ("segment scene.tif -m buildigns", 5, "did you mean 'buildings'"),
    (S + "--mask tisue", 2, "did you mean 'tissue'"),
    (S + "--mask nowhere.geojson", 2, "does not exist"),
    (S + "--mask value:256", 2, "whole numbers from 0 to 255 (uint8)"),
    ("plan scene.tif -m tiny.model --mask value:-1", 2, "whole numbers from 0 to 255 (uint8)"),
    ("plan scene.tif -m tiny.model --mask value:0.5", 2, "whole numbers from 0 to 255 (uint8)"),
    ("batch run masked.yaml --dry-run", 3, "whole numbers from 0 to 255 (uint8)"),
    (S + "--region nowhere.geojson", 2, "does not exist"),
    (S + "--region scene.tif", 2, "GeoJSON"),
    (S + "--of geotif", 2, "cog"),
    (S + "--layers margn", 2, "did you mean 'margin'"),
    (S + "--window 0,0,9", 2, "four whole numbers"),
    (S + "--window 0,0,-5,9", 2, "region"),
    (S + "--window 900,900,10,10", 2, "210 columns"),
    (S + "--bounds 85.5,27.6,85.6,27.7", 2, "--bounds-crs EPSG:4326"),
    (S + "--tile abc", 2, "neither a number nor auto"),
    (S + "--tile -64", 2, "-64"),
    (S + "--batch 0", 2, "0"),
    (S + "--memory lots", 2, "4GiB"),
    (S + "--memory 1MB", 2, "the least"),
    (S + "--memory 500", 2, "500 bytes; write 500MiB"),
    (S + "--bands 2,1", 2, "--bands names 2 bands, model tiny reads 3"),
    (S + "--tile 64 --overlap 70", 2, "use an overlap of at most 56"),
    (S + "--device gpu", 2, "cuda"),
    (S + "--precision fp8", 2, "fp16"),
    (S + "--resolution big", 2, "full"),
    (S + "--pixel-size -1", 2, "-1"),
    (S + "--scheduler tcp://10.0.0.1:8786", 2, "tls://"),
    (S + "--tille 3", 2, "--tile"),
    ("segment scene.tif nofolder/out.tif -m tiny.model -q", 2, "make it first"),
    ("segment scene.tif scene.tif -m tiny.model -q --overwrite", 2, "scene.tif"),
    ("info nothere.tif", 4, "does not exist"),
    ("info images", 4, "images"),
    ("info nomodel", 5, "nomodel"),
    ("plan scen.tif -m tiny.model", 4, "did you mean scene.tif?"),
    ("export scen.tif out.geojson", 4, "did you mean scene.tif?"),
    ("export scene.tif out.geojson", 4, "tilepipe"),
    ("verify scene.tif", 2, "--tile"),
    ("verify scen.tif", 4, "did you mean scene.tif?"),
    ("evaluate scen.tif scene.tif", 4, "did you mean scene.tif?"),
    ("model check nomodel", 5, "bundled are"),
    ("model card scene.tif", 5, "model"),
    ("batch run job.yaml", 2, "jobs.yaml?"),
    ("batch run jobs.yaml", 2, "did you mean 'model'"),
    ("batch run train.yaml", 2, "give: tilepipe train "),
    ("batch run deep.yaml", 2, "nested too deeply"),
    ("batch run images", 2, "is a folder"),
    ("batch run scene.tif", 2, "YAML"),
    ("batch scene.tif", 2, "No such command"),
    ("batch jobs.yaml", 2, "give: tilepipe batch run jobs.yaml"),
    ("segment jobs.yaml", 2, "--model"),
    ("segment jobs.yaml -m tiny.model", 4, "tilepipe batch run"),
    ("info jobs.yaml", 4, "tilepipe batch run"),
    ("evaluate scene.tif jobs.yaml", 4, ""),
    ("segment scene.tif -m none.onnx", 5, "none.onnx does not exist"),
    ("segment scene.tif -m torn.onnx", 5, "export, copy or download it again"),
    ("export tiny.model x.geojson", 4, "name one that it wrote"),
    ("verify scene.tif --tile 64 --picture x.png", 2, "leave out --picture"),
    ("demo -o scene.tif", 6, "choose another path"),
    (S + "--region roads.geojson", 2, "draw polygons"),
    (S + "--region nowhere.gpkg", 2, "nowhere.gpkg does not exist"),
    (S + "--region areas.gpkg", 2, "areas.gpkg cannot be read"),
    (S + "--mask areas.gpkg", 2, "areas.gpkg cannot be read"),
    (S + "--region areas.kml", 2, "areas.kml does not exist"),
    (S + "--class Tumor", 2, "name the file as --region or --mask"),
    (S + "--resolution 0.25um", 2, "give the number alone: 0.25"),
    (S + "--tile 64px", 2, "give the number alone: 64"),
    ("train jobs.yaml", 2, "tilepipe batch run jobs.yaml"),
    ("train trian.yaml", 2, "did you mean train.yaml?"),
    ("compare train.yaml", 2, "give: tilepipe train train.yaml"),
    ("sgment scene.tif", 2, "No such command"),
]


@pytest.mark.parametrize(("words", "code", "sentence"), MISTAKES, ids=[words for words, _, _ in MISTAKES])
def test_a_mistake_says_what_to_type_next(words: str, code: int, sentence: str, folder: Path, capsys: Err) -> None:
    found = main(words.split())
    _, err = capsys.readouterr()
    assert (found, sentence in err) == (code, True), (found, err)
    assert "bug" not in err
    assert "Traceback" not in err


def options(command: click.Command) -> set[str]:
    mine = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return mine.union(*(options(c) for c in getattr(command, "commands", {}).values()))


OTHER_PROGRAMS = {
    "--user",
    "--now",
    "--revision",
    "--dtype",
    "--nthreads",
    "--calc",
    "--type",
    "--outfile",
}  # of others
COMMAND = re.compile(r"tilepipe (model )?[a-z]+ [^;`]*-[a-z]")
"""A whole command in a message: its options are right for everybody."""


@cache
def messages(path: Path) -> list[str]:
    """Every text of a module but docstrings, with {} in place of what is put in."""
    nodes = nodes_of(path)
    bodies = [node.body for node in nodes if isinstance(getattr(node, "body", None), list)]
    docs = {id(line.value) for body in bodies for line in body if isinstance(line, ast.Expr)}
    joined = [node for node in nodes if isinstance(node, ast.JoinedStr)]
    parts = docs | {id(part) for node in joined for part in node.values}
    texts = ["".join(p.value if isinstance(p, ast.Constant) else "{}" for p in node.values) for node in joined]
    alone = [node for node in nodes if isinstance(node, ast.Constant) and id(node) not in parts]
    return texts + [node.value for node in alone if isinstance(node.value, str)]


def named_settings(path: Path) -> set[str]:
    """The settings that messages of a module name: in calls of `setting`, and alone between backticks."""
    calls = [node for node in nodes_of(path) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    words = [word for call in calls if ast.unparse(call.func) == "setting" for word in call.keywords]
    called = {word.arg for word in words if word.arg is not None}  # what a mapping names are options themselves
    return called.union(*(re.findall(r"`([a-z_]+)`", text) for text in messages(path)))


def test_an_option_that_a_message_names_exists() -> None:
    known = options(root) | {"--debug", "--help", "--help-all", "--version"} | OTHER_PROGRAMS | OTHER_WORDS.keys()
    named = [
        (path.name, name)
        for path in FILES
        for text in messages(path)
        for name in re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", text)
    ]
    assert len(named) > 50
    assert not [(path, name) for path, name in named if name not in known]


COMMANDS = {Path("execution/command.py"), Path("execution/batch/schedule.py"), Path("execution/batch/serve.py")}
"""Modules that make commands, which name options."""


def test_no_message_names_an_option_to_those_who_type_none() -> None:
    """In Python and in YAML files there are no options: messages name settings, and the command line turns them."""
    mine = (options(root) | {"--{}"}) - OTHER_PROGRAMS
    wrong = [
        f"{path.name}: {text}"
        for path in FILES
        # What is typed to make a run again is a command, and not a message; so is what scripts for other programs type.
        if path.parent.name not in ("cli", "scripts") and path.relative_to(PACKAGE) not in COMMANDS
        for text in messages(path)
        if mine & set(re.findall(r"(?<![\w-])(?:--(?:[a-z-]+|{})|-m\b)", text)) and not COMMAND.search(text)
    ]
    assert not wrong


def parameters(command: click.Command) -> set[str]:
    mine = {parameter.name or "" for parameter in command.params}
    return mine.union(*(parameters(c) for c in getattr(command, "commands", {}).values()))


def test_a_setting_that_a_message_names_exists() -> None:
    known = parameters(root) | {"forward", "returns", "listener", "losses", "augment"}  # of a module, predict, fit
    found = {(path.name, name) for path in FILES for name in named_settings(path)}
    assert len(found) > 40
    assert not [(path, name) for path, name in found if name not in known]


def test_one_trouble_is_said_in_the_words_of_each_way_in(folder: Path, capsys: Err) -> None:
    """An output that exists: from Python, on the command line and in a jobs file."""
    import tilepipe as tp

    (folder / "two.yaml").write_text("images: scene.tif\nmodel: tiny.model\noutput: '{stem}.labels.tif'\n")
    (folder / "out.tif").touch()
    with pytest.raises(tp.TilepipeError, match=r"out\.tif exists; use `overwrite=True` or another output"):
        tp.segment("scene.tif", "tiny.model", "out.tif")
    assert main(S.split()) == 2
    assert "out.tif exists; use --overwrite or another output" in capsys.readouterr().err
    (folder / "scene.labels.tif").touch()
    assert main(["batch", "run", "two.yaml"]) == 3
    assert "scene.labels.tif exists; use --overwrite or another output" in capsys.readouterr().err


def test_all_text_goes_through_the_one_door() -> None:
    doors = [
        path.name
        for path in (PACKAGE / "cli").glob("*.py")
        if path.name != "say.py" and re.search(r"click\.(echo|secho)\(|\bprint\(", path.read_text(encoding="utf-8"))
    ]
    # The live line is drawn by rich, which gets cleaned text alone.
    assert doors == ["screen.py"]
    said = Event("predict", message="warning: \x1b[31mred")
    assert "\\u001b[31mred" in str(lasting(said, ""))
    assert "\\u001b[2J.tif: " in str(lasting(said, "\x1b[2J.tif"))


def test_names_of_files_are_not_obeyed(image: Path, model: Path, capsys: Err) -> None:
    evil = image.with_name(f"a{ESCAPE}\nFAKE done.tif")
    image.rename(evil)
    assert main(["segment", str(evil), "-m", str(model)]) == 0
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert "\x07" not in out + err
    assert len(out.splitlines()) == 1
    assert not any(line.startswith("FAKE") for line in (out + err).splitlines())
    assert main(["info", str(evil)]) == 0
    assert main(["info", f"no{ESCAPE}.tif"]) == 4
    assert main(["segment", str(evil), f"--no{ESCAPE}"]) == 2
    assert "\x1b" not in "".join(capsys.readouterr())


def test_names_of_classes_are_not_obeyed(image: Path, model: Path, capsys: Err) -> None:
    """Control characters are refused; what turns text around or is no character in XML becomes visible."""
    evil = image.with_name("evil.model")
    shutil.copytree(model, evil)
    card = json.loads((evil / "model.json").read_text())
    (evil / "model.json").write_text(json.dumps(card | {"classes": [f"red{ESCAPE}", "b"]}))
    assert main(["info", str(evil)]) == 5
    assert "\x1b" not in "".join(capsys.readouterr())
    card["classes"] = ["red\u202eder", '"]]></x>\uffff']
    (evil / "model.json").write_text(json.dumps(card))
    output = image.with_name("out.tif")
    assert main(["segment", str(image), str(output), "-m", str(evil), "-q", "--of", "cog,geojson"]) == 0
    names = minidom.parse(f"{output}.aux.xml").getElementsByTagName("Category")
    assert [name.firstChild.data for name in names] == ["red\\u202eder", '"]]></x>\\uffff']  # type: ignore[union-attr]
    for words in (["info", str(evil)], ["model", "card", str(evil)], ["evaluate", str(output), str(output)]):
        assert main(words) == 0
        assert "\u202e" not in "".join(capsys.readouterr())
    assert main(["info", str(evil), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["classes"] == card["classes"]


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_quiet_never_hides_why(image: Path, model: Path, capsys: Err) -> None:
    """A batch says which image failed and why; a literal name with brackets is that file."""
    shutil.copy(image, image.with_name("scene [1].tif"))
    half(image)
    jobs = image.with_name("jobs.yaml")
    jobs.write_text(f"images: ['scene [1].tif', scene.tif]\nmodel: {model}\noutput: out/{{stem}}.tif\n")
    assert main(["batch", "run", str(jobs), "-q"]) == 3
    out, err = capsys.readouterr()
    assert sorted(line.split("\t")[0] for line in out.splitlines()) == ["done", "failed"]
    lines = err.splitlines()
    assert all(line.startswith("tilepipe: ") for line in lines)
    assert any(str(image) in line and len(line) > len(str(image)) + 30 for line in lines)


def test_quiet_says_which_tiles_have_no_labels(image: Path, model: Path, capsys: Err) -> None:
    import rasterio

    with rasterio.open(image) as file:
        offset, size = (int(file.get_tag_item(f"BLOCK_{what}_0_0", "TIFF", bidx=1)) for what in ("OFFSET", "SIZE"))
    content = bytearray(image.read_bytes())
    content[offset : offset + size] = bytes(size)
    image.write_bytes(content)
    assert main(["segment", str(image), str(image.with_name("o.tif")), "-m", str(model), "-q"]) == 3
    err = capsys.readouterr().err
    assert err.startswith("tilepipe: no labels: ")
    assert "rows" in err


def test_a_picture_of_verify_is_refused_before_anything_is_computed(
    image: Path, model: Path, capsys: Err, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(image.parent)
    assert main(["segment", "scene.tif", "o.tif", "-m", str(model), "-q"]) == 0
    for name, sentence in (("x.tif", "give x.png"), ("none/x.png", "make it first")):
        assert main(["verify", "o.tif", "--picture", name]) == 2
        _, err = capsys.readouterr()
        assert sentence in err
        assert "verify" not in err


def test_why_a_product_of_a_finished_run_is_not_known_again(image: Path, model: Path, capsys: Err) -> None:
    output = image.with_name("o.tif")
    words = ["segment", str(image), str(output), "-m", str(model), "-q"]
    assert main(words) == 0
    (record,) = image.parent.glob(".o.tif.tilepipe/*/run.json")
    whole, product = record.read_bytes(), output.read_bytes()
    record.write_bytes(whole[:-30])
    assert main(words) == 2
    assert f"exists, and {record}, which would say whether it is complete, is damaged" in capsys.readouterr().err
    record.write_bytes(whole)
    output.write_bytes(product + b"x")
    assert main(words) == 2
    assert "was changed since tilepipe wrote it; use --overwrite" in capsys.readouterr().err


def test_fail_is_not_content_with_a_finished_run_that_has_tiles_without_labels(
    image: Path, model: Path, capsys: Err
) -> None:
    import rasterio

    with rasterio.open(image) as file:
        offset, size = (int(file.get_tag_item(f"BLOCK_{what}_0_0", "TIFF", bidx=1)) for what in ("OFFSET", "SIZE"))
    content = bytearray(image.read_bytes())
    content[offset : offset + size] = bytes(size)
    image.write_bytes(content)
    output = image.with_name("o.tif")
    words = ["segment", str(image), str(output), "-m", str(model), "-q"]
    assert main(words) == 3
    before = output.read_bytes()
    capsys.readouterr()
    assert main([*words, "--on-tile-error", "fail"]) == 4
    assert "--overwrite tries them again" in capsys.readouterr().err
    assert main(words) == 3  # complete as it was
    assert output.read_bytes() == before


def test_memory_that_runs_out_is_no_bug(image: Path, model: Path, capsys: Err, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("tilepipe.sources.geotiff.GeoTiffSource.read", full)
    assert main(["segment", str(image), str(image.with_name("o.tif")), "-m", str(model), "-q"]) in (3, 4, 7)
    assert "bug" not in capsys.readouterr().err
