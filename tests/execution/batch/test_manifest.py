"""Manifests and filters: tables and STAC items name images; what leads elsewhere is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tilepipe.errors import InputError, UsageError
from tilepipe.execution.batch.items import expand
from tilepipe.execution.batch.jobs_file import Jobs
from tilepipe.execution.batch.manifest import images_of


def stems(folder: Path, **fields: object) -> list[str]:
    return [job.image.stem for job in expand(Jobs(model="m", **fields), folder)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "x").mkdir()
    for name in ("a.tif", "b.tif", "x/c.tif", "x/c_old.tif"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    "text",
    [
        "a.tif\nx/c.tif\n",
        "# two\n\nx/c.tif\na.tif\na.tif\n",
        "id,image\n1,a.tif\n2,x/c.tif\n",
        "\ufeffhref,other\nx/c.tif,1\na.tif,2\n",
    ],
)
def test_a_table_names_images(folder: Path, text: str) -> None:
    (folder / "list.csv").write_text(text)
    assert stems(folder, manifest="list.csv") == ["a", "c"]
    assert stems(folder, manifest="list.csv", images="b.tif") == ["a", "b", "c"]


def test_each_stac_item_is_an_image(folder: Path) -> None:
    def item(*hrefs: str) -> dict[str, object]:
        assets = {f"d{k}": {"href": href, "type": "image/tiff", "roles": ["data"]} for k, href in enumerate(hrefs)}
        assets["thumb"] = {"href": "t.png", "roles": ["thumbnail"]}
        return {"type": "Feature", "id": "i", "assets": assets}

    path = folder / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [item("./a.tif"), item("x/c.tif")]}))
    assert stems(folder, manifest="items.json") == ["a", "c"]
    path.write_text(json.dumps(item("a.tif", "b.tif")))
    with pytest.raises(InputError, match="names 2 GeoTIFFs that hold data"):
        images_of(path)
    path.write_text(json.dumps(item("https://example.org/a.tif")))
    with pytest.raises(InputError, match="not on this machine"):
        images_of(path)


def test_what_leads_elsewhere_is_refused(folder: Path) -> None:
    (folder / "x" / "list.csv").write_text("../a.tif\n")
    with pytest.raises(InputError, match="allow the other folder too"):
        stems(folder, manifest="x/list.csv")
    assert stems(folder, manifest="x/list.csv", settings={"allow": [str(folder)]}) == ["a"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no image"),
        ("a,b\n1,2\n", "no column that names images"),
        ("image,n\n,2\n", "names no image in row"),
        ("\xff\xfe", "cannot be read"),
    ],
)
def test_a_table_that_names_nothing(folder: Path, text: str, said: str) -> None:
    (folder / "list.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=said):
        images_of(folder / "list.csv")


def test_filters(folder: Path) -> None:
    assert stems(folder, images="**/*.tif", exclude="*_old.tif") == ["a", "b", "c"]
    assert stems(folder, images="**/*.tif", exclude=["x/*", "b.*"]) == ["a"]
    os.utime(folder / "a.tif", (1, 1))
    assert stems(folder, images="*.tif", modified_after="2000-01-01") == ["b"]
    with pytest.raises(UsageError, match="leave out all of 2 images"):
        stems(folder, images="*.tif", exclude="*.tif")
    with pytest.raises(ValueError, match="needs 'images:' or 'manifest:'"):
        Jobs(model="m")
