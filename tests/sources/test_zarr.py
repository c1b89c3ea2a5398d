from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from tilepipe.box import Box
from tilepipe.errors import InputError, UsageError
from tilepipe.sources.base import Resolution, Source
from tilepipe.sources.zarr import ZarrSource


def save(path: Path, array: np.ndarray, version: int = 3, **options: Any) -> Path:
    chunks = (1,) * (array.ndim - 2) + (32, 32)
    made = zarr.create_array(
        path, shape=array.shape, dtype=array.dtype, chunks=chunks, zarr_format=version, overwrite=True, **options
    )
    made[...] = array
    return path


def multiscale(root: Path, levels: list[np.ndarray], axes: list[Any], scale: list[float], version: str = "0.5") -> Path:
    """Write an OME-Zarr image; level k is k halvings of level 0 along y and x."""
    zarr_format = 3 if version == "0.5" else 2
    group = zarr.create_group(root, zarr_format=zarr_format)
    for k, level in enumerate(levels):
        save(root / str(k), level, zarr_format)
    sets = []
    for k in range(len(levels)):
        step = [s * (2**k if axis["name"] in "yx" else 1) for s, axis in zip(scale, axes, strict=True)]
        sets.append({"path": str(k), "coordinateTransformations": [{"type": "scale", "scale": step}]})
    image = [{"axes": axes, "datasets": sets, "version": version}]
    if version == "0.5":
        group.attrs["ome"] = {"version": "0.5", "multiscales": image}
    else:
        group.attrs["multiscales"] = image
    return root


def axis(name: str, unit: str | None = None) -> dict[str, str]:
    return {"name": name, **({"unit": unit} if unit else {})}


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", ">u2"])
def test_plain_arrays(tmp_path: Path, noise: Any, version: int, dtype: str) -> None:
    pixels = noise((3, 70, 90), np.dtype(dtype).newbyteorder("=").name).astype(dtype)
    source = ZarrSource(save(tmp_path / "a.zarr", pixels, version))
    assert isinstance(source, Source)
    assert source.dtype == np.dtype(dtype).newbyteorder("=")
    padded = np.pad(pixels, ((0, 0), (20, 20), (20, 20)), mode="reflect")
    for box in (Box(0, 0, 70, 90), Box(31, 5, 64, 70), Box(-20, -20, 5, 5), Box(60, 80, 90, 110)):
        np.testing.assert_array_equal(source.read(box), padded[:, 20 + box.y0 : 20 + box.y1, 20 + box.x0 : 20 + box.x1])
    assert source.resolution is None
    assert source.valid(Box(0, 0, 70, 90)) is None


def test_two_axes_and_sharded(tmp_path: Path, noise: Any) -> None:
    pixels = noise((70, 90))
    np.testing.assert_array_equal(ZarrSource(save(tmp_path / "a.zarr", pixels)).read(Box(0, 0, 70, 90)), pixels[None])
    sharded = save(tmp_path / "b.zarr", pixels, shards=(64, 64))
    np.testing.assert_array_equal(ZarrSource(sharded).read(Box(0, 0, 70, 90)), pixels[None])


def test_axes_by_dimension_names(tmp_path: Path, noise: Any) -> None:
    pixels = noise((70, 90, 4))
    path = save(tmp_path / "a.zarr", pixels.copy(), dimension_names=("y", "x", "c"))
    source = ZarrSource(path)
    assert source.shape == (4, 70, 90)
    np.testing.assert_array_equal(source.read(Box(5, 6, 50, 60)), pixels[5:50, 6:60].transpose(2, 0, 1))
    np.testing.assert_array_equal(
        ZarrSource(path, bands=(4, 1)).read(Box(0, 0, 70, 90)), pixels.transpose(2, 0, 1)[[3, 0]]
    )
    with pytest.raises(UsageError, match="bands 1 to 4"):
        ZarrSource(path, bands=(0,))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr(tmp_path: Path, noise: Any, version: str) -> None:
    pixels = noise((2, 3, 1, 64, 100), "uint16")
    half = pixels[..., ::2, ::2].copy()
    axes = [axis("t"), axis("c"), axis("z", "micrometer"), axis("y", "micrometer"), axis("x", "nanometer")]
    root = multiscale(tmp_path / "a.ome.zarr", [pixels, half], axes, [1, 1, 2, 0.25, 300], version)
    with pytest.raises(InputError, match="2 planes along t; pick one with `t`, from 0 to 1"):
        ZarrSource(root)
    source = ZarrSource(root, t=1)
    assert (source.shape, source.dtype.name) == ((3, 64, 100), "uint16")
    assert source.resolution == pytest.approx(Resolution(0.25, 0.3, "um"))
    np.testing.assert_array_equal(source.read(Box(0, 0, 64, 100)), pixels[1, :, 0])
    level = source.coarser(30, 50)
    np.testing.assert_array_equal(level.read(Box(3, 4, 32, 50)), half[1, :, 0, 3:32, 4:50])
    assert level.resolution == pytest.approx(Resolution(0.5, 0.6, "um"))
    assert source.coarser(33, 50) is source
    np.testing.assert_array_equal(ZarrSource(root / "1", t=0).read(Box(0, 0, 32, 50)), half[0, :, 0])


@pytest.mark.parametrize(
    ("units", "expected"),
    [(("meter", "meter"), Resolution(0.5, 0.5, "m")), ((None, None), None), (("micrometer", "meter"), None)],
)
def test_units(tmp_path: Path, noise: Any, units: tuple[str, str], expected: Resolution | None) -> None:
    axes = [axis("y", units[0]), axis("x", units[1])]
    assert ZarrSource(multiscale(tmp_path / "a.zarr", [noise((40, 40))], axes, [0.5, 0.5])).resolution == expected


def test_not_finite_is_not_valid(tmp_path: Path) -> None:
    pixels = np.ones((2, 40, 40), np.float32)
    pixels[1, 3, 4] = np.nan
    valid = ZarrSource(save(tmp_path / "a.zarr", pixels)).valid(Box(0, 0, 40, 40))
    assert valid is not None
    assert np.argwhere(~valid).tolist() == [[3, 4]]


def test_identity_follows_chunks_and_picks_not_labels_beside(tmp_path: Path, noise: Any) -> None:
    root = multiscale(tmp_path / "a.zarr", [noise((2, 40, 40))], [axis("c"), axis("y"), axis("x")], [1, 1, 1])
    before = ZarrSource(root).identity()
    assert ZarrSource(root, bands=(2,)).identity() != before
    save(root / "labels" / "cells", noise((40, 40)))
    assert ZarrSource(root).identity() == before
    zarr.open(root / "0", mode="r+")[0, 0, 0] += 1
    assert ZarrSource(root).identity() != before


def test_threads_and_pickling(tmp_path: Path, noise: Any) -> None:
    pixels = noise((3, 100, 120))
    source = pickle.loads(pickle.dumps(ZarrSource(save(tmp_path / "a.zarr", pixels))))
    asked = [Box(y, x, y + 40, x + 30) for y in range(0, 60, 7) for x in range(0, 90, 13)]
    with ThreadPoolExecutor(8) as pool:
        for box, found in zip(asked, pool.map(source.read, asked), strict=True):
            np.testing.assert_array_equal(found, pixels[:, box.y0 : box.y1, box.x0 : box.x1])


@pytest.mark.parametrize("codec", [zarr.codecs.ZstdCodec(), zarr.codecs.GzipCodec(), zarr.codecs.BloscCodec(), None])
@pytest.mark.parametrize("damage", [b"rubbish", b"", None])
def test_damaged_chunks_are_named(tmp_path: Path, noise: Any, codec: Any, damage: bytes | None) -> None:
    path = save(tmp_path / "bad.zarr", noise((1, 64, 64)), compressors=codec)
    chunk = path / "c" / "0" / "1" / "1"
    chunk.write_bytes(chunk.read_bytes()[:-9] if damage is None else damage)
    source = ZarrSource(path)
    source.read(Box(0, 0, 32, 64))
    with pytest.raises(InputError, match=r"bad\.zarr cannot be read in rows 30 to 40, columns 20 to 50"):
        source.read(Box(30, 20, 40, 50))


def test_what_is_refused(tmp_path: Path, noise: Any) -> None:
    with pytest.raises(InputError, match="float64 pixels"):
        ZarrSource(save(tmp_path / "a.zarr", np.zeros((4, 4))))
    huge = zarr.create_array(tmp_path / "b.zarr", shape=(40000, 40000), chunks=(20000, 20000), dtype="uint8")
    assert huge.nbytes_stored() < 10_000
    with pytest.raises(InputError, match="pieces of 381 MiB"):
        ZarrSource(tmp_path / "b.zarr")
    zarr.create_group(tmp_path / "c.zarr")
    save(tmp_path / "c.zarr" / "inner", noise((4, 4)))
    with pytest.raises(InputError, match=r"without an OME-Zarr image.*inner"):
        ZarrSource(tmp_path / "c.zarr")
    root = multiscale(tmp_path / "d.zarr", [noise((40, 40))], [axis("y"), axis("x")], [1, 1])
    group = zarr.open_group(root, mode="r+")
    ome = dict(group.attrs["ome"])
    ome["multiscales"][0]["datasets"][0]["path"] = "../a.zarr"
    group.attrs["ome"] = ome
    with pytest.raises(InputError, match="outside itself"):
        ZarrSource(root)
    (tmp_path / "e.zarr").mkdir()
    (tmp_path / "e.zarr" / "zarr.json").write_text("{}")
    with pytest.raises(InputError, match=r"e\.zarr is a Zarr group without an OME-Zarr image in it$"):
        ZarrSource(tmp_path / "e.zarr")
