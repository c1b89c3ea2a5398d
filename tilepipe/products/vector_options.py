"""What a user may choose of polygons: the reference system that they are in. Labels are the same whatever is chosen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from rasterio.crs import CRS
from rasterio.errors import CRSError

from tilepipe.errors import UsageError
from tilepipe.text import setting

TABLES = {"vectors", "flatgeobuf", "shapefile", "geoparquet"}
"""Products that hold polygons as a table, in the reference system of the raster or in another one."""


@dataclass(frozen=True)
class VectorOptions:
    """How polygons are written."""

    crs: str | None = None
    """Reference system of the polygons; the raster's own if None."""

    def refuse_unused(self, products: Iterable[str]) -> None:
        """Raise `UsageError` for an option that changes none of the products that are written."""
        if self.crs is not None and not TABLES & set(products):
            raise UsageError(
                f"{setting(crs=self.crs)} is for polygons in a table, and none is written (GeoJSON is in longitude and "
                f"latitude); add one of {', '.join(sorted(TABLES))} to `of`, or leave `crs` out"
            )

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of the options, which are settings of a run too."""
        return tuple(cls.__dataclass_fields__)

    def to_dict(self) -> dict[str, Any]:
        """Return what was chosen, in JSON's types."""
        return {name: value for name, value in asdict(self).items() if value}


PLAIN = VectorOptions()
"""Polygons as they are traced."""


def target_crs(text: str) -> CRS:
    """Return the coordinate reference system that a text names. Raises `UsageError` if it names none."""
    try:
        return CRS.from_user_input(text)
    except CRSError:
        raise UsageError(f"`crs` {text!r} is no coordinate reference system; give one like EPSG:32645") from None


def target_name(text: str) -> str:
    """Return the text if it names a coordinate reference system. Raises `UsageError` if it does not."""
    target_crs(text)
    return text
