"""The memory promise: peak RSS of the process tree stays within it and does not grow with the image."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import psutil
import pytest
import rasterio
import tifffile
import zarr
from helpers.fakes import global_model, plan_of
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rasterio.windows import Window

from tilepipe import plan as api_plan
from tilepipe import segment
from tilepipe.box import Box
from tilepipe.errors import UsageError
from tilepipe.planning.check_settings import parse_bytes
from tilepipe.planning.memory import DECODERS, format_bytes, format_free
from tilepipe.sources import checks
from tilepipe.sources import zarr_array as readers
from tilepipe.sources.checks import decoding_bytes
from tilepipe.sources.geotiff import GeoTiffSource
from tilepipe.sources.geotiff_gdal import GDAL_CACHE_BYTES, mine
from tilepipe.sources.png_jpeg import PictureSource
from tilepipe.sources.slide_file import SlideFile
from tilepipe.sources.strip_cache import ROW_CACHE_BYTES
from tilepipe.sources.zarr import ZarrSource
from tilepipe.testing import constant_model, noise, random_unet

CHILD = """
import json, sys, torch
import tilepipe as tp
path, out, settings = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
torch.manual_seed(0)
norms = json.loads(sys.argv[4])
if isinstance(norms, dict):
    from tilepipe.models.nets import zoo
    net = zoo.build(norms, 3, 3).eval()
    card = tp.ModelCard(bands=3, classes=["a", "b", "c"], stride=int(net.stride), mean=[127] * 3, std=[60] * 3,
                        arch=zoo.describe(net))
elif norms:  # width of the maps, pixels of a training crop
    width, crop = norms
    card = tp.ModelCard(bands=3, classes=["a", "b"], mean=[127] * 3, std=[60] * 3,
                        training={"configuration": {"crop": crop}})
    block = lambda bands: (torch.nn.Conv2d(bands, width, 3, padding=1), torch.nn.InstanceNorm2d(width), torch.nn.ReLU())
    net = torch.nn.Sequential(*block(3), *block(width), torch.nn.Conv2d(width, 2, 1))
else:
    card = tp.ModelCard(bands=3, classes=["a", "b"], halo=1)
    net = torch.nn.Conv2d(3, 2, 3, padding=1)
model = tp.Model.from_torch(net, card)
if path.startswith("dask:"):  # computed in float64, read as float32 or uint8
    import dask.array as da
    _, dtype, chunk = path.split(":")
    noise = da.random.default_rng(0).random((3, 6144, 6144), chunks=(3, int(chunk), int(chunk)))
    path = (noise * 100).astype(dtype)
print(tp.plan(path, model, **settings).memory.total, flush=True)
tp.segment(path, model, out, **settings)
"""


def write_raster(path: Path, height: int, width: int = 0) -> Path:
    """Write an RGB GeoTIFF of noise, block by block; square where no width is given."""
    width = width or height
    block = np.random.default_rng(0).integers(0, 256, (3, 512, 512), dtype=np.uint8)
    place = {"crs": "EPSG:32645", "transform": rasterio.Affine(0.3, 0, 335000, 0, -0.3, 3058000)}
    shape = {"height": height, "width": width, "count": 3, "dtype": "uint8"}
    layout = {"tiled": True, "blockxsize": 512, "blockysize": 512}
    with rasterio.open(path, "w", driver="GTiff", **shape, **place, **layout) as file:
        for y in range(0, height, 512):
            for x in range(0, width, 512):
                file.write(block, window=Window(x, y, 512, 512))
    return path


def promise_and_peak(
    path: Path | str, out: Path, norms: tuple[int, int] | dict[str, Any] | None = None, **settings: Any
) -> tuple[int, int]:
    """Run in a process of its own; return the promise and the peak RSS of its process tree, in bytes.

    The network is one convolution, or with `norms` two with instance norm: width of their maps, size of training crops;
    a dict is the description of a network.
    """
    command = [sys.executable, "-c", CHILD, str(path), str(out), json.dumps(settings), json.dumps(norms)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        peak, main = 0, psutil.Process(child.pid)
        while child.poll() is None:
            peak = max(peak, _tree(main))
            time.sleep(0.02)
        assert child.returncode == 0
        assert child.stdout is not None
        return int(child.stdout.readline()), peak


def _tree(main: psutil.Process) -> int:
    """Return the RSS of a process and its children; a fork that has not become its program yet shares its pages."""
    total = 0
    try:
        command = main.cmdline()
        for process in (main, *main.children(recursive=True)):
            if process is main or process.cmdline() != command:
                total += process.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return total


TILE = 512
"""One size for all images: left to itself a run takes larger tiles where that pays, and the promise follows them."""
LAYERED = {"window_shape": "hann", "layers": "margin,entropy,disagreement"}
CUTS = [
    pytest.param({}, marks=pytest.mark.long, id="crop"),
    pytest.param({"window_shape": "hann"}, marks=pytest.mark.long, id="hann"),
    pytest.param({"layers": "margin,entropy"}, marks=pytest.mark.long, id="crop and layers"),
    pytest.param(LAYERED, marks=pytest.mark.long, id="hann and layers"),
    pytest.param({"precision": "fp64"}, marks=pytest.mark.long, id="fp64"),
]


def test_a_small_raster_stays_within_the_promise(tmp_path: Path) -> None:
    promise, peak = promise_and_peak(write_raster(tmp_path / "s.tif", 2048), tmp_path / "s.labels.tif", tile=TILE)
    assert peak <= promise


@pytest.mark.parametrize("cut", CUTS)
def test_peak_is_within_the_promise_and_does_not_grow(cut: dict[str, Any], tmp_path: Path) -> None:
    # Below about 6,000 px there are too few blocks to fill all that may be in work at the same time.
    small = promise_and_peak(
        write_raster(tmp_path / "small.tif", 6144), tmp_path / "small.labels.tif", tile=TILE, **cut
    )
    large = promise_and_peak(
        write_raster(tmp_path / "large.tif", 9216), tmp_path / "large.labels.tif", tile=TILE, **cut
    )
    assert small[0] == large[0]
    assert max(small[1], large[1]) <= large[0]
    assert large[1] <= 1.1 * small[1]


@pytest.mark.long
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("workers", [0, 2])
def test_16384_pixels_square(workers: int, tmp_path: Path) -> None:
    how = {"tile": TILE, "workers": workers}
    small = promise_and_peak(write_raster(tmp_path / "s.tif", 8192), tmp_path / "s.labels.tif", **how)
    large = promise_and_peak(write_raster(tmp_path / "l.tif", 16384), tmp_path / "l.labels.tif", **how)
    print(f"workers {workers}: promise, peak at 8192, at 16384:", *(n >> 20 for n in (large[0], small[1], large[1])))
    assert large[1] <= large[0]
    assert large[1] <= 1.1 * small[1]


def write_files(folder: Path, count: int, side: int = 40) -> Path:
    """Write `count` x `count` GeoTIFFs of noise next to each other, as copies of one with another place."""
    folder.mkdir()
    tags = {"crs": "EPSG:32645", "transform": rasterio.Affine(0.3, 0, 335000.5, 0, -0.3, 3058000.5)}
    size = {"height": side, "width": side, "count": 3, "dtype": "uint8"}
    noise = np.random.default_rng(0).integers(0, 256, (3, side, side), dtype=np.uint8)
    with rasterio.open(folder / "000_000.tif", "w", driver="GTiff", **size, **tags) as file:
        file.write(noise)
    first = (folder / "000_000.tif").read_bytes()
    place = first.index(struct.pack("<dd", 335000.5, 3058000.5))
    for row in range(count):
        for column in range(count):
            here = struct.pack("<dd", 335000.5 + 0.3 * side * column, 3058000.5 - 0.3 * side * row)
            content = bytearray(first[:place] + here + first[place + 16 :])
            content[-1] = (row + column) % 256
            (folder / f"{row:03d}_{column:03d}.tif").write_bytes(content)
    return folder


@pytest.mark.long
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("workers", [0, 2])
def test_ten_thousand_files_are_read_within_the_promise(workers: int, tmp_path: Path) -> None:
    how = {"tile": TILE, "workers": workers}
    one = promise_and_peak(write_raster(tmp_path / "s.tif", 4096), tmp_path / "s.labels.tif", **how)
    began = time.monotonic()
    many = promise_and_peak(write_files(tmp_path / "tiles", 100), tmp_path / "tiles.labels.tif", **how)
    print(f"{workers} workers: promise, peak of one file:", one[0] >> 20, one[1] >> 20)
    print("promise, peak of 10,000 files:", many[0] >> 20, many[1] >> 20, "MiB; seconds:", time.monotonic() - began)
    assert many[1] <= many[0]
    # Each process keeps rows of files in strips, and the places of files.
    assert many[0] - one[0] <= (160 << 20) * (workers + 1)


@pytest.mark.long
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("statistics", ["field", "whole"])
def test_statistics_stay_within_the_promise_and_do_not_grow(statistics: str, workers: int, tmp_path: Path) -> None:
    how: dict[str, Any] = {"tile": TILE, "statistics": statistics, "workers": workers, "memory": "2600MiB"}
    peaks = []
    for height, width in ((4096, 4096), (8192, 8192), (16384, 4096)):
        path = write_raster(tmp_path / f"{height}.tif", height, width)
        promise, peak = promise_and_peak(path, tmp_path / f"{height}.labels.tif", (8, 128), **how)
        print(f"{statistics}, {workers} workers, {height} x {width}: promise, peak:", promise >> 20, peak >> 20)
        assert peak <= promise <= 2600 << 20
        peaks.append(peak)
    assert max(peaks[1:]) <= 1.1 * peaks[0]


@pytest.mark.long
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("statistics", ["field", "whole"])
def test_patches_larger_than_tiles_count(statistics: str, tmp_path: Path) -> None:
    path, how = write_raster(tmp_path / "s.tif", 2048), {"tile": 256, "statistics": statistics}
    promise, peak = promise_and_peak(path, tmp_path / "s.labels.tif", (32, 768), **how)
    print(f"{statistics}: promise, peak:", promise >> 20, peak >> 20)
    assert peak <= promise


@pytest.mark.long
@pytest.mark.timeout(3000)
@pytest.mark.parametrize(
    "network",
    [
        {"name": "unet", "width": 16, "depth": 4},
        {"name": "unet", "encoder": "resnet34", "width": 16, "depth": 5},
    ],
    ids=["unet", "resnet34"],
)
def test_a_first_run_stays_within_the_promise(
    network: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TILEPIPE_CACHE", str(tmp_path / "empty"))  # reach, bands, runtimes and speed are measured
    image = write_raster(tmp_path / "s.tif", 4608)
    promise, peak = promise_and_peak(image, tmp_path / "o.tif", network, region=(0, 0, 64, 64))
    print("promise, peak:", promise >> 20, peak >> 20)
    assert peak <= promise


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["png", "zarr", "gzip", "tiff", "slide"])
def test_images_that_are_decoded_whole_stay_within_the_promise(kind: str, tmp_path: Path) -> None:
    pixels = np.tile(np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8), (12, 16, 1))
    path = tmp_path / {"png": "p.png", "tiff": "t.tif", "slide": "s.tif"}.get(kind, "z.zarr")
    if kind == "png":
        Image.fromarray(pixels).save(path, compress_level=1)
    elif kind in ("zarr", "gzip"):  # what gzip makes no smaller takes most
        whole: Any = {"shape": (3, 6144, 8192), "chunks": (3, 6144, 8192), "dtype": "uint8"}
        packed = zarr.codecs.GzipCodec(level=1) if kind == "gzip" else "auto"
        array = zarr.create_array(str(path), compressors=packed, **whole)
        random = np.random.default_rng(0).integers(0, 256, (3, 6144, 8192), dtype=np.uint8)
        array[:] = random if kind == "gzip" else pixels.transpose(2, 0, 1)
    elif kind == "slide":
        with tifffile.TiffWriter(path) as slide:
            for step, side in ((1, 4096), (4, 1024)):
                slide.write(
                    pixels[::step, ::step], subfiletype=int(step > 1), tile=(side, side), photometric="rgb",
                    compression="deflate",
                )  # fmt: skip
    else:
        shape = {"height": 6144, "width": 8192, "count": 3, "dtype": "uint8", "compress": "deflate"}
        layout = {"tiled": True, "blockxsize": 8192, "blockysize": 6144, "interleave": "pixel"}
        place = {"crs": "EPSG:32645", "transform": rasterio.Affine(0.3, 0, 335000, 0, -0.3, 3058000)}
        with rasterio.open(path, "w", driver="GTiff", **shape, **place, **layout) as file:
            file.write(pixels.transpose(2, 0, 1))
    promise, peak = promise_and_peak(path, tmp_path / "o.tif", tile=TILE, window=(0, 0, 2048, 1024), mask="none")
    print(f"{kind}: promise, peak:", promise >> 20, peak >> 20)
    assert peak <= promise


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("array", ["dask:float32:3072", "dask:uint8:3072", "dask:float32:640", "dask:uint8:6144"])
def test_dask_arrays_stay_within_the_promise(array: str, tmp_path: Path) -> None:
    promise, peak = promise_and_peak(array, tmp_path / "o.tif", tile=TILE, window=(0, 0, 1536, 1024))
    print(f"{array}: promise, peak:", promise >> 20, peak >> 20)
    assert peak <= promise


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["levels", "strips", "planes", "pages"])
def test_ome_tiffs_stay_within_the_promise(kind: str, tmp_path: Path) -> None:
    pixels = np.tile(np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8), (8, 8, 1))
    said: dict[str, Any] = {"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    with tifffile.TiffWriter(tmp_path / "i.ome.tif", bigtiff=True, ome=True) as file:
        if kind == "pages":
            stack = np.broadcast_to(pixels[:1024, :1024].transpose(2, 0, 1), (40, 3, 1024, 1024))
            file.write(stack, tile=(256, 256), photometric="minisblack", metadata={"axes": "ZCYX"})
        elif kind == "planes":  # each one strip
            plain: Any = {"rowsperstrip": 4096, "photometric": "minisblack", "metadata": {"axes": "CYX"}}
            file.write(pixels.transpose(2, 0, 1), compression="deflate", **plain)
        else:
            cut: Any = {"tile": (2048, 2048)} if kind == "levels" else {"rowsperstrip": 16}
            file.write(pixels, subifds=3, compression="deflate", photometric="rgb", metadata=said, **cut)
            for k in (2, 4, 8):
                file.write(pixels[::k, ::k], subfiletype=1, compression="deflate", photometric="rgb", **cut)
    how: dict[str, Any] = {"z": 17} if kind == "pages" else {}
    promise, peak = promise_and_peak(tmp_path / "i.ome.tif", tmp_path / "o.tif", tile=TILE, **how)
    print(f"{kind}: promise, peak:", promise >> 20, peak >> 20)
    assert peak <= promise


def test_decoded_rows_of_an_image_that_is_done_are_let_go(tmp_path: Path) -> None:
    """In a batch those of all images would add up, beyond the promise of an image that needs none."""
    pixels = noise(60, 70).read(Box(0, 0, 60, 70))
    shape = {"count": 3, "height": 60, "width": 70, "dtype": "uint8", "transform": (2, 0, 0, 0, -2, 0)}
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", **shape) as file:
        file.write(pixels)
    held = []
    rows = mine(os.getpid()).rows
    before = rows.held_bytes  # of images that other tests have open
    segment(tmp_path / "a.tif", random_unet(), tmp_path / "o.tif", listener=lambda event: held.append(rows.held_bytes))
    assert max(held) == before + pixels.nbytes
    assert rows.held_bytes <= before


def test_memory_asks_for_smaller_tiles_with_statistics_too() -> None:
    model, image = global_model("squeeze"), noise(1200, 1200)
    chosen = api_plan(image, model)
    least = api_plan(image, model, memory=chosen.memory.total - (8 << 20))
    assert least.statistics == chosen.statistics
    assert least.tiling.tile < chosen.tiling.tile or least.tiling.block < chosen.tiling.block
    assert least.memory.total < chosen.memory.total


def test_the_promise_does_not_depend_on_height_or_width() -> None:
    model = constant_model(0.5, 0.5, bands=3, halo=0)
    small, large = (plan_of(noise(1500, width), model).memory for width in (1500, 9000))
    assert replace(small, image=0) == replace(large, image=0)
    assert (small.image, large.image) == (1500 * 1500 * 3, 1500 * 9000 * 3)  # what lies in memory whole


def test_what_lies_in_memory_whole_counts_in_each_process(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((600, 5000, 3), np.uint8)).save(tmp_path / "p.png")
    model = constant_model(0.5, 0.5, bands=3, halo=0)
    for workers in (0, 2):
        assert plan_of(PictureSource(tmp_path / "p.png"), model, workers=workers).memory.image == 9_000_000 * (
            workers + 1
        )


def test_decoding_counts_readers_of_small_pieces_and_one_of_a_large_one() -> None:
    spare = checks.SPARE_BYTES
    assert spare == DECODERS
    assert decoding_bytes(spare // 4) == 0  # four threads read at once
    assert decoding_bytes(10 << 20, 2 << 20) == 4 * (12 << 20) - spare
    assert decoding_bytes(200 << 20, 30 << 20) == (430 << 20) - spare


def test_a_chunk_of_zarr_that_is_large_counts(tmp_path: Path) -> None:
    for side in (512, 4096):
        zarr.create_array(str(tmp_path / f"{side}.zarr"), shape=(3, 4096, 4096), chunks=(3, side, side), dtype="uint8")
    usual, large = (ZarrSource(tmp_path / f"{side}.zarr").cache_bytes for side in (512, 4096))
    assert usual == 64 << 20
    empty = large - usual
    assert empty == int(1.25 * (48 << 20)) - checks.SPARE_BYTES
    zarr.open_array(str(tmp_path / "4096.zarr"), mode="r+")[:] = 1  # an open image keeps what it said
    (stored,) = ((tmp_path / "4096.zarr" / name).stat().st_size for name in ["c/0/0/0"])
    assert ZarrSource(tmp_path / "4096.zarr").cache_bytes == large + stored


@pytest.mark.parametrize(
    ("written", "copies"),
    [
        ({"compressors": None}, 1.25),
        ({"compressors": numcodecs.Zstd(1)}, 1.25),
        ({"compressors": numcodecs.Zlib(1)}, 4.5),
        ({"compressors": None, "filters": [numcodecs.Delta("f4")]}, 3),
        ({"compressors": numcodecs.GZip(1), "filters": [numcodecs.Shuffle(4)]}, 6.25),
        ({"compressors": numcodecs.Blosc(), "dtype": ">f4"}, 2.25),
    ],
)
def test_codecs_that_copy_a_chunk_count(tmp_path: Path, written: dict[str, Any], copies: float) -> None:
    how = {"shape": (1, 3000, 3000), "chunks": (1, 3000, 3000), "dtype": "<f4", "zarr_format": 2, **written}
    zarr.create_array(str(tmp_path / "a.zarr"), **how)
    assert ZarrSource(tmp_path / "a.zarr").cache_bytes == (64 << 20) + int(copies * 36_000_000) - checks.SPARE_BYTES


@pytest.mark.parametrize(("vendor", "byte"), [("aperio", 24), ("generic-tiff", 11)])
def test_large_tiles_of_a_slide_count_once(vendor: str, byte: int) -> None:
    """They are decoded by one thread at a time; smaller ones by four."""
    slide, usual = object.__new__(SlideFile), 64 << 20
    slide.vendor = vendor
    for side, at_once in ((240, 4), (2048, 4), (4096, 1)):
        slide._tile_pixels = side * side
        assert slide.cache_bytes == usual + max(0, at_once * byte * side * side - checks.SPARE_BYTES)


def test_a_large_tile_of_a_tiff_counts(tmp_path: Path) -> None:
    shape = {"height": 4096, "width": 4096, "count": 3, "dtype": "uint8", "crs": "EPSG:32645"}
    place = {"transform": rasterio.Affine(0.3, 0, 335000, 0, -0.3, 3058000)}
    layout = {"tiled": True, "blockxsize": 4096, "blockysize": 4096, "interleave": "pixel", "sparse_ok": True}
    with rasterio.open(tmp_path / "s.tif", "w", driver="GTiff", **shape, **place, **layout):
        pass
    piece = 48 << 20
    stored = ROW_CACHE_BYTES  # as wide as the image, so rows of it are kept as well
    expected = GDAL_CACHE_BYTES + stored + 2 * piece - checks.SPARE_BYTES
    assert GeoTiffSource(tmp_path / "s.tif").cache_bytes == expected


def test_chunks_that_are_read_one_by_one_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(0).integers(0, 255, (2, 5, 70, 90), dtype=np.uint8)
    array = zarr.create_array(str(tmp_path / "a.zarr"), shape=image.shape, chunks=(1, 2, 33, 40), dtype="uint8")
    array[:] = image
    monkeypatch.setattr(readers, "ONE_BY_ONE_BYTES", 0)
    monkeypatch.setattr(readers, "LARGE_PIECE_BYTES", 0)
    source = ZarrSource(tmp_path / "a.zarr", t=1)
    for box in (Box(0, 0, 70, 90), Box(20, 35, 68, 85), Box(34, 41, 35, 42)):
        rows, columns = slice(box.y0, box.y1), slice(box.x0, box.x1)
        np.testing.assert_array_equal(source.read(box), image[1, :, rows, columns])


def test_a_promise_that_cannot_be_kept_is_refused_with_the_least_that_can() -> None:
    image, model = noise(3000, 3000), random_unet(classes=3)
    cut = {"window_shape": "hann", "overlap": 64, "tile": 256}
    with pytest.raises(UsageError, match=r"100 MiB cannot be kept.*is (\S+ MiB)") as refusal:
        plan_of(image, model, memory="100MiB", **cut)
    least = parse_bytes(str(refusal.value).split(" is ")[1].split(";")[0].replace(" ", ""))
    kept = plan_of(image, model, memory=least, **cut)
    assert kept.memory.total <= least
    assert kept.tiling.block < plan_of(image, model, **cut).tiling.block


@pytest.mark.parametrize(("text", "size"), [("4GiB", 4 << 30), ("500MB", 500_000_000), ("1.5 gib", 3 << 29), (7, 7)])
def test_sizes(text: Any, size: int) -> None:
    assert parse_bytes(text) == size


@given(st.integers(1, 1 << 45))
def test_a_size_that_is_said_is_enough_where_it_is_given(size: int) -> None:
    assert size <= parse_bytes(format_bytes(size)) <= size + max(size // 100, 1 << 20)


@given(st.integers(0, 1 << 45))
def test_a_size_that_is_free_is_not_said_to_be_more(size: int) -> None:
    assert size - max(size // 100, 1 << 20) <= parse_bytes(format_free(size)) <= size


def test_a_size_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="4GiB"):
        parse_bytes("a lot")
    assert format_bytes(1536 << 20) == "1.50 GiB"
