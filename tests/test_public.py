"""The public names: exactly these, sorted, each documented, and cheap to import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import tilepipe

PUBLIC = [
    "Box",
    "Model",
    "ModelCard",
    "Source",
    "TilepipeError",
    "evaluate",
    "fit",
    "load_model",
    "open_labels",
    "open_source",
    "plan",
    "predict",
    "probe",
    "segment",
    "verify",
]


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_is_exactly_the_public_names() -> None:
    assert tilepipe.__all__ == PUBLIC == sorted(PUBLIC)
    assert len(PUBLIC) <= 15
    assert dir(tilepipe) == sorted([*PUBLIC, "__version__"])


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    assert (getattr(tilepipe, name).__doc__ or "").strip()


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'segmnt'"):
        tilepipe.segmnt  # noqa: B018


def test_import_is_light() -> None:
    heavy = "{'torch', 'rasterio', 'openslide', 'zarr', 'dask', 'numpy', 'pydantic'}"
    assert run(f"import sys, tilepipe; print(sorted({heavy} & set(sys.modules)))").strip() == "[]"


def test_a_plan_does_not_import_torch() -> None:
    code = "import sys\nfrom tilepipe.planning.plan import Plan\nprint('torch' in sys.modules)"
    assert run(code).strip() == "False"


def test_no_room_bears_the_name_of_a_public_function() -> None:
    rooms = {path.stem for path in Path(tilepipe.__file__).parent.iterdir()}
    assert not rooms & set(PUBLIC)


def test_the_version_is_that_of_the_package() -> None:
    from importlib.metadata import version

    assert tilepipe.__version__ == version("tilepipe")
