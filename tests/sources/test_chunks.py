"""Zarr images that are bombs, or name what lies outside of them, are refused before anything is decoded or opened."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import pickle
import resource
import shutil
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr

from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.sources.stored_chunk import STEP, LocalFile, Piece, counted, zstd_size
from tilepipe.sources.zarr import ZarrSource

WHOLE = Box(0, 0, 512, 512)
BYTES = {"name": "bytes", "configuration": {"endian": "little"}}


def array_of(root: Path, codecs: list[dict[str, Any]], stored: bytes) -> Path:
    """Write metadata of a (3, 512, 512) uint8 array of one chunk, and that chunk."""
    said = {
        "zarr_format": 3, "node_type": "array", "shape": [3, 512, 512], "data_type": "uint8", "fill_value": 0,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [3, 512, 512]}}, "attributes": {},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}}, "codecs": codecs,
    }  # fmt: skip
    (root / "c" / "0" / "0").mkdir(parents=True)
    (root / "zarr.json").write_text(json.dumps(said))
    (root / "c" / "0" / "0" / "0").write_bytes(stored)
    return root


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def rle_frame(blocks: int) -> bytes:
    """Return a zstd frame that does not say its size: runs of 128 KiB."""
    run = ((128 << 10) << 3 | 1 << 1).to_bytes(3, "little") + b"\0"
    last = ((128 << 10) << 3 | 1 << 1 | 1).to_bytes(3, "little") + b"\0"
    return b"\x28\xb5\x2f\xfd\x00\x58" + run * (blocks - 1) + last


ZSTD = {"name": "zstd", "configuration": {"level": 0, "checksum": False}}
GZIP = {"name": "gzip", "configuration": {"level": 5}}
BLOSC = {
    "name": "blosc",
    "configuration": {"typesize": 1, "cname": "lz4", "clevel": 5, "shuffle": "noshuffle", "blocksize": 0},
}
BOMBS = {
    "zstd": (ZSTD, lambda: numcodecs.Zstd(3).encode(bytes(1 << 28))),
    "zstd without a size": (ZSTD, lambda: rle_frame(1 << 13)),
    "gzip": (GZIP, lambda: gzip.compress(bytes(1 << 26), 9)),
    "gzip that lies": (GZIP, lambda: gzip.compress(bytes(1 << 26), 9)[:-4] + struct.pack("<I", 100)),
    "gzip twice": (GZIP, lambda: gzip.compress(bytes(1 << 19)) * 9),
    "blosc": (BLOSC, lambda: numcodecs.Blosc("lz4").encode(bytes(1 << 26))),
    "plain": (None, lambda: bytes(1 << 24)),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_chunk_that_becomes_more_than_a_chunk_is_not_decoded(kind: str, tmp_path: Path) -> None:
    codec, stored = BOMBS[kind]
    source = ZarrSource(array_of(tmp_path / "a.zarr", [BYTES, codec] if codec else [BYTES], stored()))
    before = peak()
    with pytest.raises(InputError, match=r"says that it becomes \d+; a chunk of this array has 786432"):
        source.read(WHOLE)
    assert peak() - before < 40


@pytest.mark.parametrize(
    "packed", [numcodecs.LZ4(), numcodecs.Zlib(5), numcodecs.BZ2(5), numcodecs.LZMA(), numcodecs.Zstd(3)]
)
@pytest.mark.parametrize("bomb", [True, False])
def test_compressors_of_zarr_2(packed: Any, bomb: bool, tmp_path: Path, noise: Any) -> None:
    pixels, root = noise((3, 64, 70)), tmp_path / "a.zarr"
    zarr.create_array(root, data=pixels, chunks=(3, 32, 32), compressors=packed, zarr_format=2)
    if bomb:
        next(root.glob("0.0.0")).write_bytes(packed.encode(bytes(1 << 24)))
        with pytest.raises(InputError, match="It is not decoded"):
            ZarrSource(root).read(Box(0, 0, 64, 70))
    else:
        np.testing.assert_array_equal(ZarrSource(root).read(Box(0, 0, 64, 70)), pixels)


def test_a_bomb_in_a_shard(tmp_path: Path, noise: Any) -> None:
    pixels, root = noise((1, 64, 64)), tmp_path / "a.zarr"
    zarr.create_array(root, data=pixels, chunks=(1, 32, 32), shards=(1, 64, 64))
    np.testing.assert_array_equal(ZarrSource(root).read(Box(5, 3, 64, 60)), pixels[:, 5:64, 3:60])
    stored = numcodecs.Zstd(3).encode(bytes(1 << 26))
    index = struct.pack("<QQ", 0, len(stored)) + b"\xff" * 48
    from numcodecs.checksum32 import CRC32C

    sum_ = bytes(CRC32C(location="end").encode(np.frombuffer(index, np.uint8)))
    (root / "c" / "0" / "0" / "0").write_bytes(stored + sum_)
    assert not ZarrSource(root).read(Box(32, 32, 64, 64)).any(), "chunks that are not there are the fill value"
    with pytest.raises(InputError, match="It is not decoded"):
        ZarrSource(root).read(Box(0, 0, 10, 10))
    far = struct.pack("<QQ", 1 << 60, 100) + b"\xff" * 48
    (root / "c" / "0" / "0" / "0").write_bytes(far + b"\0" * 4)
    with pytest.raises(InputError, match="ends before byte"):
        ZarrSource(root).read(Box(0, 0, 10, 10))


def test_an_index_of_a_shard_is_bounded(tmp_path: Path) -> None:
    root = tmp_path / "a.zarr"
    zarr.create_array(root, shape=(1, 1 << 14, 1 << 14), chunks=(1, 1, 1), shards=(1, 1 << 14, 1 << 14), dtype="u1")
    with pytest.raises(InputError, match="whose index takes 4096 MiB"):
        ZarrSource(root)


def test_codecs_that_run_code_are_refused(tmp_path: Path) -> None:
    root, ran = tmp_path / "a.zarr", tmp_path / "ran"

    class Runs:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(ran),)

    said = {
        "zarr_format": 2,
        "shape": [3, 64, 64],
        "chunks": [3, 64, 64],
        "dtype": "|u1",
        "fill_value": 0,
        "order": "C",
    }
    root.mkdir()
    (root / ".zarray").write_text(
        json.dumps({**said, "compressor": None, "filters": [{"id": "pickle", "protocol": 5}]})
    )
    (root / "0.0.0").write_bytes(pickle.dumps(Runs()))
    with pytest.raises(InputError, match="pickle"):
        ZarrSource(root).read(Box(0, 0, 10, 10))
    assert not ran.exists()


@pytest.mark.parametrize("what", ["level", "metadata", "chunk", "pipe"])
def test_links_out_of_a_zarr_are_refused(what: str, tmp_path: Path, noise: Any) -> None:
    elsewhere, root = tmp_path / "elsewhere.zarr", tmp_path / "a.zarr"
    zarr.create_array(elsewhere, data=noise((3, 64, 64)), chunks=(3, 64, 64))
    if what == "level":
        axes = [{"name": name} for name in "cyx"]
        image = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]}
        zarr.create_group(root, attributes={"ome": image})
        os.symlink(elsewhere, root / "0")
    else:
        shutil.copytree(elsewhere, root)
        file = root / ("zarr.json" if what == "metadata" else "c/0/0/0")
        file.unlink()
        if what == "pipe":
            os.mkfifo(file)
        else:
            os.symlink(elsewhere / file.relative_to(root), file)
    for act in ((lambda s: s.read(Box(0, 0, 9, 9))), (lambda s: s.identity())):
        with pytest.raises(InputError, match=r"outside of .*a\.zarr|is a named pipe"):
            act(ZarrSource(root))
    os.symlink(elsewhere, tmp_path / "whole.zarr")  # a link to a whole image is the image
    assert ZarrSource(tmp_path / "whole.zarr").identity() == ZarrSource(elsewhere).identity()


def test_other_files_and_attributes_are_not_the_image(tmp_path: Path, noise: Any) -> None:
    root = tmp_path / "a.zarr"
    made = zarr.create_array(root, data=noise((3, 64, 64)), chunks=(3, 32, 32))
    before = ZarrSource(root).identity()
    for name in (".DS_Store", "thumbnail.png", "c/0/Thumbs.db"):
        (root / name).write_text("x")
    made.attrs["statistics"] = [1, 2]
    os.utime(root / "zarr.json", ns=(1, 1))
    assert ZarrSource(root).identity() == before
    said = json.loads((root / "zarr.json").read_text())
    (root / "zarr.json").write_text(json.dumps({**said, "fill_value": 7}))
    assert ZarrSource(root).identity() != before


@pytest.mark.parametrize("size", [0, 1, 200, 255, 256, 300, 65791, 65792, 1 << 20])
def test_sizes_in_headers_of_zstd(size: int, tmp_path: Path) -> None:
    stored = numcodecs.Zstd(3).encode(bytes(size)) if size else numcodecs.Zstd(3).encode(b"")
    (tmp_path / "0").write_bytes(stored)
    assert zstd_size(stored[:32], Piece(LocalFile(tmp_path / "0", "0"), 0, len(stored))) == size
    assert zstd_size(b"", Piece(LocalFile(tmp_path / "0", "0"), 0, 0)) == 0


@pytest.mark.parametrize(
    "packed", ["gzip", "zlib", *(pytest.param(one, marks=pytest.mark.long) for one in ("bz2", "lzma"))]
)
def test_a_large_chunk_is_counted_without_being_held(packed: str, tmp_path: Path) -> None:
    """Random bytes, which no compressor makes smaller, so that what is stored is as large; and streams in a row."""
    data = np.random.default_rng(0).bytes(3 << 20)
    packers = {"gzip": gzip.compress, "zlib": zlib.compress, "bz2": bz2.compress, "lzma": lzma.compress}
    for streams in ([data * 8], [data, b"", data[:1], data * 2]) if packed != "zlib" else ([data * 8],):
        stored = b"".join(map(packers[packed], streams))
        (tmp_path / "0").write_bytes(b"1234" + stored)
        piece = Piece(LocalFile(tmp_path / "0", "0"), 0, 4 + len(stored)).behind(4)
        tracemalloc.start()
        assert counted(packed, piece.parts(), 1 << 30) == sum(map(len, streams))
        assert counted(packed, piece.parts(), 1 << 20) <= (1 << 20) + STEP
        assert tracemalloc.get_traced_memory()[1] < (16 if packed == "lzma" else 5) * STEP, "its dictionary has 8 MiB"
        tracemalloc.stop()
