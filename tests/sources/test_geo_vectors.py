"""Vector files from elsewhere: what they name is not opened, and what is damaged is refused in a sentence."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tilepipe.errors import InputError
from tilepipe.sources.geo_crs import known_crs
from tilepipe.sources.geo_vectors import read_vectors
from tilepipe.sources.geojson import LON_LAT

shapely = pytest.importorskip("shapely")
pyarrow = pytest.importorskip("pyarrow")
pyogrio = pytest.importorskip("pyogrio")

SQUARE = np.array(shapely.to_wkb([shapely.box(0, 0, 1, 1)]))


def geoparquet(path: Path, crs: object) -> Path:
    from pyarrow import parquet

    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": {"encoding": "WKB", "crs": crs}}}
    table = pyarrow.table({"geometry": list(SQUARE)}).replace_schema_metadata({"geo": json.dumps(geo)})
    parquet.write_table(table, path)
    return path


@pytest.fixture
def asked() -> Any:
    """A server on this machine, and the paths that it was asked for."""
    paths: list[str] = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/crs", paths
    server.shutdown()
    server.server_close()


def test_an_address_or_a_file_as_crs_is_not_opened(asked: Any, tmp_path: Path) -> None:
    address, paths = asked
    (tmp_path / "crs.wkt").write_text("EPSG:4326")
    for named in (address, str(tmp_path / "crs.wkt"), "+proj=longlat +nadgrids=/etc/passwd", "nonsense"):
        assert known_crs(named) is None
        with pytest.raises(InputError, match=r"its CRS .* is not known"):
            read_vectors(geoparquet(tmp_path / "a.parquet", named))
    assert paths == []


@pytest.mark.parametrize("crs", [["x"], {"id": None}, {"id": {"authority": 3}}, 7, {"type": "GeographicCRS"}])
def test_a_crs_of_another_kind_is_refused(crs: object, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"its CRS .* is not known"):
        read_vectors(geoparquet(tmp_path / "a.parquet", crs))


@pytest.mark.parametrize("crs", ["EPSG:32645", "urn:ogc:def:crs:EPSG::32645", None])
def test_a_crs_that_is_known_is_kept(crs: str | None, tmp_path: Path) -> None:
    assert read_vectors(geoparquet(tmp_path / "a.parquet", crs)).crs == crs


def test_longitude_and_latitude_of_projjson(tmp_path: Path) -> None:
    said = {"type": "GeographicCRS", "id": {"authority": "OGC", "code": "CRS84"}}
    assert read_vectors(geoparquet(tmp_path / "a.parquet", said)).crs == LON_LAT


def test_a_layer_without_geometry_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.gpkg"
    pyogrio.raw.write(path, SQUARE, [], fields=[], geometry_type="Polygon", crs="EPSG:4326", layer="areas")
    table = np.array(["x"], object)
    pyogrio.raw.write(path, None, [table], fields=["name"], geometry_type=None, crs=None, layer="notes", append=True)
    assert len(read_vectors(path, "areas").polygons) == 1
    with pytest.raises(InputError, match="layer notes is a table without geometry"):
        read_vectors(path, "notes")


def test_a_layer_that_lies_nowhere_names_no_crs(tmp_path: Path) -> None:
    nowhere = 'LOCAL_CS["Undefined Cartesian SRS",UNIT["metre",1]]'
    path = tmp_path / "a.gpkg"
    pyogrio.raw.write(path, SQUARE, [], fields=[], geometry_type="Polygon", crs=nowhere)
    assert read_vectors(path).crs is None
