"""What takes long to import is imported when it computes, not before: looked at in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tilepipe.models.facts import bundled_models
from tilepipe.models.probe.certificate_file import with_certificate
from tilepipe.products.cog import write_cog
from tilepipe.products.label_map import Legend, label_map_of
from tilepipe.testing import random_unet, write_model

HEAVY = ("torch", "dask", "distributed", "zarr", "pandas", "xarray", "scipy.ndimage", "scipy.sparse", "skimage.measure")
SAMPLE = Path(__file__).parents[2] / "pipelines" / "sample" / "banepa_east_rgb.tif"
ASK = """
import json, sys
from tilepipe.cli.main import main
code = main(sys.argv[1:])
print(json.dumps([code, sorted(sys.modules)]), file=sys.stderr)
"""


NEW = "import sys; before = set(sys.modules); import tilepipe; print(*set(sys.modules) - before)"


def modules_after(*words: str, cache: Path | None = None) -> set[str]:
    """Return the modules that a command has imported when it ends; nothing is kept from earlier processes but `cache`.

    A cache is a directory.
    """
    kept = {**os.environ, "TILEPIPE_CACHE": str(cache or "")}
    done = subprocess.run([sys.executable, "-c", ASK, *words], capture_output=True, text=True, check=False, env=kept)
    code, modules = json.loads(done.stderr.splitlines()[-1])
    assert code == 0, done.stderr
    return set(modules)


def test_importing_tilepipe_imports_nothing_of_others() -> None:
    done = subprocess.run([sys.executable, "-c", NEW], capture_output=True, text=True, check=True)
    libraries = {name.partition(".")[0] for name in done.stdout.split()}
    assert libraries - set(sys.stdlib_module_names) == {"tilepipe"}


def test_help_imports_no_library_that_computes() -> None:
    assert not {*HEAVY, "numpy", "rasterio", "pydantic"} & modules_after("--help")


def test_info_of_an_image_imports_its_reader_alone() -> None:
    found = modules_after("info", str(SAMPLE))
    assert not set(HEAVY) & found
    assert "rasterio" in found


@pytest.mark.parametrize("model", bundled_models())
def test_info_of_a_bundled_model_does_not_read_its_network(model: str) -> None:
    assert not {*HEAVY, "rasterio", "safetensors"} & modules_after("info", model, "--json")


@pytest.mark.parametrize(
    "options", [["--window", "0,0,600,600", "--memory", "4GiB"], pytest.param(["--json"], marks=pytest.mark.long)]
)
def test_a_plan_with_a_bundled_model_does_not_read_its_network(options: list[str]) -> None:
    assert not {*HEAVY, "safetensors"} & modules_after("plan", str(SAMPLE), "-m", "buildings", *options)


def test_a_finished_run_of_a_directory_does_not_read_its_network(tmp_path: Path) -> None:
    """Nor does a plan; the first run has kept what they need to know of it."""
    own = write_model(tmp_path / "own.model", with_certificate(random_unet()))
    part = (str(SAMPLE), "-m", str(own), "--window", "1100,1100,40,40")
    words = ("segment", part[0], str(tmp_path / "labels.tif"), *part[1:])
    first = modules_after(*words, cache=tmp_path / "cache")
    assert "torch" in first
    # The memory of its network is found from shapes alone. Torch's compiler takes 2 s to import.
    assert "torch._dynamo" not in first
    assert not {*HEAVY, "safetensors"} & modules_after(*words, cache=tmp_path / "cache")
    assert not {*HEAVY, "safetensors"} & modules_after("plan", *part, cache=tmp_path / "cache")


def test_export_computes_nothing_with_a_network(tmp_path: Path) -> None:
    """It opens neither torch nor Dask, whatever it makes of labels; OME-Zarr needs zarr, tables need pyarrow."""
    values = np.zeros((60, 80), np.uint8)
    values[10:30, 10:40] = 1
    write_cog(
        label_map_of(values, Legend("town", ("background", "roof"), ((0, 0, 0), (200, 100, 0)), 255)),
        tmp_path / "labels.tif",
    )
    of = "cog,ome-zarr,ome-tiff,geojson,vectors,geoparquet,csv,objects,qupath,png,report,stac"
    clean = ("--min-area", "3", "--fill-holes", "all", "--simplify", "1.5", "--smooth", "--split")
    found = modules_after("export", str(tmp_path / "labels.tif"), str(tmp_path / "made.tif"), "--of", of, *clean)
    assert not {"torch", "dask", "distributed", "xarray"} & found
    assert len({path.name for path in tmp_path.glob("made.*")} - {"made.tif.aux.xml", "made.qml"}) == of.count(",") + 1


@pytest.mark.long
def test_a_plan_that_must_run_the_network_reads_it() -> None:
    """Its level of exactness in fp64 is not among the facts."""
    assert "torch" in modules_after("plan", str(SAMPLE), "-m", "buildings", "--precision", "fp64")


@pytest.mark.long
def test_loading_a_model_does_not_import_the_compiler_of_torch() -> None:
    """Nor does `predict` import what writes products and runs."""
    code = "import sys, tilepipe as tp; tp.load_model('buildings'); tp.predict; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch._dynamo", "zarr", "tilepipe.products.cog", "tilepipe.sources.tissue"} & {*done.stdout.split()}


OWN = """
import json, sys
from tilepipe.supervisor import own_process
if sys.argv[1] == "own":
    own_process()
from tilepipe.cli.main import main
code = main(sys.argv[2:])
found = sorted(sys.modules)
import boto3
print(json.dumps([code, found]), file=sys.stderr)
"""


@pytest.mark.parametrize("whose", ["own", "somebody's"])
def test_a_command_that_labels_has_rasterio_without_boto3(tmp_path: Path, whose: str) -> None:
    """It is there again for whoever wants it later; in a process of somebody else, rasterio has it as always."""
    (tmp_path / "boto3.py").write_text("")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    words = [sys.executable, "-c", OWN, whose, "segment", str(SAMPLE), "-m", "buildings", "--dry-run"]
    done = subprocess.run(
        words, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path}, cwd=tmp_path
    )
    code, found = json.loads(done.stderr.splitlines()[-1])
    assert code == 0
    assert ("boto3" in found) == (whose != "own")
    assert not {"urllib3", "yaml", "tilepipe.products.polygons", "tilepipe.products.ome_zarr"} & set(found)


AGAIN = """
import sys
import tilepipe as tp
result = tp.segment(sys.argv[1], "buildings", sys.argv[2], window=(1100, 1100, 40, 40))
assert result.certificate.mode
print("torch" in sys.modules)
"""


@pytest.mark.long
def test_a_run_that_is_complete_opens_no_torch(tmp_path: Path) -> None:
    words = [sys.executable, "-c", AGAIN, str(SAMPLE), str(tmp_path / "labels.tif")]
    found = [subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[-1] for _ in range(2)]
    assert found == ["True", "False"]
