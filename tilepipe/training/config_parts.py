"""Parts of a training configuration: scenes, augmentation, colours and the folder of the data."""

from __future__ import annotations

import os
import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from tilepipe.training.given import PathOrArray

COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
DATA_VARIABLE, DATA_DEFAULT = "TILEPIPE_DATA", "../../shared/data"


class Strict(BaseModel):
    """Base class of settings: they cannot be changed, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Scenes(Strict):
    """Images with their labels. `image` may hold * and ?; `{stem}` in `label` stands for the image's name without
    suffix."""

    image: PathOrArray
    """Path of a GeoTIFF, slide, PNG or Zarr image. In Python also an array (bands, height, width) or a DataArray."""
    label: PathOrArray
    """Path of the image's labels: a raster on the same pixels, polygons, or COCO JSON. A path without a folder is
    beside the image, or else in the configuration's folder. In Python also an array (height, width) of whole
    numbers."""
    rows: tuple[int, int] | None = None
    """Full-resolution rows that are used, [first, after last); None uses all."""
    columns: tuple[int, int] | None = None
    """Full-resolution columns that are used, [first, after last); None uses all."""
    resolution: float | None = Field(default=None, gt=0)
    """Pixel size of the image in the configuration's `unit`, if the image does not say it."""
    scene: Annotated[int, Field(ge=0)] | str | None = None
    """Index of the image in a file that holds several, counted from 0, the largest image by default; or the name of a
    variable (netCDF, HDF5)."""
    driver: str | None = None
    """GDAL driver that reads the image, as the setting `driver` of `tilepipe segment`."""
    z: int | None = Field(default=None, ge=0)
    """Plane along z, counted from 0; it must be given if there are several."""
    t: int | None = Field(default=None, ge=0)
    """Plane along t, counted from 0."""
    attribute: str | None = None
    """Attribute of polygons that holds the class: its name, or a number as in `values`. By default it is QuPath's
    `classification`, or `class_name`; a polygon that has neither is of class 1."""
    layer: str | None = None
    """Layer of a GeoPackage or another vector file; it must be given if several layers hold polygons."""
    area: str | None = None
    """Class of the polygons that bound the labelled area, such as QuPath's 'Region*'; pixels outside are
    ignored. Without it every pixel outside a polygon is of class 0."""


class Augment(Strict):
    """The random changes of training crops; a change is off if it is zero or false."""

    flips: bool = True
    """Whether crops are mirrored left-right and up-down, each half of the time."""
    rotate: bool = True
    """Whether crops are turned by 0, 90, 180 or 270 degrees."""
    scale: float = Field(default=1.25, ge=1, le=4)
    """Largest factor by which crops are enlarged or shrunk."""
    color: float = Field(default=0.15, ge=0, le=1)
    """Largest change shared by all bands: of contrast as a fraction, of brightness in standard deviations."""
    bands: float = Field(default=0.05, ge=0, le=1)
    """Largest change of each band on its own, in the same units as `color`."""
    stain: float = Field(default=0.0, ge=0, le=1)
    """Largest change of the strength of each stain as a fraction, for H&E images only (uint8 RGB; Ruifrok 2001)."""


def colour_number(value: object) -> object:
    """Return the number of a colour '#rrggbb'; any other value as it is."""
    return int(value[1:], 16) if isinstance(value, str) and COLOUR.fullmatch(value) else value


def expanded(text: str) -> str:
    """Return `text` with `${TILEPIPE_DATA}` replaced by the environment's value or ../../shared/data."""
    value = os.environ.get(DATA_VARIABLE)
    # A variable is set in a shell, whose relative paths start from the working directory.
    known = {DATA_VARIABLE: DATA_DEFAULT if value is None else os.path.abspath(value)}
    return re.sub(r"\$\{(\w+)\}", lambda found: known.get(found[1], found[0]), text)
