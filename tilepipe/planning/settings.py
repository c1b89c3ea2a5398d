"""This module defines settings, which are all a user may choose, and a request: checked settings with every default."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypedDict

from tilepipe.box import Box
from tilepipe.errors import UsageError
from tilepipe.inference.device import Compute, resolve_device, resolve_precision, usual_batch
from tilepipe.planning.check_settings import KINDS, checked
from tilepipe.products.formats import OF_PROBABILITIES
from tilepipe.products.vector_options import PLAIN, VectorOptions

if TYPE_CHECKING:
    from tilepipe.models.model import Model


class TorchDevice(Protocol):
    """A `torch.device`."""

    @property
    def type(self) -> str:
        """Kind of the device: 'cpu' or 'cuda'."""


class DaskClient(Protocol):
    """A `distributed.Client`."""

    @property
    def scheduler(self) -> Any:
        """The scheduler that it is connected to."""


class Choices(TypedDict, total=False):
    """The settings that decide labels, besides the region. They have the names of the command line's options."""

    scene: int | str
    """Image of a file that holds several, counted from 0, the largest by default; or the name of a variable (netCDF,
    HDF5)."""
    z: int
    """Plane along z, counted from 0."""
    t: int
    """Plane along t, counted from 0."""
    driver: str
    """GDAL driver that reads the image: 'JP2OpenJPEG' (JPEG 2000), 'HFA' (Erdas Imagine), 'netCDF', 'HDF5', 'ENVI',
    'VRT' or 'GTiff'. By default the content of the file decides among the formats that need no driver."""
    grid: str
    """Where tiles begin: 'image' (at its first pixel), or 'world' (at fixed places on the earth, so that labels of
    neighbouring images fit each other). 'world' needs `tile` and `overlap`."""
    allow: str | Path | Sequence[str | Path]
    """Folders in which a list of files may name files; by default only those in the folder of the list are opened."""

    bounds: tuple[float, float, float, float]
    """Region as (left, bottom, right, top) in map coordinates of `bounds_crs`."""
    bounds_crs: str
    """CRS of `bounds`, such as 'EPSG:4326'; the image's own by default."""
    bands: str | Sequence[int | str]
    """Bands to read, by number from 1 or by name: "1,2,3", "R,G,B"; those that fit the model by default."""
    window: tuple[int, int, int, int]
    """Region as (column, row, width, height) in full-resolution pixels, as in GDAL's -srcwin."""
    tile: int | Literal["auto"]
    """Side of a tile in pixels of the prediction grid."""
    overlap: int | Literal["auto"]
    """Overlap of neighbouring tiles in pixels of the prediction grid."""
    window_shape: str
    """Weights of a tile's pixels: 'auto', 'crop', 'constant', 'gaussian', 'hann' or 'linear'."""
    statistics: str
    """Source of the statistics of norms and poolings over the whole image: 'auto', 'field' (a grid fixed to the
    image), 'whole' (the whole image) or 'tile' (each tile)."""
    tolerance: float
    """Change of a probability (0 to 1) that is accepted if exact labels cost more than `max_cost`; 0 asks for exact
    labels at any cost. 0.01 by default."""
    tta: Literal["none", "d4"]
    """Positions of each tile whose probabilities are averaged: 'none' (the tile as it lies) or 'd4' (its four quarter
    turns and those of its mirror image, eight times the work)."""
    max_cost: float
    """Largest computing cost of exact labels, as a multiple of one pass over the image; 4 by default."""
    resolution: str | float
    """Grid of the labels: 'full' (the image's own), 'model', or a pixel size in the model's unit."""
    pixel_size: float
    """Pixel size of the image in the model's unit, if the file does not say it or says a wrong one."""
    force_resolution: bool
    """Whether an image is run even if its pixels are more than 8 times as large as the model's."""
    mask: str | Path
    """Pixels that are image data: 'auto' (what the file declares), 'none' (every pixel), 'value:255' (all but those
    of this value). Or pixels that get a label: 'tissue', or the path of a vector file of polygons."""
    classes: str | Sequence[str]
    """Classes of the polygons of `region` or `mask` that count, such as 'Tumor' in QuPath; all polygons by default."""
    device: str | TorchDevice
    """Device: 'auto', 'cpu', 'cuda' or 'cuda:0', or a `torch.device`."""
    precision: str
    """Precision: 'auto' (fp32), 'fp64', 'fp32', 'tf32', 'bf16' or 'fp16'."""
    runtime: str
    """Program that computes the model: 'auto' (the fastest that agrees with torch), 'torch', 'onnxruntime', 'openvino'
    or 'compile' (torch.compile)."""
    batch: int
    """Number of tiles that the model is given at once."""
    block: int
    """Wanted side of a block in pixels of the prediction grid."""
    memory: str | int
    """Largest memory of the run (bytes), or a number with a unit: '4GiB'."""
    trust_model: str
    """'sha256:' and the hash of a model file that can run code; exactly this file is loaded."""


class RunSettings(TypedDict, total=False):
    """The settings of what a run writes, and with what it computes; a region in memory has no use for them."""

    of: str | Sequence[str]
    """Products: 'cog', 'ome-zarr', 'ome-tiff', 'probabilities' (a band per class), 'geojson', 'vectors' (GeoPackage),
    'flatgeobuf', 'shapefile', 'geoparquet', 'csv' (numbers), 'objects' (CSV), 'objects-parquet', 'qupath' (objects for
    QuPath), 'png' (picture), 'overlay' (picture over the image), 'report' (HTML page), 'tissue' (picture of the
    mask 'tissue'), 'tissue-geojson' (its outlines), 'stac' (STAC item), 'dicom-seg' (segmentation of a DICOM slide),
    'files' (labels of each file of the image); a list, or one text with commas between them."""
    workers: int
    """Number of worker processes; 0 computes in this process."""
    scheduler: str | DaskClient
    """Address of a running Dask scheduler, or a `distributed.Client` of it."""
    on_tile_error: str
    """What happens if a tile cannot be read or predicted: 'nodata' leaves its pixels without a label and lists it,
    'fail' ends the run."""
    tile_timeout: float
    """Longest time that the model may take for one batch of tiles in a process that tilepipe has started (seconds); 600
    by default, 0 waits for ever. A tile that takes longer twice counts as a tile that cannot be predicted."""
    overwrite: bool
    """Whether an output that exists is replaced."""
    record: bool
    """Whether the run leaves its record beside the output, which `verify` and the same command again need;
    True by default."""
    since: str | Path
    """Labels of an earlier run, of the image before it was changed or of another date: blocks that see the same pixels
    are taken from them, with the choices of that run, and the others are computed."""
    layers: str | Sequence[str]
    """Uncertainty layers to write beside the labels: 'margin', 'entropy', 'disagreement' (of blended tiles),
    'mutual-information' (of several models or positions)."""


class PolygonSettings(TypedDict, total=False):
    """The settings of polygons and objects in products; labels are the same whatever is chosen."""

    crs: str
    """Coordinate reference system of polygons in a table, such as 'EPSG:4326'; the image's own by default."""
    min_area: float
    """Area below which a polygon or an object is left out: square metres for images on the earth, square micrometres
    for slides, else pixels."""
    fill_holes: float | Literal["all"]
    """Largest area of a hole that is closed, in the units of `min_area`, or 'all'. A hole that holds another polygon or
    nodata stays."""
    simplify: float
    """Largest distance of a simplified border from the border of the pixels: metres, micrometres or pixels. Neighbours
    keep their common border."""
    smooth: bool
    """Whether corners are cut. If `simplify` is not given, borders are first simplified by 1.5 pixels."""
    orthogonalize: bool
    """Whether polygons get right angles, as buildings have. Neighbours may then overlap or part."""
    split: bool
    """Whether objects that touch are split at their necks; without it each 4-connected component is one object."""
    neck: float
    """Largest relative width of a neck at which objects are split: the width of the neck over that of the thinner part
    (0 to 1); 0.8 by default."""
    annotations: bool
    """Whether objects for QuPath are annotations, which can be edited there; detections by default."""
    with_image: bool
    """Whether an OME-Zarr holds the image beside its labels, for viewers; it takes the room of the image."""


class Settings(Choices, RunSettings, PolygonSettings, total=False):
    """All settings of a run: `Choices`, `RunSettings` and `PolygonSettings`, and the region.

    Example:
        >>> import tilepipe as tp
        >>> settings: tp.Settings = {"tile": 256, "window_shape": "crop"}
        >>> tp.plan("pipelines/sample/Amazon_24_20.tif", "forest", **settings).tile_count
        9
    """

    region: Box | tuple[int, int, int, int] | str | Path
    """Region in full-resolution pixels: a `Box`, its (y0, x0, y1, x1), or the path of a vector file of polygons."""


@dataclass(frozen=True)
class Request:
    """The settings of a run, checked once, each with its default. `Settings` says what each means."""

    scene: int | str | None = None
    z: int | None = None
    t: int | None = None
    driver: str | None = None
    grid: str = "image"
    allow: tuple[str, ...] = ()
    products: tuple[str, ...] = ()
    """Products: the setting `of`."""
    bounds: tuple[float, float, float, float] | None = None
    bounds_crs: str | None = None
    bands: str | tuple[int | str, ...] | None = None
    window: tuple[int, int, int, int] | None = None
    tile: int | None = None
    """Side of a tile (pixels); None means 'auto'."""
    overlap: int | None = None
    """Overlap of tiles (pixels); None means 'auto'."""
    window_shape: str = "auto"
    statistics: str = "auto"
    tta: str = "none"
    tolerance: float = 0.01
    max_cost: float = 4.0
    """Largest computing cost of exact labels; the default is the cost of tiles that overlap by half."""
    resolution: str | float = "full"
    pixel_size: float | None = None
    force_resolution: bool = False
    mask: str = "auto"
    classes: tuple[str, ...] = ()
    device: str = "auto"
    precision: str = "auto"
    runtime: str = "auto"
    batch: int | None = None
    """Number of tiles per batch; None means the usual number of the device."""
    block: int = 1024
    memory: int | None = None
    """Largest memory (bytes); None if no limit is given."""
    workers: int = 0
    scheduler: str | None = None
    trust_model: str | None = None
    on_tile_error: str = "nodata"
    tile_timeout: float = 600.0
    overwrite: bool = False
    record: bool = True
    since: str | None = None
    layers: tuple[str, ...] = ()
    region: Box | str | None = None
    polygons: VectorOptions = PLAIN
    """The settings of `PolygonSettings`."""
    given: Mapping[str, object] = field(default_factory=dict, compare=False, repr=False)
    """Settings as they were given; the request key is made from them."""

    @classmethod
    def of(cls, settings: Mapping[str, object]) -> Request:
        """Return `Settings` as a request. Raises `UsageError` if a setting is not known or its value is not allowed."""
        given = checked(settings)
        # Nobody can guess which of two parts is meant.
        ways = [name for name in ("region", "bounds", "window") if name in given]
        if len(ways) > 1:
            named = " and ".join(f"`{way}`" for way in ways)
            raise UsageError(f"{named} are both given; name the part of the image in one way")
        meant = {name: KINDS[name].meant(value) for name, value in given.items()}
        drawn = VectorOptions(**{name: meant.pop(name) for name in VectorOptions.names() if name in meant})
        return cls(products=meant.pop("of", ()), polygons=drawn, **meant, given=given)

    def writing(self, products: Iterable[str]) -> Request:
        """Return the request for these products, which the name of the output may have chosen."""
        return replace(self, products=tuple(products))

    @property
    def probabilities(self) -> bool:
        """Whether the probability of each class is kept, because a product holds it."""
        return not OF_PROBABILITIES.isdisjoint(self.products)

    def compute(self, model: Model) -> Compute:
        """Return the device, precision and batch of a model on this machine. Raises `DeviceError`, `UsageError`,
        `ModelError`."""
        device = resolve_device(self.device)
        precision = resolve_precision(self.precision, device, model)
        return Compute(device, precision, self.batch or usual_batch(device), self.workers)
