"""Jobs files: what is refused, what matches, and that outputs never collide or escape."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilepipe.errors import UsageError
from tilepipe.execution.batch.items import BatchItem, expand, safe_name
from tilepipe.execution.batch.jobs_file import Jobs, output_folder, read_jobs

PIPELINES = Path(__file__).parents[3] / "pipelines"


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def outputs(jobs: list[BatchItem], root: Path) -> dict[str, str]:
    return {str(j.image.relative_to(root)): str(j.output.relative_to(root)) for j in jobs}


def refusal(tmp_path: Path, text: str) -> str:
    (tmp_path / "jobs.yaml").write_text(text)
    with pytest.raises(UsageError) as caught:
        read_jobs(tmp_path / "jobs.yaml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("images: [a.tif]\nmodle: m", "'modle' is unknown; did you mean 'model'?"),
        (
            "images: [a.tif]\nmodel: m\nzzz: 1",
            "known are exclude, images, incremental, index, manifest, metrics, model, modified_after, of, output, "
            "settings, settle",
        ),
        ("images: []\nmodel: m", "it needs 'images:'"),
        ("model: m", "it needs 'images:' or 'manifest:'"),
        ("images: a.tif\nmodel: m\noutput: labels.tif", "{stem}"),
        ("images: a.tif\nmodel: m\noutput: '{stm}.tif'", "{stm} is not a field"),
        ("images: a.tif\nmodel: m\noutput: '{stem.__class__}.tif'", "is not a field"),
        ("images: a.tif\nmodel: m\noutput: '{stem!r}.tif'", "is not a field"),
        ("images: a.tif\nmodel: m\noutput: '{dir}/../{stem}.tif'", "'..' cannot follow"),
        ("images: a.tif\nmodel: m\noutput: '{dir}x/{stem}.tif'", "{dir} is a whole part"),
        ("images: a.tif\nmodel: m\noutput: '{stem.tif'", "is not a template"),
        ("images: https://host/a.tif?sig=SECRET\nmodel: m", "names https://host/a.tif, which is not on this machine"),
        ("images: [a.tif, s3://bucket/a.tif]\nmodel: m", "names s3://bucket/a.tif"),
        ("just words", "holds no jobs"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_wrong_jobs_file_is_refused_with_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    assert sentence in refusal(tmp_path, text)


def test_a_missing_jobs_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        read_jobs(tmp_path / "none.yaml")


def test_globs_keep_the_folders_below_their_start(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.tif", "in/x/a.tif", "in/x/y/b.tif", "in/.hidden.tif", "in/c.png")
    jobs = Jobs(images=("in/**/*.tif",), model="m", output="out/{dir}/{stem}.labels.tif")
    assert outputs(expand(jobs, tmp_path), tmp_path) == {
        "in/a.tif": "out/a.labels.tif",
        "in/x/a.tif": "out/x/a.labels.tif",
        "in/x/y/b.tif": "out/x/y/b.labels.tif",
    }


def test_a_list_and_a_glob_take_each_image_once(tmp_path: Path) -> None:
    touch(tmp_path, "a.tif", "b.tif")
    jobs = Jobs(images=("a.tif", "*.tif", "./a.tif"), model="m")
    assert outputs(expand(jobs, tmp_path), tmp_path) == {"a.tif": "a.labels.tif", "b.tif": "b.labels.tif"}


def test_outputs_beside_the_images_are_not_images_the_next_time(tmp_path: Path) -> None:
    jobs = Jobs(images=("*.tif",), model="m")
    touch(tmp_path, "a.tif")
    first = expand(jobs, tmp_path)
    touch(tmp_path, "a.labels.tif", "gone.labels.tif")
    assert expand(jobs, tmp_path, frozenset({tmp_path / "gone.labels.tif"})) == first


def test_an_image_that_would_be_its_own_output_is_never_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "a.tif", "b.tiff")
    with pytest.raises(UsageError, match=r"an output of .*a\.tif would be .*a\.tif, which is an image"):
        expand(Jobs(images=("*.tif*",), model="m", output="{stem}.tif"), tmp_path)


def test_a_listed_image_that_does_not_exist_stays_listed(tmp_path: Path) -> None:
    jobs = Jobs(images=("missing.tif",), model="m")
    assert expand(jobs, tmp_path)[0].image == tmp_path / "missing.tif"


@pytest.mark.parametrize(
    ("names", "template", "sentence"),
    [
        (["a.tif", "a.svs"], "{stem}.labels.tif", "a.svs and .*a.tif would share the output"),
        (["x/a.tif", "y/a.tif"], "out/{stem}.tif", "x/a.tif and .*y/a.tif would share the output"),
        (["A.tif", "a.tif"], "out/{stem}.tif", "would share the output"),
        (["e\u0301.tif", "\u00e9.tif"], "out/{stem}.tif", "would share the output"),
        (["a.tif"], "{stem}.tif", "which is an image"),
    ],
)
def test_collisions_are_refused_up_front(tmp_path: Path, names: list[str], template: str, sentence: str) -> None:
    touch(tmp_path, *names)
    with pytest.raises(UsageError, match=sentence):
        expand(Jobs(images=tuple(names), model="m", output=template), tmp_path)


def test_products_beside_an_output_do_not_collide_either(tmp_path: Path) -> None:
    touch(tmp_path, "x", "x.tif")
    jobs = Jobs(images=("x", "x.tif"), model="m", output="out/{name}", of=("cog", "geojson"))
    with pytest.raises(UsageError, match=r"would share the output .*out/x\.tif"):
        expand(jobs, tmp_path)


@pytest.mark.parametrize(
    ("output", "of", "sentence"),
    [
        ("{stem}", (), "says no product"),
        ("{stem}.tif", ("geojson",), "is a cog file"),
        ("{stem}", ("cgo",), "not known"),
    ],
)
def test_an_output_that_is_no_product_is_refused_up_front(
    tmp_path: Path, output: str, of: tuple[str, ...], sentence: str
) -> None:
    touch(tmp_path, "a.svs")
    with pytest.raises(UsageError, match=sentence):
        expand(Jobs(images=("a.svs",), model="m", output=output, of=of), tmp_path)


def test_nothing_matches(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no image matches \*.tif"):
        expand(Jobs(images=("*.tif",), model="m"), tmp_path)


def test_a_link_out_of_the_output_folder_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "in/x/a.tif", "elsewhere/keep")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=r"outside .*is there a link"):
        expand(Jobs(images=("in/**/*.tif",), model="m", output="out/{dir}/{stem}.tif"), tmp_path)


@settings(max_examples=100, deadline=None)
@given(st.text(min_size=1, max_size=40))
def test_a_safe_name_is_one_plain_part_of_a_path(name: str) -> None:
    safe = safe_name(name)
    folder = Path("/out")
    assert (folder / safe).parent == folder
    assert safe not in (".", "..")
    assert not any(ord(c) < 32 or c in '/\\:*?"<>|' for c in safe)
    assert safe == unicodedata.normalize("NFC", safe) == safe_name(safe)
    safe.encode()


def test_usual_names_are_kept() -> None:
    for name in ("a.tif", "TCGA-CR-7395-01A-01-TS1.svs", "Zürich 2020 (1).tif", "..a"):
        assert safe_name(name) == name
    assert safe_name("con.tif") == "_con.tif"


def test_the_pipelines_that_come_with_it_are_right() -> None:
    for path in PIPELINES.glob("batch_*.yaml"):
        jobs = read_jobs(path)
        assert expand(jobs, path.parent)
        assert output_folder(jobs, path.parent).is_relative_to(PIPELINES.parent / "demo-output")


def test_layers_are_outputs_too(tmp_path: Path) -> None:
    touch(tmp_path, "a.tif", "a.margin.tif")
    settings = {"layers": "margin"}
    jobs = Jobs(images=("a.tif",), model="m", output="out/{stem}.tif", of=("cog", "geojson"), settings=settings)
    (job,) = expand(jobs, tmp_path)
    assert [path.name for path in job.products] == ["a.tif", "a.geojson", "a.margin.tif"]
    both = Jobs(images=("a.tif", "a.margin.tif"), model="m", output="out/{stem}.tif", settings=settings)
    with pytest.raises(UsageError, match=r"would share the output .*a\.margin\.tif"):
        expand(both, tmp_path)
