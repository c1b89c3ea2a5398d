"""Images on servers: the same pixels as on this machine, one server alone is asked, and what fails gets a sentence."""

from __future__ import annotations

import json
import os
import pickle
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import zarr
from helpers.range_server import serving
from sources.conftest import UTM, noise_of

import tilepipe as tp
from tilepipe.errors import ChangedError, InputError, UsageError
from tilepipe.sources import remote_file
from tilepipe.sources.address import address_of
from tilepipe.sources.open import open_source
from tilepipe.sources.remote_url import url_of
from tilepipe.testing import codes_model

Write = Callable[..., Path]
WAYS: dict[str, dict[str, Any]] = {
    "tiled": {"tiled": True, "blockxsize": 128, "blockysize": 128, "compress": "deflate"},
    "strips": {"compress": "lzw"},
    "plain": {},
    "one strip": {"blockysize": 400, "compress": "deflate"},
    "mask": {"tiled": True, "blockxsize": 64, "blockysize": 64},
    "nodata": {"nodata": 7},
    "LERC": {"compress": "lerc", "tiled": True, "blockxsize": 64, "blockysize": 64},
}
BOXES = [tp.Box(0, 0, 400, 300), tp.Box(-9, -5, 30, 40), tp.Box(130, 120, 390, 310), tp.Box(399, 299, 400, 300)]


def holed(dataset: Any) -> None:
    mask = np.full((400, 300), 255, np.uint8)
    mask[50:90, 20:200] = 0
    dataset.write_mask(mask)


@pytest.fixture
def file(geotiff: Write) -> Path:
    return geotiff(noise_of((3, 400, 300)), "tiled.tif", **WAYS["tiled"], **UTM)


@pytest.mark.parametrize("way", WAYS)
def test_pixels_validity_and_place_are_those_of_the_file(way: str, geotiff: Write) -> None:
    options = {"GDAL_TIFF_INTERNAL_MASK": True}
    with rasterio.Env(**options):
        path = geotiff(noise_of((3, 400, 300)), then=holed if way == "mask" else None, **WAYS[way], **UTM)
    here = open_source(path)
    with serving({"/x/a.tif": path}) as server:
        there = open_source(f"{server.address}/x/a.tif")
        for name in ("shape", "dtype", "resolution", "georeference", "lossy", "complete"):
            assert getattr(there, name) == getattr(here, name), name
        for box in BOXES:
            np.testing.assert_array_equal(there.read(box), here.read(box))
            np.testing.assert_array_equal(there.valid(box), here.valid(box))
        again = pickle.loads(pickle.dumps(there))
        np.testing.assert_array_equal(again.read(BOXES[2]), here.read(BOXES[2]))


def test_threads_read_the_right_pixels(file: Path) -> None:
    here = open_source(file)
    boxes = [tp.Box(k, 2 * k, k + 90, 2 * k + 60) for k in range(0, 120, 3)]
    with serving({"/a.tif": file}) as server, ThreadPoolExecutor(4) as pool:
        there = open_source(f"{server.address}/a.tif")
        for box, found in zip(boxes, pool.map(there.read, boxes), strict=True):
            np.testing.assert_array_equal(found, here.read(box))


def test_labels_are_those_of_the_file_and_a_region_is_a_crop(geotiff: Write, tmp_path: Path) -> None:
    path = geotiff(np.random.default_rng(1).integers(0, 4, (1, 300, 200), dtype=np.uint8), **UTM)
    cut: dict[str, Any] = {"tile": 64, "overlap": 16}
    right = tp.segment(path, codes_model(4), tmp_path / "here.tif", **cut)
    with serving({"/a.tif": path}) as server:
        address = f"{server.address}/a.tif"
        found = tp.segment(address, codes_model(4), tmp_path / "there.tif", **cut)
        assert (tmp_path / "there.tif").read_bytes() == (tmp_path / "here.tif").read_bytes()
        region = tp.predict(address, codes_model(4), tp.Box(40, 50, 160, 150), **cut)
        np.testing.assert_array_equal(region, np.asarray(found.labels)[40:160, 50:150])
        assert tp.plan(address, codes_model(4), **cut).tile_count == right.plan.tile_count
        assert found.record["source"] == address


def test_only_the_bytes_of_a_region_are_sent(geotiff: Write) -> None:
    path = geotiff(noise_of((1, 3000, 3000)), **WAYS["tiled"], **UTM)
    with serving({"/a.tif": path}) as server:
        open_source(f"{server.address}/a.tif").read(tp.Box(1500, 1500, 1600, 1600))
        assert server.sent() < path.stat().st_size / 20


def test_nothing_beside_the_file_is_asked_for(file: Path) -> None:
    with serving({"/a.tif": file}) as server:
        open_source(f"{server.address}/a.tif").read(BOXES[0])
        assert {path for path, _ in server.asked} == {"/a.tif"}


def test_another_server_is_never_asked(file: Path) -> None:
    with serving({"/a.tif": file}) as other, serving({}, redirect=f"{other.address}/a.tif?key=SECRET") as server:
        with pytest.raises(InputError, match="only the server that you named is asked") as caught:
            open_source(f"{server.address}/a.tif")
        assert f"{other.address}/a.tif;" not in str(caught.value)
        assert f"leads to {other.address}/a.tif," in str(caught.value)
        assert "SECRET" not in str(caught.value)
        assert other.asked == []


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ({"files": {}}, "does not exist .*404"),
        ({"status": 403}, "may not be read .*403.*signature"),
        ({"status": 500}, "the server answers 500, 3 times; try again later"),
        ({"ranges": False}, "sends only whole files.*download it first"),
        ({"etag": "", "modified": ""}, "neither ETag nor Last-Modified"),
        ({"files": {"/a.tif": b"<html>login</html>"}}, "a page of HTML"),
        ({"files": {"/a.tif": b""}}, "is empty"),
        ({"files": {"/a.tif": b"II*\0 torn"}}, "cannot be opened"),
        ({"dies_after": 0}, "the server ends the connection, 3 times"),
    ],
)
def test_what_a_server_does_wrong_is_said(behaviour: dict[str, Any], words: str, file: Path) -> None:
    with serving(**{"files": {"/a.tif": file}, **behaviour}) as server:
        with pytest.raises(InputError, match=words) as caught:
            open_source(f"{server.address}/a.tif?sig=SECRET")
        assert "SECRET" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(InputError, match="takes no connection"):
        open_source("http://127.0.0.1:9/a.tif")


def test_a_server_that_dies_in_the_middle(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_file, "PAGE", 4096)
    with serving({"/a.tif": file}) as server:
        image = open_source(f"{server.address}/a.tif?sig=SECRET")
        image.read(tp.Box(0, 0, 10, 10))
        server.dies_after = len(server.asked)
        with pytest.raises(InputError, match="the server ends the connection") as caught:
            image.read(tp.Box(350, 250, 400, 300))
        assert "SECRET" not in str(caught.value)
        server.dies_after = None
        np.testing.assert_array_equal(image.read(BOXES[0]), open_source(file).read(BOXES[0]))


def test_a_file_that_changes_is_noticed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_file, "PAGE", 4096)
    with serving({"/a.tif": file}) as server:
        image = open_source(f"{server.address}/a.tif")
        before = image.identity()
        server.etag = '"second"'
        with pytest.raises(ChangedError, match="changed while it was being read"):
            image.read(tp.Box(350, 250, 400, 300))
        assert open_source(f"{server.address}/a.tif").identity() != before
        server.etag = '"first"'
        assert open_source(f"{server.address}/a.tif?other=signature").identity() == before


def test_slides_and_several_images_are_refused(slide: Write) -> None:
    files = {"/slide.svs": slide([noise_of((300, 400, 3)), noise_of((150, 200, 3))])}
    with serving(files) as server, pytest.raises(InputError, match=r"several images.*curl -O ADDRESS"):
        open_source(f"{server.address}/slide.svs")


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("http://192.0.2.1/a.tif", UsageError, "is not encrypted"),
        ("https://user:SECRET@192.0.2.1/a.tif", UsageError, "a name or a password"),
        ("https:///a.tif", UsageError, "names no host"),
        ("https://192.0.2.1/", UsageError, "names no file"),
        ("https://192.0.2.1/a b.tif", UsageError, "%20"),
        ("s3://bucket/../a.tif", UsageError, "names no file"),
        ("ftp://192.0.2.1/a.tif", InputError, "ftp:// is not read"),
        ("file:///etc/passwd", InputError, "file:// is not read"),
        ("/vsicurl/http://127.0.0.1/a.tif", InputError, "name the file itself"),
        ("/vsis3/bucket/a.tif", InputError, "name the file itself"),
    ],
)
def test_addresses_that_are_none(name: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        open_source(name)
    assert "SECRET" not in str(caught.value)


def test_options_of_an_address(file: Path) -> None:
    with serving({"/a.tif": file}) as server:
        address = f"{server.address}/a.tif"
        np.testing.assert_array_equal(
            open_source(address, bands=[3, 1]).read(BOXES[1]), open_source(file, bands=[3, 1]).read(BOXES[1])
        )
        assert open_source(address, resolution=2).resolution.y == 2
        with pytest.raises(UsageError, match=r"/a\.tif has no planes along z; leave `z` out") as refused:
            open_source(f"{address}?signature=secret", z=1)
        assert "secret" not in str(refused.value)
        with pytest.raises(UsageError, match="is no number") as refused:
            open_source(f"{address}?signature=secret", scene="red")
        assert "secret" not in str(refused.value)
        with pytest.raises(InputError, match="not `driver='HFA'`"):
            open_source(address, driver="HFA")


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An S3 on this machine, with keys in the environment."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "KEYID", "AWS_SECRET_ACCESS_KEY": "SECRET",
        "AWS_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    yield pytest.importorskip("boto3").client("s3")
    server.stop()


def test_an_image_in_s3(s3: Any, file: Path) -> None:
    pytest.importorskip("obstore")
    s3.create_bucket(Bucket="images")
    s3.upload_file(str(file), "images", "2024 north/a+b.tif")
    here, there = open_source(file), open_source("s3://images/2024 north/a+b.tif")
    assert there.name == "s3://images/2024 north/a+b.tif"
    for box in BOXES:
        np.testing.assert_array_equal(there.read(box), here.read(box))
    before = there.identity()
    assert open_source("s3://images/2024 north/a+b.tif").identity() == before
    s3.put_object(Bucket="images", Key="2024 north/a+b.tif", Body=file.read_bytes() + b" ")
    assert open_source("s3://images/2024 north/a+b.tif").identity() != before
    with pytest.raises(InputError, match=r"s3://images/c\.tif does not exist") as caught:
        open_source("s3://images/c.tif")
    assert not re.search("SECRET|KEYID|Signature", str(caught.value))


def test_a_bucket_without_keys(s3: Any, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    s3.create_bucket(Bucket="public")
    s3.put_object(Bucket="public", Key="a.tif", Body=file.read_bytes(), ACL="public-read")
    s3.put_object(Bucket="public", Key="b.tif", Body=file.read_bytes())
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    np.testing.assert_array_equal(open_source("s3://public/a.tif").read(BOXES[1]), open_source(file).read(BOXES[1]))
    with pytest.raises(InputError, match=r"may not be read .*set AWS_ACCESS_KEY_ID"):
        open_source("s3://public/b.tif")


CLOUDS = {
    ("s3://my-bucket/a/b.tif", "AWS_REGION=eu-west-1"): "https://my-bucket.s3.eu-west-1.amazonaws.com/a/b.tif",
    ("s3://my.bucket/b.tif", ""): "https://s3.us-east-1.amazonaws.com/my.bucket/b.tif",
    ("gs://bucket/a b.tif", ""): "https://storage.googleapis.com/bucket/a%20b.tif",
    ("az://box/b.tif", "AZURE_STORAGE_ACCOUNT_NAME=acc"): "https://acc.blob.core.windows.net/box/b.tif",
    ("az://box/b.tif", "AZURE_STORAGE_ACCOUNT_NAME=acc AZURE_STORAGE_SAS_TOKEN=?sv=1&sig=2"): (
        "https://acc.blob.core.windows.net/box/b.tif?sv=1&sig=2"
    ),
    ("https://host:8443/a%20b.tif?k=v", ""): "https://host:8443/a%20b.tif?k=v",
}


@pytest.mark.parametrize("asked", CLOUDS)
def test_the_url_that_is_asked_without_keys(asked: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    address, variables = asked
    for variable in variables.split():
        monkeypatch.setenv(*variable.split("=", 1))
    assert url_of(address_of(address)) == CLOUDS[asked]


KEYED = {
    "s3://bucket/a b.tif": ({"AWS_ACCESS_KEY_ID": "KEYID", "AWS_SECRET_ACCESS_KEY": "SECRET"}, "X-Amz-Signature="),
    "az://box/a.tif": (
        {"AZURE_STORAGE_ACCOUNT_NAME": "acc", "AZURE_STORAGE_ACCOUNT_KEY": "U0VDUkVU"}, "sig=",
    ),
}  # fmt: skip


@pytest.mark.parametrize("address", KEYED)
def test_a_url_is_signed_with_the_keys_of_the_environment(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("obstore")
    base = url_of(address_of(address)).split("?")[0] if address.startswith("s3") else ""
    for name, value in KEYED[address][0].items():
        monkeypatch.setenv(name, value)
    url = url_of(address_of(address))
    assert url.startswith(base)
    assert KEYED[address][1] in url
    assert not re.search("SECRET|U0VDUkVU", url)


def test_a_server_in_place_of_google_gets_the_request(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is a stand-in: Google's signatures and errors are not tried."""
    with serving({"/bucket/a.tif": file}) as server:
        monkeypatch.setenv("GOOGLE_BASE_URL", server.address)
        found = open_source("gs://bucket/a.tif").read(BOXES[2])
        np.testing.assert_array_equal(found, open_source(file).read(BOXES[2]))
    monkeypatch.setenv("GOOGLE_BASE_URL", "http://192.0.2.1")
    with pytest.raises(UsageError, match="must begin with https://"):
        open_source("gs://bucket/a.tif")
    with pytest.raises(UsageError, match="AZURE_STORAGE_ACCOUNT_NAME"):
        open_source("az://box/a.tif")


def test_no_file_smuggles_in_an_address(file: Path, tmp_path: Path) -> None:
    """A list, a VRT, a STAC item, a table and a Python list name an image on a server: the server is not asked."""
    with serving({"/a.tif": file}) as server:
        address = f"{server.address}/a.tif"
        (tmp_path / "list.txt").write_text(f"{file.name}\n{address}\n")
        item = {"type": "Feature", "stac_version": "1.0.0", "assets": {"a": {"href": address, "type": "image/tiff"}}}
        (tmp_path / "item.json").write_text(json.dumps(item))
        with rasterio.open(file) as dataset:
            rasterio.shutil.copy(dataset, tmp_path / "a.vrt", driver="VRT")
        for named in (address, f"/vsicurl/{address}"):
            vrt = (tmp_path / "a.vrt").read_text()
            (tmp_path / "remote.vrt").write_text(re.sub(r"(<SourceFilename[^>]*>)[^<]*", rf"\g<1>{named}", vrt))
            with pytest.raises(InputError, match="not on this machine"):
                open_source(tmp_path / "remote.vrt")
        for name in ("list.txt", "item.json"):
            with pytest.raises(InputError, match=r"only an address that you type is asked for an image"):
                open_source(tmp_path / name)
        with pytest.raises(InputError, match="only an address that you type"):
            open_source([str(file), address])
        assert server.asked == []


@pytest.mark.long
def test_a_zarr_in_s3_is_an_image_by_its_address_and_opened_with_zarr(s3: Any) -> None:
    store = pytest.importorskip("obstore.store")
    s3.create_bucket(Bucket="zarrs")
    options = {"client_options": {"allow_http": True}, "virtual_hosted_style_request": False}
    files = zarr.storage.ObjectStore(store.S3Store("zarrs", endpoint=os.environ["AWS_ENDPOINT_URL"], **options))
    codes = np.random.default_rng(2).integers(0, 4, (1, 150, 130), dtype=np.uint8)
    zarr.create_array(files, name="a.zarr/0", data=codes, chunks=(1, 64, 64))
    array = zarr.open_array(files, path="a.zarr/0", mode="r")
    cut: dict[str, Any] = {"tile": 64, "overlap": 16}
    right = tp.predict(codes, codes_model(4), **cut)
    np.testing.assert_array_equal(tp.predict(array, codes_model(4), **cut), right)
    np.testing.assert_array_equal(open_source("s3://zarrs/a.zarr/0").read(BOXES[1]), open_source(codes).read(BOXES[1]))


def zarr_files(folder: Path, name: str) -> dict[str, bytes | Path]:
    return {f"/x/{name}/{file.relative_to(folder)}": file for file in folder.rglob("*") if file.is_file()}


def ome_zarr(folder: Path, version: int, sharded: bool = False) -> Path:
    """Write an OME-Zarr of two levels; one chunk is left out, as it holds the fill value."""
    pixels = noise_of((3, 200, 150))
    pixels[:, :64, :64] = 0
    axes = [{"name": "c", "type": "channel"}, *({"name": axis, "unit": "micrometer"} for axis in "yx")]
    sets = [
        {"path": str(k), "coordinateTransformations": [{"type": "scale", "scale": [1, 0.5 * 2**k, 0.5 * 2**k]}]}
        for k in (0, 1)
    ]
    told = {"multiscales": [{"axes": axes, "datasets": sets, "version": "0.4"}]}
    group = zarr.create_group(
        folder, zarr_format=2 if version == 2 else 3, attributes=told if version == 2 else {"ome": told}
    )
    shards = (3, 128, 128) if sharded else None
    for k in (0, 1):
        group.create_array(str(k), data=pixels[:, :: k + 1, :: k + 1], chunks=(1, 64, 64), shards=shards)
    return folder


@pytest.mark.parametrize(
    ("version", "sharded"),
    [pytest.param(2, False, marks=pytest.mark.long), pytest.param(3, False, marks=pytest.mark.long), (3, True)],
)
def test_a_zarr_on_a_server_is_the_image_that_it_is_here(version: int, sharded: bool, tmp_path: Path) -> None:
    folder = ome_zarr(tmp_path / "a.ome.zarr", version, sharded)
    here = open_source(folder, bands="3,1")
    with serving(zarr_files(folder, "a.ome.zarr")) as server:
        there = open_source(f"{server.address}/x/a.ome.zarr?sig=SECRET", bands="3,1")
        for name in ("shape", "dtype", "resolution", "complete"):
            assert getattr(there, name) == getattr(here, name), name
        again = pickle.loads(pickle.dumps(there))
        for box in BOXES[1:3]:
            np.testing.assert_array_equal(again.read(box), here.read(box))
        np.testing.assert_array_equal(there.coarser(90, 70).read(BOXES[1]), here.coarser(90, 70).read(BOXES[1]))
        assert open_source(f"{server.address}/x/a.ome.zarr", bands="3,1").identity() == there.identity()
        assert "SECRET" not in repr((there.name, getattr(there, "notes", ()), there.identity()))
        assert all(path.startswith("/x/a.ome.zarr/") for path, _ in server.asked)


def test_labels_of_a_zarr_on_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    codes = np.random.default_rng(2).integers(0, 4, (1, 150, 130), dtype=np.uint8)
    zarr.create_array(tmp_path / "a.zarr", data=codes, chunks=(1, 64, 64))
    cut: dict[str, Any] = {"tile": 64, "overlap": 16}
    with serving(zarr_files(tmp_path / "a.zarr", "a.zarr")) as server:
        found = tp.segment(f"{server.address}/x/a.zarr", codes_model(4), "out.tif", **cut)
        np.testing.assert_array_equal(np.asarray(found.labels), tp.predict(codes, codes_model(4), **cut))


def test_what_goes_wrong_with_a_zarr_on_a_server(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a.zarr", data=noise_of((1, 150, 130)), chunks=(1, 64, 64), compressors=None)
    files = zarr_files(tmp_path / "a.zarr", "a.zarr")
    with serving(files) as server, serving({}, redirect=f"{server.address}/x/a.zarr/zarr.json") as moved:
        with pytest.raises(InputError, match="only the server that you named is asked"):
            open_source(f"{moved.address}/x/a.zarr")
        assert server.asked == []
        with pytest.raises(InputError, match="is not a Zarr image: the server has none of"):
            open_source(f"{server.address}/y/a.zarr")
        image = open_source(f"{server.address}/x/a.zarr/")
        before = image.identity()
        server.files["/x/a.zarr/c/0/0/0"] *= 1000
        with pytest.raises(InputError, match="is not decoded"):
            image.read(tp.Box(0, 0, 9, 9))
        image.read(tp.Box(64, 64, 70, 70))
        server.etag = '"second"'
        assert open_source(f"{server.address}/x/a.zarr").identity() != before
        server.status = 403
        with pytest.raises(InputError, match="may not be read"):
            image.read(tp.Box(0, 70, 9, 90))
        with pytest.raises(InputError, match="may not be read"):
            open_source(f"{server.address}/z/a.zarr")
