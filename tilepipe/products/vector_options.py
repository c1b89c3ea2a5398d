"""Options of polygons, objects and an OME-Zarr that a user may choose; labels are the same whatever is chosen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from tilepipe.errors import UsageError
from tilepipe.text import JSON, setting

if TYPE_CHECKING:
    from rasterio.crs import CRS

TABLES = {"vectors", "flatgeobuf", "shapefile", "geoparquet"}
"""Products that hold polygons as a table, in the reference system of the raster or in another one."""
POLYGONS = {"geojson", *TABLES}
"""Products that hold polygons."""
QUPATH = "qupath"
OME_ZARR = "ome-zarr"
OBJECTS = {"objects", "objects-parquet", QUPATH}
"""Products that hold objects."""
DRAWN = {*POLYGONS, *OBJECTS, OME_ZARR}
"""Products that options change."""
NECK = 0.8
"""Width of a neck over the width of the thinner part, below which two parts are two objects."""
ALL = "all"
"""Value of `fill_holes` that closes holes of any area."""


@dataclass(frozen=True)
class VectorOptions:
    """Options for writing polygons and objects. Areas and lengths are in their unit: metres, micrometres or pixels."""

    crs: str | None = None
    """Reference system of the polygons; None stands for the raster's own."""
    min_area: float | None = None
    """Least area of polygons and objects; smaller ones are left out."""
    fill_holes: float | str | None = None
    """Largest area of holes that are closed, or `ALL` for every hole; holes with nodata or another polygon stay."""
    simplify: float | None = None
    """Largest distance of a simplified border from the border of the pixels."""
    smooth: bool = False
    """Whether corners are cut."""
    orthogonalize: bool = False
    """Whether polygons get right angles."""
    split: bool = False
    """Whether components are split into objects at their necks; else each component is one object."""
    neck: float | None = None
    """Width of a neck over the width of the thinner part, from 0 to 1; None stands for `NECK`."""
    annotations: bool = False
    """Whether objects for QuPath are annotations, which can be edited in QuPath, and not detections."""
    with_image: bool = False
    """Whether an OME-Zarr holds the image beside its labels."""

    @property
    def redraws(self) -> bool:
        """Whether borders are drawn otherwise than along the pixels."""
        return bool(self.simplify or self.smooth or self.orthogonalize)

    def refuse_unused(self, products: Iterable[str]) -> None:
        """Raise `UsageError` for an option that changes none of the products that are written, or lacks its package."""
        written = set(products)
        if self.crs is not None and not TABLES & written:
            raise UsageError(
                f"{setting(crs=self.crs)} is for polygons in a table, and none is written (GeoJSON is in longitude and "
                f"latitude); add one of {', '.join(sorted(TABLES))} to `of`, or leave `crs` out"
            )
        if self.neck is not None and not self.split:
            raise UsageError(f"{setting(neck=self.neck)} says where objects are split; give {setting(split=True)} too")
        chosen = self.to_dict()
        for what, names, fit in (
            ("polygons", ("fill_holes", "simplify", "smooth", "orthogonalize"), POLYGONS),
            ("objects", ("split", "neck"), OBJECTS),
            ("objects for QuPath", ("annotations",), {QUPATH}),
            ("an OME-Zarr", ("with_image",), {OME_ZARR}),
            ("polygons or objects", ("min_area",), POLYGONS | OBJECTS),
        ):
            unused = {name: chosen[name] for name in names if name in chosen}
            if unused and not fit & written:
                raise UsageError(
                    f"{setting(**unused)} changes {what}, and none are written; add one of {', '.join(sorted(fit))} "
                    "to `of`"
                )
        # Looking for the package does not import it, which takes long and may never be needed.
        if self.redraws and find_spec("shapely") is None:
            raise UsageError(
                f"{setting(**chosen)} needs shapely, which is not installed; run: pip install 'tilepipe[vectors]'"
            )

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of the options, which are settings of a run too."""
        return tuple(cls.__dataclass_fields__)

    def to_dict(self) -> JSON:
        """Return the chosen options in JSON types."""
        # An option that is 0 or False asks for nothing, like one that is not given.
        return {name: value for name, value in asdict(self).items() if value}


PLAIN = VectorOptions()
"""Options that leave polygons as they are traced."""


def target_crs(text: str) -> CRS:
    """Return the coordinate reference system that a text names. Raises `UsageError` if it names none."""
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    try:
        return CRS.from_user_input(text)
    except CRSError:
        raise UsageError(f"`crs` {text!r} is no coordinate reference system; give one like EPSG:32645") from None


def target_name(text: str) -> str:
    """Return the text if it names a coordinate reference system. Raises `UsageError` if it does not."""
    target_crs(text)
    return text
