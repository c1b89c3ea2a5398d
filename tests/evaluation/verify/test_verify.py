"""verify on real runs: what is right holds, what is planted is found."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from torch import nn

import tilepipe as tp
from tilepipe.box import Box, Sides
from tilepipe.errors import InputError
from tilepipe.evaluation.verify.finished_run import find_run
from tilepipe.evaluation.verify.verify import verify
from tilepipe.planning import planner
from tilepipe.planning.certify import read_certificate
from tilepipe.planning.receptive_field import MEASURED, Reach
from tilepipe.testing import noise, random_unet

IMAGE = noise(330, 400)
CUT: dict[str, Any] = {"tile": 96, "overlap": 64, "block": 128}


@pytest.fixture(scope="module")
def model() -> tp.Model:
    return random_unet(width=3)


@pytest.fixture(scope="module")
def exact(model: tp.Model, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tp.segment(IMAGE, model, tmp_path_factory.mktemp("exact") / "labels.tif", **CUT)


def test_an_exact_run_holds(exact: Any, model: tp.Model, tmp_path: Path) -> None:
    found = verify(exact, IMAGE, model, windows=6, picture=tmp_path / "seen.png")
    assert found.holds, found
    assert len(found.windows) == 6
    assert {window.place for window in found.windows} == {"rows", "columns", "block"}
    assert found.whole.flips.different == 0
    assert found.whole.flips.pixels > 6 * 40 * 96
    assert found.error is not None
    assert found.error < 1e-5
    assert found.shifted is not None
    assert found.shifted.flips.different == 0
    assert found.shifted.flips.pixels == 32 * 32
    assert found.neighbours.worst > 0.01  # halos differ; what is kept does not
    assert found.again is not None
    assert (found.again.different, found.again.pixels) == (0, found.whole.flips.pixels)
    assert found.stored is not None
    assert (found.stored.where, found.stored.blocks, found.stored.wrong) == ("labels.tif", 9, ())
    assert found.seams is None or not found.seams.found
    with Image.open(tmp_path / "seen.png") as picture:
        assert picture.width > 400


def test_the_error_goes_into_the_certificate(exact: Any, model: tp.Model) -> None:
    found = verify(exact, IMAGE, model, windows=2)
    run = find_run(exact.paths[0])
    assert run is not None
    certificate = read_certificate(run.directory)
    assert (certificate.mode, certificate.error) == ("EXACT", found.error)
    again = tp.segment(IMAGE, model, exact.paths[0], **CUT)
    assert again.certificate == certificate
    assert "Largest difference to a pass without seams" in certificate.sentences[1]


@pytest.mark.parametrize("name", [pytest.param("a.margin.tif", marks=pytest.mark.long), "b.labels.geojson"])
def test_any_product_of_a_run_stands_for_it(name: str, model: tp.Model, tmp_path: Path) -> None:
    tp.segment(IMAGE, model, tmp_path / "a.tif", **CUT, layers="margin")
    tp.segment(IMAGE, model, tmp_path / "b.labels.tif", **CUT, of=["cog", "geojson"])
    found = find_run(tmp_path / name)
    assert found is not None
    assert name in found.record["contents"]
    (tmp_path / "c.tif").touch()
    assert find_run(tmp_path / "c.tif") is None


def measured_as(monkeypatch: pytest.MonkeyPatch, halo: int) -> None:
    """Let what is measured be another halo than is right."""
    reach = Reach(Sides(halo, halo, halo, halo), MEASURED)
    monkeypatch.setattr(
        planner, "measure_receptive_field", lambda model, *_: (model.card.model_copy(update={"halo": halo}), reach)
    )


def test_a_halo_that_is_too_small_is_found(model: tp.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured_as(monkeypatch, 4)
    result = tp.segment(IMAGE, model, tmp_path / "labels.tif", tile=64)
    assert result.certificate.mode == "EXACT"
    found = verify(result, IMAGE, model, windows=4)
    assert not found.holds
    assert "differ from a pass without seams" in found.problems[0]
    assert tp.segment(IMAGE, model, tmp_path / "labels.tif", tile=64).certificate.mode == "UNCERTIFIED"


class Coarse(nn.Module):
    """Subsamples by 4, whatever its card says."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        small = nn.functional.max_pool2d(self.conv(x), 4, ceil_mode=True)
        return nn.functional.interpolate(small, scale_factor=4)[..., : x.shape[2], : x.shape[3]]


def test_a_wrong_stride_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured_as(monkeypatch, 4)
    torch.manual_seed(0)
    card = tp.ModelCard(bands=3, classes=["a", "b"], mean=[127] * 3, std=[60] * 3, stride=1, halo=4)
    liar = tp.Model.from_torch(Coarse(), card)
    result = tp.segment(IMAGE, liar, tmp_path / "labels.tif", tile=98, overlap=8)
    found = verify(result, IMAGE, liar, windows=4)
    assert result.certificate.mode == "EXACT"
    assert not found.holds


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_changed_labels_on_disk_are_found(model: tp.Model, tmp_path: Path) -> None:
    result = tp.segment(IMAGE, model, tmp_path / "labels.tif", **CUT)
    with rasterio.open(result.paths[0]) as file:
        profile, labels = file.profile, file.read(1)
        tags, palette = file.tags(), file.colormap(1)
    labels[130:300, 130:300] = (labels[130:300, 130:300] + 1) % 3
    result.paths[0].unlink()
    with rasterio.open(result.paths[0], "w", **(profile | {"driver": "GTiff"})) as file:
        file.write(labels, 1)
        file.update_tags(**tags)
        file.write_colormap(1, palette)
    found = verify(result.paths[0], IMAGE, model, windows=6)
    assert found.stored is not None
    assert found.stored.wrong == ((1, 1), (1, 2), (2, 1), (2, 2))
    assert found.again is not None
    assert found.again.different > 0
    assert found.whole.flips.different == 0
    assert len(found.problems) == 3


def test_a_damaged_product_does_not_hold(model: tp.Model, tmp_path: Path) -> None:
    result = tp.segment(IMAGE, model, tmp_path / "damaged.tif", **CUT)
    path, whole = result.paths[0], result.paths[0].read_bytes()
    path.write_bytes(whole[: len(whole) // 3])
    found = verify(result, IMAGE, model, windows=1)
    assert not found.holds
    assert "blocks on disk are not those of the ledger" in found.problems[-1]
    assert found.stored is not None
    assert len(found.stored.wrong) == found.stored.blocks > 0
    path.unlink()
    with pytest.raises(InputError, match="no product of this run is left"):
        verify(result, IMAGE, model, windows=1)


def test_an_image_that_was_moved_is_asked_for(model: tp.Model, tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    pixels = IMAGE.read(tp.Box.of_shape(*IMAGE.shape[1:]))
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=pixels.shape[1], width=pixels.shape[2], dtype="uint8",
        crs="EPSG:32631", transform=rasterio.Affine(1, 0, 9, 0, -1, 9),
    ) as file:  # fmt: skip
        file.write(pixels)
    result = tp.segment(path, model, tmp_path / "moved.tif", **CUT)
    path.rename(tmp_path / "elsewhere.tif")
    with pytest.raises(
        InputError, match=r"image\.tif, the image of this run, is no longer there; name it with `image`"
    ):
        verify(result, model=model, windows=1)
    assert verify(result, tmp_path / "elsewhere.tif", model, windows=1).holds


def test_a_region_at_another_resolution_is_compared_pixel_by_pixel(model: tp.Model, tmp_path: Path) -> None:
    coarse = tp.Model.from_torch(model.module, model.card.model_copy(update={"resolution": 1.5}))
    image = tp.open_source(noise(420, 500).read(Box.of_shape(420, 500)))
    image.resolution = tp.sources.base.Resolution(1.0, 1.0)  # type: ignore[misc]
    result = tp.segment(image, coarse, tmp_path / "part.tif", region=Box(31, 17, 401, 480), **CUT)
    found = verify(result, image, coarse, windows=3)
    assert found.holds, found
    assert found.stored is not None
    assert found.stored.blocks == 0
    assert found.again is not None
    assert found.again.pixels > 1.5 * found.whole.flips.pixels


def test_a_run_inside_tissue_is_compared_inside_it(model: tp.Model, tmp_path: Path) -> None:
    image = np.full((3, 330, 400), 240, np.uint8)
    image[1, 90:240, 80:260] = 90  # a stain on glass
    result = tp.segment(image, model, tmp_path / "labels.tif", mask="tissue", **CUT)
    assert result.plan.mask.startswith("tissue/2+")
    found = verify(result, image, model, windows=2)
    assert found.holds, found
    assert found.again is not None
    assert found.again.pixels > 0


def test_blended_runs_promise_nothing_and_are_measured(model: tp.Model, tmp_path: Path) -> None:
    result = tp.segment(IMAGE, model, tmp_path / "labels.tif", tile=64, overlap=16)
    found = verify(result, IMAGE, model, windows=4)
    assert found.holds, found
    assert found.certificate is not None
    assert found.certificate.mode == "BLEND"
    assert found.whole.flips.different > 0
    assert found.shifted is not None
    assert found.shifted.worst > 1e-3
    assert found.again is not None
    assert found.again.different == 0
    verdict = str(found).splitlines()[-1]
    assert "what is on disk holds: " in verdict, "and nothing more"
    assert f"{found.again.pixels} labels on disk are those computed again; " in verdict
    assert verdict.endswith(". But seams are not judged, as the certificate claims nothing about them (BLEND)")


def test_a_global_model_in_halves_of_precision(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.InstanceNorm2d(4), nn.Conv2d(4, 2, 3, padding=1))
    model = tp.Model.from_torch(net, tp.ModelCard(bands=3, classes=["a", "b"], mean=[127] * 3, std=[60] * 3))
    result = tp.segment(IMAGE, model, tmp_path / "labels.tif", tile=64, precision="bf16")
    found = verify(result, IMAGE, model, windows=2)
    assert found.holds, found
    assert found.certificate is not None
    assert found.certificate.precision == "bf16"


@pytest.mark.parametrize("window", ["crop", pytest.param("gaussian", marks=pytest.mark.long)])
def test_a_run_in_fp64(window: str, model: tp.Model, tmp_path: Path) -> None:
    result = tp.segment(
        IMAGE, model, tmp_path / "labels.tif", tile=96, window_shape=window, tolerance=0, precision="fp64"
    )
    found = verify(result, IMAGE, model, windows=2)
    assert found.holds, found
    assert found.comparable
    assert found.certificate is not None
    assert found.certificate.precision == "fp64"
    assert found.again is not None
    assert found.again.different == 0
    if window == "crop":
        assert found.limit == 1e-5
        assert found.whole.flips.different == 0
        assert found.whole.worst < 1e-6


def test_json_and_table_say_the_same(exact: Any, model: tp.Model) -> None:
    found = verify(exact, IMAGE, model, windows=1)
    facts = json.loads(found.to_json())
    assert facts["holds"] is True
    assert facts["windows"][0]["box"] == found.windows[0].box.to_list()
    assert "verdict" in str(found)
    assert "holds" in str(found).splitlines()[-1]


def test_nothing_is_computed_without_windows(exact: Any, model: tp.Model) -> None:
    found = verify(exact, IMAGE, model, windows=0)
    assert (found.windows, found.shifted, found.error) == ((), None, None)
    assert found.stored is not None


def test_bad_questions(exact: Any, model: tp.Model, tmp_path: Path) -> None:
    with pytest.raises(tp.TilepipeError, match="given from Python"):
        verify(exact.paths[0])
    with pytest.raises(tp.TilepipeError, match="is not what"):
        verify(exact.paths[0], noise(330, 400, seed=5), model)
    with pytest.raises(tp.TilepipeError, match="does not exist"):
        verify(tmp_path / "none.tif")
    np.save(tmp_path / "x.npy", np.zeros(3))
    with pytest.raises(tp.TilepipeError, match="`tile`"):
        verify(tmp_path / "x.npy")
    with pytest.raises(tp.TilepipeError, match="'window' is not known"):
        verify(exact.paths[0], window=3)  # type: ignore[call-arg]


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_layer_that_was_changed_is_found(model: tp.Model, tmp_path: Path) -> None:
    result = tp.segment(IMAGE, model, tmp_path / "a.tif", **CUT, layers=["entropy", "margin"])
    assert verify(result, IMAGE, model, windows=0).holds
    with rasterio.open(tmp_path / "a.entropy.tif", "r+", IGNORE_COG_LAYOUT_BREAK="YES") as file:
        values = file.read(1)
        values[200, 300] ^= 1
        file.write(values, 1)
    found = verify(result, IMAGE, model, windows=0)
    assert found.problems == (
        "a.entropy.tif was changed since it was written",
        "1 of 9 blocks on disk are not those of the ledger: entropy",
    )
    assert found.stored is not None
    assert found.stored.wrong == ((1, 2),)
    assert verify(tmp_path / "a.entropy.tif", IMAGE, model, windows=0).problems == found.problems
    (tmp_path / "a.entropy.tif").unlink()
    assert verify(result, IMAGE, model, windows=0).problems == ("a.entropy.tif is gone",)


def flipped(path: Path) -> None:
    """One bit in the middle of a file, its time as before."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def edited(path: Path) -> None:
    path.write_text(path.read_text().replace("1", "2", 1))


@pytest.mark.parametrize(
    ("where", "damage", "says"),
    [
        ("out.ome.zarr/labels/*/0/c/0/0", flipped, "out.ome.zarr "),
        ("out.ome.zarr/labels/*/0/c/0/0", Path.unlink, "out.ome.zarr was changed since it was written"),
        ("out.geojson", cut, "out.geojson is damaged"),
        ("out.geojson", edited, "out.geojson was changed since it was written"),
        ("out.margin.tif", cut, "out.margin.tif is damaged"),
        ("out.margin.tif", Path.unlink, "out.margin.tif is gone"),
        ("out.tif.aux.xml", Path.unlink, "out.tif.aux.xml is gone"),
        ("out.qml", Path.unlink, "out.qml is gone"),
    ],
)
def test_every_product_is_checked(where: str, damage: Any, says: str, several: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(several, folder)
    asked = folder / "out.tif", IMAGE, random_unet(depth=1)
    assert verify(*asked, windows=0).holds
    damage(next(iter(sorted(folder.glob(where)))))
    assert says in verify(*asked, windows=0).problems[0]


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with three products and a layer."""
    folder = tmp_path_factory.mktemp("several")
    of = ["cog", "ome-zarr", "geojson"]
    tp.segment(IMAGE, random_unet(depth=1), folder / "out.tif", of=of, layers="margin", tile=96, block=128)
    return folder


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_run_of_one_tile_is_compared_too(model: tp.Model, tmp_path: Path) -> None:
    """It has no seam to look at; its labels are computed again all the same, and wrong ones are found."""
    image = noise(90, 80)
    run = tp.segment(image, model, tmp_path / "one.tif")
    assert run.plan.tile_count == 1
    found = verify(run, image, model)
    assert found.again is not None
    assert (found.holds, found.again.pixels > 0, found.again.different) == (True, True, 0)
    with rasterio.open(run.paths[0], "r+", driver="GTiff", IGNORE_COG_LAYOUT_BREAK="YES") as file:
        file.write((file.read(1) + 1) % 3, 1)
    wrong = verify(run, image, model)
    assert not wrong.holds
    assert "labels on disk are not those computed again" in str(wrong)


def test_the_model_of_another_run_is_refused(model: tp.Model, tmp_path: Path) -> None:
    image = noise(90, 80)
    run = tp.segment(image, model, tmp_path / "one.tif")
    with pytest.raises(InputError, match=r"is not what .* was made from"):
        verify(run, image, random_unet(width=3, seed=9))


def test_where_nothing_was_compared_nothing_holds(exact: Any, model: tp.Model, tmp_path: Path) -> None:
    empty = tp.segment(np.full((3, 90, 80), 7, np.uint8), model, tmp_path / "empty.tif", mask="value:7")
    found = verify(empty, np.full((3, 90, 80), 7, np.uint8), model)
    assert not found.holds
    assert "no label was compared" in str(found)
    assert "holds" not in str(found).splitlines()[-1].split(":")[0]
    run = find_run(empty.paths[0])
    assert run is not None
    assert read_certificate(run.directory).mode == "EXACT"  # not tested is not refuted
    Image.fromarray(np.zeros((50, 60), np.uint8)).save(tmp_path / "labels.png")
    alone = verify(tmp_path / "labels.png", tile=32)
    assert not alone.holds
    assert "nothing was compared" in str(alone)
