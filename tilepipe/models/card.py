"""ModelCard: what a model expects and what its classes mean; it is kept as `model.json` in a model directory.

This module does not import torch, so a plan can be made without torch.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import from_json

from tilepipe.errors import ModelError
from tilepipe.models.stac_mlm import fields_of, is_item
from tilepipe.paths import refuse_special
from tilepipe.text import JSON, did_you_mean, wrong_value

Output = Literal["logits", "probabilities", "labels"]
"""Kind of values that a network returns: scores of any size, results of a softmax or sigmoid, or finished labels."""
MAX_BYTES = 1 << 20
"""Largest model.json that is read, in bytes."""
MAX_STRIDE, MAX_TILE = 4096, 1 << 16
LEAST, MOST = 1e-30, 1e30
"""Range of means and deviations: float32 cannot hold numbers beyond it."""
SMALL, LARGE = 1e-6, 1e9
"""Range of `scale`, by which pixels are divided."""
FINEST, COARSEST = 1e-6, 1e6
"""Range of pixel sizes, in the card's `unit`."""
PRESET = "imagenet"
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
"""Mean and deviation of red, green, blue divided by 255 that most pretrained encoders expect (torchvision.models)."""

# Colour-blind safe qualitative colours; class 0 is the background. (Okabe & Ito 2008)
DEFAULT_COLORS = ("#d9d9d9", "#d55e00", "#009e73", "#0072b2", "#f0e442", "#cc79a7", "#56b4e9", "#e69f00", "#000000")


class ModelCard(BaseModel):
    """What a model expects (bands, scaling, pixel size) and what its classes are called: the file `model.json`.

    Only `bands` and `classes` must be given. A card cannot be changed: `card.model_copy(update={...})` makes another.

    Raises:
        ModelError: A field has a wrong value, is out of its range, or is not known.

    Example:
        >>> import tilepipe as tp
        >>> card = tp.ModelCard(bands=1, classes=["background", "building"], mean=[90], std=[40])
        >>> card.label_dtype, card.nodata
        ('uint8', 255)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    """Version of this format."""
    name: str = "model"
    """Short name, which is written into products."""
    description: str = ""
    """One or two sentences for people."""
    bands: int = Field(ge=1, le=4096)
    """Number of bands that the model reads."""
    band_names: tuple[str, ...] = ()
    """Names of the bands in the order in which the model reads them, as files call them: red, green, blue, nir."""
    classes: tuple[str, ...] = Field(min_length=1)
    """Class names by label value, from 0."""
    colors: tuple[str, ...] = ()
    """Colours '#rrggbb', one per class; a default palette is used if it is empty."""
    output: Output | None = None
    """Kind of the network's output: 'logits', 'probabilities' or 'labels'. If None, the network's last operation and a
    made-up tile show the kind."""
    key: str | int | None = None
    """Name or place of the scores in a network that returns several things; if None, they are found by name and
    shape."""
    mean: tuple[float, ...] = ()
    """Means, one per band, in the image's own pixel units; empty stands for 0."""
    std: tuple[float, ...] = ()
    """Standard deviations, one per band, in the image's own pixel units; empty stands for 1."""
    scale: float | None = Field(default=None, ge=SMALL, le=LARGE)
    """Number that pixels are divided by before `mean` and `std` are applied. The card turns `mean` and `std` into the
    image's own pixel units and then keeps no `scale`."""
    channels: Literal["RGB", "BGR"] | None = None
    """'BGR' if the network reads three bands in the opposite order of the card's `bands`, `mean` and `std`."""
    layout: Literal["NCHW", "NHWC"] | None = None
    """'NHWC' if bands and classes are the network's last axis. None stands for NCHW; an ONNX file says its own."""
    pad: int = Field(default=0, ge=0, le=MAX_STRIDE)
    """Number of pixels of value 0 (after scaling) that a tile gets on each side for the network. An output that is
    larger than the tile is cut evenly on all sides."""
    threshold: float | None = Field(default=None, gt=0, lt=1)
    """Probability above which a pixel is of the second of two classes; None stands for 0.5. Of more classes, a pixel
    is of the first if no class has this probability; None asks for none."""
    dtype: Literal["uint8", "uint16", "int16", "float32"] | None = None
    """Pixel type that the model was trained on; an image of another type is refused. None takes any type."""
    resolution: float | None = Field(default=None, ge=FINEST, le=COARSEST, allow_inf_nan=False)
    """Pixel size that the model was trained at, in `unit`; None takes the image's own."""
    unit: Literal["m", "um"] = "m"
    """Unit of `resolution`: metres on the ground, micrometres in the specimen."""
    stride: int = Field(default=1, ge=1, le=MAX_STRIDE)
    """Total stride in pixels: tile origins and sizes are multiples of it."""
    halo: int | None = Field(default=None, ge=0, le=MAX_TILE)
    """Reach rounded up to a multiple of `stride`, in pixels; None if it is unknown or unbounded."""
    tile: int | None = Field(default=None, ge=1, le=MAX_TILE)
    """Suggested tile size in pixels of the prediction grid."""
    arch: JSON | None = None
    """Architecture of one of our networks: {'name': 'unet', ...its parameters}; None for a model wrapped from
    Python."""
    license: str = ""
    """Licence of the weights."""
    training: JSON = Field(default_factory=dict)
    """Training record: data, configuration, scores."""

    def __init__(self, **fields: Any) -> None:
        """Check the fields. Raises `ModelError` that names the first wrong field."""
        self._check("model card", fields)

    def _check(self, name: str, fields: JSON) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise ModelError(_first_problem(name, error)) from None

    @model_validator(mode="before")
    @classmethod
    def _image_units(cls, fields: Any) -> Any:
        """Turn presets into numbers, and turn `mean` and `std` of scaled pixels into the image's own pixel units."""
        if not isinstance(fields, dict):
            return fields
        presets = [name for name in IMAGENET if isinstance(fields.get(name), str) and fields[name].lower() == PRESET]
        scale: Any = fields.get("scale")
        bands, dtype = fields.get("bands"), fields.get("dtype")
        if presets:
            if bands != 3:
                raise ValueError(f"{presets[0]}: {PRESET} is of red, green and blue, and the card says bands {bands}")
            if any(fields.get(name) for name in IMAGENET if name not in presets):
                raise ValueError(f"mean and std: write {PRESET} for both, or numbers for both")
            if scale is None and dtype not in (None, "uint8"):
                raise ValueError(
                    f"{presets[0]}: {PRESET} is of pixels from 0 to 1; for {dtype} add scale: they are divided by it"
                )
            fields = {**fields, **IMAGENET}
            scale = 255 if scale is None else scale
        # A wrong value is left to the check of its field, whose message names the field.
        if not _is_number(scale) or not SMALL <= scale <= LARGE:
            return fields
        # Pixels are divided by the scale also if no std is given, so there must be a 1 that the scale can multiply.
        std = fields.get("std") or ((1,) * bands if isinstance(bands, int) and 0 < bands <= 4096 else ())
        scaled = {"mean": _times(scale, fields.get("mean") or ()), "std": _times(scale, std)}
        return {**{name: value for name, value in fields.items() if name != "scale"}, **scaled}

    @field_validator("colors")
    @classmethod
    def _hex(cls, colors: tuple[str, ...]) -> tuple[str, ...]:
        for color in colors:
            if len(color) != 7 or color[0] != "#" or any(c not in "0123456789abcdefABCDEF" for c in color[1:]):
                raise ValueError(f"colour {color!r} is not '#rrggbb'")
        return colors

    @field_validator("name", "classes")
    @classmethod
    def _printable(cls, names: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for name in (names,) if isinstance(names, str) else names:
            if any(unicodedata.category(c) in ("Cc", "Cs") for c in name):
                raise ValueError(f"{name!r} holds control characters; use letters, digits and blanks")
        return names

    @field_validator("mean", "std")
    @classmethod
    def _numbers(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        for value in values:
            # NaN is not below any number, so this refuses it too.
            if not abs(value) <= MOST:
                raise ValueError(f"{value} is no number that pixels can be scaled with")
        return values

    @model_validator(mode="after")
    def _lengths(self) -> ModelCard:
        for field, wanted, of in (
            ("mean", self.bands, "bands"),
            ("std", self.bands, "bands"),
            ("band_names", self.bands, "bands"),
            ("colors", len(self.classes), "classes"),
        ):
            have = len(getattr(self, field))
            if have not in (0, wanted):
                raise ValueError(f"{field} has {have} values for {wanted} {of}")
        if any(s < LEAST for s in self.std):
            raise ValueError(f"std must be above 0 for every band (at least {LEAST:g})")
        if len(self.classes) > 65535:
            raise ValueError(f"{len(self.classes)} classes, at most 65535 fit a uint16 label map")
        if self.channels == "BGR" and self.bands != 3:
            raise ValueError(f"channels: BGR is of three bands, and the card says bands {self.bands}")
        if self.threshold is not None and (len(self.classes) < 2 or self.output == "labels"):
            raise ValueError(
                f"threshold is of two or more classes in logits or probabilities; the card has {len(self.classes)} "
                f"{'class' if len(self.classes) == 1 else 'classes'} and output {self.output or 'logits'}"
            )
        if self.halo is not None and self.halo % self.stride:
            raise ValueError(f"halo {self.halo} is not a multiple of stride {self.stride}")
        return self

    @property
    def label_dtype(self) -> str:
        """'uint8' for up to 255 classes, else 'uint16'."""
        # 255 classes are the labels 0 to 254; the number after them is nodata.
        return "uint8" if len(self.classes) <= 255 else "uint16"

    @property
    def nodata(self) -> int:
        """Label of pixels that are not computed or hold no image data: 255, or 65535 for uint16."""
        return 255 if self.label_dtype == "uint8" else 65535

    @property
    def palette(self) -> tuple[tuple[int, int, int], ...]:
        """(red, green, blue) per class, 0 to 255."""
        return palette_of(self.colors, len(self.classes))

    def to_json(self) -> str:
        """Return the text of `model.json`."""
        return json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str, name: str = "model.json") -> ModelCard:
        """Parse the text of `model.json`, or of a STAC item of a model (MLM); errors call the text `name`.

        Raises `ModelError` if it holds no card.
        """
        try:
            # pydantic's parser ends a text that nests too deeply with a ValueError, before the stack is full.
            fields = from_json(text)
        except ValueError as error:
            raise ModelError(f"{name}: Invalid JSON: {error}") from None
        if not isinstance(fields, dict):
            raise ModelError(f'{name}: it needs keys with values, like {{"bands": 3, "classes": ["a", "b"]}}')
        if is_item(fields):
            fields = fields_of(fields, name)
        # `__init__` would call every text 'model card' in its errors.
        card = cls.__new__(cls)
        card._check(name, fields)
        return card

    @classmethod
    def load(cls, path: Path) -> ModelCard:
        """Read `model.json`, up to `MAX_BYTES`. Raises `ModelError` if it is missing or does not hold a card."""
        refuse_special(path, ModelError)
        try:
            with path.open("rb") as file:
                # One byte too many shows that the file is too large, and no more of it is read.
                content = file.read(MAX_BYTES + 1)
            text = content.decode()
        except (OSError, UnicodeDecodeError):
            raise ModelError(
                f"{path} cannot be read; a model directory holds model.json and weights.safetensors"
            ) from None
        if len(content) > MAX_BYTES:
            raise ModelError(f"{path} has more than {MAX_BYTES} bytes, which is the most that is read of a card")
        return cls.from_json(text, str(path))


def _is_number(value: object) -> bool:
    # In Python, True is a whole number too.
    return isinstance(value, int | float) and not isinstance(value, bool)


def _times(scale: float, values: Any) -> Any:
    """Return `values` times `scale`; anything but a list of numbers stays as it is, so that the check refuses it."""
    if not isinstance(values, list | tuple) or not all(_is_number(value) for value in values):
        return values
    return tuple(scale * value for value in values)


def _first_problem(name: str, error: ValidationError) -> str:
    # A misspelled field comes first because it explains a missing one.
    first = min(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    if first["type"] == "extra_forbidden" and len(first["loc"]) == 1:
        return f"{name}: field {did_you_mean(str(first['loc'][0]), ModelCard.model_fields)}"
    return f"{name}: {wrong_value(first)}"


def palette_of(colors: Sequence[str], classes: int) -> tuple[tuple[int, int, int], ...]:
    """Return (red, green, blue) of colours '#rrggbb', 0 to 255; without colours the default of each class."""
    colors = colors or tuple(DEFAULT_COLORS[k % len(DEFAULT_COLORS)] for k in range(classes))
    return tuple((int(c[1:3], 16), int(c[3:5], 16), int(c[5:7], 16)) for c in colors)
