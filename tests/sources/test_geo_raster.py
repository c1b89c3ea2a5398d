"""Rasters of other formats by a named driver, compared with rasterio; what is refused says what to type."""

from __future__ import annotations

import builtins
import json
import pickle
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.shutil import copy
from scipy.io import netcdf_file

import tilepipe as tp
from tilepipe.box import Box
from tilepipe.cli.main import main
from tilepipe.errors import InputError, TilepipeError, UsageError
from tilepipe.sources import geo_drivers
from tilepipe.sources.geo_raster import RasterSource, tiles_of_jpeg2000
from tilepipe.sources.open import open_source
from tilepipe.testing import constant_model

UTM = {"crs": "EPSG:32645", "transform": rasterio.Affine(10, 0, 400000, 0, -10, 3000000)}
RNG = np.random.default_rng(3)
PIXELS = RNG.integers(1, 60000, (3, 70, 90)).astype(np.uint16)
FORMATS = {
    "a.jp2": ("JP2OpenJPEG", {"REVERSIBLE": "YES", "QUALITY": "100"}),
    "a.img": ("HFA", {}),
    "a.dat": ("ENVI", {}),
}


def write(path: Path, driver: str, pixels: Any = PIXELS, **profile: Any) -> Path:
    count, height, width = pixels.shape
    size = {"count": count, "height": height, "width": width, "dtype": pixels.dtype}
    with rasterio.open(path, "w", driver=driver, **size, **UTM, **profile) as file:
        file.write(pixels)
    return path


@pytest.fixture
def netcdf(tmp_path: Path) -> Path:
    """A netCDF file of two variables at two times, one with a scale, an offset and a value for no data."""
    path = tmp_path / "a.nc"
    with netcdf_file(path, "w") as file:
        file.Conventions = "CF-1.6"
        places = {"time": np.arange(2.0), "y": 3e6 - 10 * np.arange(30.0), "x": 4e5 + 10 * np.arange(40.0)}
        for name, values in places.items():
            file.createDimension(name, len(values))
            axis = file.createVariable(name, "f8", (name,))
            axis[:] = values
            axis.units = "days since 2020-01-01" if name == "time" else "m"
            if name != "time":
                axis.standard_name = f"projection_{name}_coordinate"
        grid = file.createVariable("crs", "i4", ())
        grid.spatial_ref = rasterio.crs.CRS.from_epsg(32645).to_wkt()
        grid.grid_mapping_name = "transverse_mercator"
        for name, kind in (("ndvi", "i2"), ("red", "f4")):
            data = file.createVariable(name, kind, ("time", "y", "x"))
            data[:] = np.random.default_rng(5).integers(0, 50, (2, 30, 40))
            data[:, :5, :6] = 7
            data.grid_mapping = "crs"
        file.variables["ndvi"].scale_factor, file.variables["ndvi"].add_offset = 0.5, -1.0
        file.variables["ndvi"]._FillValue = np.int16(7)
    return path


@pytest.mark.parametrize("name", FORMATS)
def test_pixels_place_and_bands_are_those_of_rasterio(tmp_path: Path, name: str) -> None:
    driver, options = FORMATS[name]
    path = (
        write(tmp_path / name, driver, nodata=5, **options)
        if name == "a.img"
        else write(tmp_path / name, driver, **options)
    )
    source: Any = open_source(path, driver=driver.lower())
    with rasterio.open(path, driver=driver) as known:
        np.testing.assert_array_equal(source.read(Box(3, 5, 60, 90)), known.read()[:, 3:60, 5:90])
        assert rasterio.crs.CRS.from_wkt(source.georeference.crs) == known.crs
        assert source.georeference.transform == tuple(known.transform)[:6]
        assert source.nodata == (5 if name == "a.img" else None)
        assert [band.name for band in source.file_bands] == [text or "" for text in known.descriptions]
    np.testing.assert_array_equal(source.read(Box(0, 0, 70, 90)), PIXELS)
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(again.read(Box(0, 0, 8, 8)), PIXELS[:, :8, :8])
    np.testing.assert_array_equal(
        open_source(path, driver=driver, bands="2,1").read(Box(0, 0, 8, 8)), PIXELS[1::-1, :8, :8]
    )
    assert source.identity()["reader"] == driver
    assert path in source.files


def test_jpeg_2000_is_recognised_and_the_others_are_asked_for(tmp_path: Path, netcdf: Path) -> None:
    jp2 = write(tmp_path / "no_ending", "JP2OpenJPEG", REVERSIBLE="YES", QUALITY="100")
    assert isinstance(open_source(jp2), RasterSource)
    asked = {write(tmp_path / "a.tif", "HFA"): "HFA", write(tmp_path / "a.dat", "ENVI"): "ENVI", netcdf: "netCDF"}
    for path, driver in asked.items():
        with pytest.raises(InputError, match=rf"only if its driver is named: `driver='{driver}'`"):
            open_source(path)
    with pytest.raises(InputError, match="is not Erdas Imagine, whatever its name says"):
        open_source(jp2, driver="HFA")
    with pytest.raises(InputError, match=r"a\.hdr is not an image .*`driver='ENVI'`"):
        open_source(tmp_path / "a.hdr")
    with pytest.raises(InputError, match=r"has no header of ENVI beside it"):
        open_source(jp2, driver="ENVI")
    with pytest.raises(UsageError, match="'NITF' is unknown; "):
        open_source(jp2, driver="NITF")
    with pytest.raises(InputError, match=r"is a folder, and `driver='HFA'` opens a file"):
        open_source(tmp_path, driver="HFA")
    with pytest.raises(UsageError, match=r"scene='red' is not there"):
        open_source(jp2, scene="red")


def test_a_gdal_without_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.img", "HFA")
    monkeypatch.setattr(geo_drivers, "built_in", lambda: frozenset({"GTiff", "ENVI"}))
    with pytest.raises(UsageError, match=r"has no driver HFA; it has GTiff, VRT, ENVI\. .*libgdal-hfa"):
        open_source(path, driver="HFA")


def test_lossy_jpeg_2000_is_known_as_such(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jp2", "JP2OpenJPEG", QUALITY="20", REVERSIBLE="NO")
    assert open_source(path).lossy  # type: ignore[attr-defined]


def test_tiles_of_jpeg_2000_bound_what_is_loaded(tmp_path: Path) -> None:
    one = write(tmp_path / "one.jp2", "JP2OpenJPEG", BLOCKXSIZE="128", BLOCKYSIZE="128")
    many = write(tmp_path / "many.jp2", "JP2OpenJPEG", BLOCKXSIZE="32", BLOCKYSIZE="32")
    assert (tiles_of_jpeg2000(str(one)), tiles_of_jpeg2000(str(many))) == (1, 3)  # GDAL makes tiles of 32 x 90


def test_variables_of_one_size_may_be_bands(tmp_path: Path) -> None:
    """GDAL writes an image of three bands as three variables; the message leads to one image of three bands."""
    path = tmp_path / "a.nc"
    copy(write(tmp_path / "a.tif", "GTiff"), path, driver="netCDF")
    with pytest.raises(InputError, match="holds 3 variables: Band1") as refused:
        open_source(path, driver="netCDF")
    words = shlex.split(str(refused.value).partition("join them: ")[2])
    assert words[:3] == ["gdalbuildvrt", "-separate", "all.vrt"]
    assert words[6:] == ["&&", "gdal_translate", "all.vrt", "out.tif"]
    for name, expected in zip(words[3:6], PIXELS, strict=True):
        with rasterio.open(name) as variable:
            np.testing.assert_array_equal(variable.read(1), expected)


def test_variables_of_netcdf(netcdf: Path) -> None:
    with pytest.raises(InputError, match=r"holds 2 variables: ndvi \(2x30x40, .*\), red .*`scene='ndvi'`"):
        open_source(netcdf, driver="netCDF")
    with pytest.raises(UsageError, match=r"holds no variable 'blue'; it holds ndvi"):
        open_source(netcdf, driver="netCDF", scene="blue")
    source: Any = open_source(netcdf, driver="netCDF", scene="ndvi")
    with rasterio.open(f"netcdf:{netcdf}:ndvi") as known:
        stored = known.read()
        np.testing.assert_array_equal(source.read(Box(0, 0, 30, 40)), stored)
        np.testing.assert_array_equal(source.valid(Box(0, 0, 30, 40)), (known.read_masks() > 0).any(0))
        assert source.georeference.transform == tuple(known.transform)[:6]
    assert not source.valid(Box(0, 0, 5, 6)).any()
    assert (source.nodata, source.dtype, source.selected) == (7, np.dtype("int16"), {"scene": "ndvi"})
    assert [band.name for band in source.file_bands] == ["time=0", "time=1"]
    np.testing.assert_array_equal(open_source(netcdf, driver="netCDF", scene=0).read(Box(0, 0, 30, 40)), stored)
    assert open_source(netcdf, driver="netCDF", scene=1).dtype == np.float32


def test_a_scale_is_said_and_not_applied(netcdf: Path) -> None:
    plan = tp.plan(open_source(netcdf, driver="netCDF", scene="ndvi"), constant_model(0.3, 0.7, bands=2))
    said = next(row for row in plan.fit_table if row.name == "values" and row.state == "note")
    assert "(0.5 * value + -1), which is not applied" in said.text


@pytest.mark.parametrize("kind", ["complex64", "complex_int16"])
def test_complex_pixels_are_refused_in_a_sentence(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.tif"
    with rasterio.open(path, "w", driver="GTiff", width=9, height=9, count=1, dtype=kind, **UTM):
        pass
    with pytest.raises(InputError, match=rf"holds complex pixels \({kind}\).*DERIVED_SUBDATASET:AMPLITUDE"):
        open_source(path)


def test_the_command_line_says_variables_and_keeps_the_choice(
    netcdf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", str(netcdf), "--driver", "netCDF"]) == 0
    shown = capsys.readouterr().out
    assert "ndvi: '2x30x40, 16-bit integer'" in shown
    assert f"next: tilepipe info {netcdf} --driver netCDF --scene ndvi" in " ".join(shown.split())
    assert main(["info", str(netcdf), "--driver", "netCDF", "--scene", "red", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bands"] == 2
    assert main(["info", str(netcdf)]) == 4
    assert "--driver netCDF" in capsys.readouterr().err
    model = constant_model(0.3, 0.7, bands=2)
    made = tp.segment(netcdf, model, tmp_path / "labels.tif", driver="netCDF", scene="red")
    assert made.record["choice"] == {"scene": "red", "driver": "netCDF"}
    assert tp.verify(tmp_path / "labels.tif", None, model, windows=0).stored is not None


class TestHdf5:
    """HDF5 may name other files, so each is looked through by h5py first."""

    @pytest.fixture
    def made(self, tmp_path: Path) -> Callable[..., Path]:
        h5py = pytest.importorskip("h5py")

        def make(name: str, **content: Any) -> Path:
            with h5py.File(tmp_path / name, "w") as file:
                file["g/x"] = PIXELS
                for key, value in content.items():
                    value(file, key)
            return tmp_path / name

        return make

    def test_pixels(self, made: Callable[..., Path]) -> None:
        one = made("one.h5")
        np.testing.assert_array_equal(open_source(one, driver="HDF5").read(Box(0, 0, 70, 90)), PIXELS)
        tile = PIXELS[0].astype(np.float32)
        several = made("several.h5", y=lambda file, key: file.create_dataset(key, data=tile, chunks=(16, 16)))
        # GDAL takes a netCDF without coordinates for one whose last row is the northernmost.
        for driver, rows in (("HDF5", slice(None)), ("netCDF", slice(None, None, -1))):
            with pytest.raises(InputError, match="holds 2 variables: "):
                open_source(several, driver=driver)
            for scene, pixels in (("y", tile[None]), ("g/x", PIXELS)):
                read = open_source(several, driver=driver, scene=scene).read(Box(0, 0, 70, 90))
                np.testing.assert_array_equal(read, pixels[:, rows])

    def test_a_variable_by_its_number_as_text(self, made: Callable[..., Path]) -> None:
        """The command line knows texts only."""
        several = made("several.h5", y=lambda file, key: file.create_dataset(key, data=PIXELS[0]))
        for number, bands in (("0", 3), ("1", 1)):
            assert open_source(several, driver="HDF5", scene=number).shape[0] == bands

    def test_damage_is_refused_wherever_it_lies(self, made: Callable[..., Path], tmp_path: Path) -> None:
        content, random = made("whole.h5").read_bytes(), np.random.default_rng(0)
        refused = 0
        for k in range(60):
            damaged = bytearray(content)
            for place in random.integers(0, 2048, 4):
                damaged[place] = random.integers(0, 256)
            (tmp_path / f"{k}.h5").write_bytes(damaged)
            try:
                open_source(tmp_path / f"{k}.h5", driver="HDF5")
            except TilepipeError:
                refused += 1
        assert refused > 10

    @pytest.mark.parametrize("driver", ["HDF5", "netCDF"])
    @pytest.mark.parametrize("way", ["storage", "link", "virtual"])
    def test_files_elsewhere_are_not_opened(self, made: Callable[..., Path], driver: str, way: str) -> None:
        h5py = pytest.importorskip("h5py")
        other = made("other.h5")

        def virtual(file: Any, key: str) -> None:
            layout = h5py.VirtualLayout((70, 90), "u2")
            layout[:] = h5py.VirtualSource(str(other), "g/x", (3, 70, 90))[0]
            file.create_virtual_dataset(key, layout)

        ways: dict[str, Any] = {
            "storage": lambda file, key: file.create_dataset(key, (8, 8), "u1", external=[("/etc/passwd", 0, 64)]),
            "link": lambda file, key: file.__setitem__(key, h5py.ExternalLink(str(other), "/g/x")),
            "virtual": virtual,
        }
        path = made("a.h5", secret=ways[way])
        with pytest.raises(InputError, match=r"says that /secret lies in '.*'; nothing outside an image is opened"):
            open_source(path, driver=driver, scene="secret")

    def test_a_group_that_holds_itself_ends(self, made: Callable[..., Path]) -> None:
        path = made("a.h5", loop=lambda file, key: file["g"].__setitem__(key, file["g"]))
        assert open_source(path, driver="HDF5").shape == PIXELS.shape

    def test_huge_pieces_are_refused(self, made: Callable[..., Path]) -> None:
        huge = made("a.h5", y=lambda file, key: file.create_dataset(key, (20000, 20000), "u1", chunks=(20000, 20000)))
        with pytest.raises(InputError, match="stored in pieces of 381 MiB"):
            open_source(huge, driver="HDF5", scene="y")

    def test_without_h5py(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "a.h5").write_bytes(geo_drivers.HDF5_MAGIC + bytes(100))
        real = builtins.__import__

        def absent(name: str, *rest: Any, **more: Any) -> Any:
            if name == "h5py":
                raise ImportError(name)
            return real(name, *rest, **more)

        monkeypatch.setattr(builtins, "__import__", absent)
        with pytest.raises(InputError, match=r"not installed: pip install 'tilepipe\[hdf5\]'"):
            open_source(tmp_path / "a.h5", driver="HDF5")


def test_files_beside_that_name_others_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jp2", "JP2OpenJPEG")
    (tmp_path / "a.jp2.aux.xml").write_text(
        "<PAMDataset><Metadata domain='x'><MDI key='OVERVIEW_FILE'>/etc/x</MDI></Metadata></PAMDataset>"
    )
    with pytest.raises(InputError, match="names other files"):
        open_source(path)
