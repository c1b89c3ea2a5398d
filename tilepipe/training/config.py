"""This module defines TrainConfig: all that decides a training run, from YAML.

An unknown key is refused, and the message names the nearest known key.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator

from tilepipe.errors import UsageError
from tilepipe.models.nets.arch import unknown
from tilepipe.paths import refuse_remote, refuse_special
from tilepipe.text import JSON, kind_of, read_yaml, wrong_value
from tilepipe.training.config_parts import COLOUR, Augment, Scenes, Strict, colour_number, expanded
from tilepipe.training.given import Function

Precision = Literal["auto", "fp32", "bf16", "fp16"]
LossName = Literal["cross_entropy", "dice", "focal", "lovasz", "boundary"]

USUAL_LOSSES: dict[LossName, float] = {"cross_entropy": 1.0, "dice": 1.0}
"""Weights of the losses that are summed if a configuration names none."""


class TrainConfig(Strict):
    """The configuration of a training run: everything that decides it.

    Relative paths start from the folder of the YAML file, or from the working directory if there is no file.
    """

    # The settings keep paths as they were written, so a folder that is moved holds the same settings.
    _folder: Path = PrivateAttr(default=Path())

    name: str
    """Short name of the model."""
    description: str = ""
    """Description for people, in one or two sentences."""
    license: str = ""
    """Licence of the weights."""
    output: str
    """Path of the model directory to write, such as buildings.model; training is refused if it exists."""
    # With one class there is nothing to tell apart.
    classes: tuple[str, ...] = Field(min_length=2)
    """Class names by label value, from 0."""
    absent: tuple[str, ...] = ()
    """Classes that are known to have no labelled pixel in `train`; any other such class is refused."""
    colors: tuple[str, ...] = ()
    """Colour '#rrggbb' of each class, as a list, or by class name. Label rasters with three bands are read by these
    colours too, unless `values` names colours."""
    values: dict[int, int] | None = None
    """Class of each value in the labels: of a label raster, of the attribute of polygons, or a colour '#rrggbb' of a
    label raster with three bands. None if the values are classes already. A value that is named here is a label, even
    if the raster calls it nodata."""
    other: int | None = None
    """Class of all values that `values` does not name; None refuses them."""
    ignore: tuple[int, ...] = ()
    """Values in the labels, also colours '#rrggbb', that are neither trained on nor scored. A raster's nodata value is
    treated the same."""
    resolution: float | None = Field(default=None, gt=0)
    """Pixel size to train at, in `unit`; None uses the pixel size of each image."""
    unit: Literal["m", "um"] = "m"
    """Unit of pixel sizes: 'm' (metres on the ground) or 'um' (micrometres in the specimen)."""
    bands: tuple[int | str, ...] | None = None
    """Bands of the images that are trained on, by number from 1 or by name, in this order. By default the fitting bands
    are taken, and training says which."""
    mask: Literal["auto", "none"] = "auto"
    """Pixels of the images that hold data: those that the file says (auto), or all (none)."""
    arch: JSON = Field(default={"name": "unet"})
    """Architecture, as in a model card; by default that of the `start` model."""
    start: str | None = None
    """Bundled name or model directory whose weights training starts from. If the number of classes differs, the head
    starts anew. `arch`, `resolution` and `unit` are those of this model by default."""
    statistics: Literal["start", "data"] | None = None
    """Source of the mean and std that pixels are scaled by: the `start` model, or the labelled pixels ('data'). None
    takes those of the `start` model if it has the same bands and pixel type."""
    encoder_weights: str | None = None
    """Weights of the ResNet encoder: a file with a state dict of torchvision or timm, or a timm name of weights to
    download."""
    train: tuple[Scenes, ...] = Field(min_length=1)
    """Images to train on, with their labels."""
    score: tuple[Scenes, ...] = ()
    """Images that are scored once, after training; nothing is chosen by these scores."""
    # The field has another name in Python because pydantic's models have a method `validate`.
    validation: tuple[Scenes, ...] = Field(default=(), alias="validate")
    """Images that are scored while training, in the way that users get labels (`validate` in the file). The averaged
    weights with the best score are saved; without validation images, the averaged weights after the last step. The
    images share no pixel with `train` and `score`."""
    validate_every: int = Field(default=100, ge=1)
    """Steps between validations; the last step is validated too."""
    patience: int | None = Field(default=None, ge=1)
    """Number of validations without a gain after which training ends; if it is None, all steps are taken."""
    min_gain: float = Field(default=0.0, ge=0, lt=1)
    """Smallest gain of mean IoU over the best so far (0 to 1) that resets `patience`."""
    steps: int = Field(default=1000, ge=1)
    """Number of steps."""
    batch: int = Field(default=8, ge=1)
    """Number of crops per step."""
    crop: int = Field(default=256, ge=16)
    """Side of a training crop (pixels at `resolution`); a multiple of the network's total stride."""
    balance: float = Field(default=0.5, ge=0, le=1)
    """Share of crops around a pixel of an evenly drawn class (0 to 1); the others lie evenly over the labelled area."""
    losses: dict[LossName, float] | Function = Field(default_factory=lambda: dict(USUAL_LOSSES))
    """Weights of the losses that are summed. In Python also a function of logits (B, K, H, W) and classes (B, H, W),
    with -1 for pixels that do not count, that returns one number as a tensor."""
    class_weights: tuple[float, ...] | Literal["balanced"] = ()
    """Weight of each class, for cross_entropy, focal and boundary; 1 if empty. `balanced` gives one over the square
    root of the class's share of the labelled pixels of `train`, scaled to a mean of 1."""
    augment: Augment | Function = Augment()
    """Random changes of the crops. In Python also a function of crops (B, C, H, W) float32 in units of the image and
    classes (B, H, W), that returns both changed; what it draws from torch is fixed by `seed`."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """Largest learning rate; AdamW uses it."""
    warmup: int = Field(default=50, ge=0)
    """Steps in which the learning rate rises; it falls along a cosine afterwards."""
    weight_decay: float = Field(default=1e-2, ge=0)
    """Weight decay of AdamW."""
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    ema: float = Field(default=0.99, ge=0, lt=1)
    """Share that the averaged weights keep at each step (0 to 1); the averaged weights are saved."""
    seed: int = Field(default=0, ge=0)
    """Seed of the start weights, the crops and the augmentation."""
    device: str = "cpu"
    """Device: 'cpu', 'cuda', 'cuda:1' or 'auto'."""
    precision: Precision = "auto"
    """Precision of the forward pass. 'auto' is fp32 on the CPU. On a GPU it is bf16, or fp16 with scaled gradients if
    the GPU has no bf16."""
    half: bool = True
    """Whether weights are stored as float16; the scores are measured with the stored weights."""
    checkpoint: int = Field(default=100, ge=1)
    """Steps between checkpoints."""
    tile: int = Field(default=512, ge=16)
    """Tile size that the card suggests (pixels)."""

    def __init__(self, **values: Any) -> None:
        """Check the values. Raises `UsageError` that names the first wrong value."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise UsageError(f"training configuration: {_sentence(error)}") from None

    @field_validator("classes")
    @classmethod
    def _distinct(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(classes)) < len(classes):
            raise ValueError("class names must differ")
        return classes

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, given: Any) -> Any:
        """Bring colours by class name into the order of the classes, and take names of classes in `values`."""
        names = given.get("classes")
        if not isinstance(names, list | tuple):
            return given
        changed = dict(given)
        if isinstance(colors := given.get("colors"), dict):
            if unfit := sorted({*map(str, colors)} ^ {*map(str, names)}):
                which = "has no colour" if unfit[0] in names else f"is none of {', '.join(map(str, names))}"
                raise ValueError(f"colors: {unfit[0]!r} {which}; name the colour of each class")
            changed["colors"] = tuple(colors[name] for name in names)
        number = {name: k for k, name in enumerate(names) if isinstance(name, str)}
        if isinstance(values := given.get("values"), dict):
            # A colour is taken as the number that it writes, as masks of three bands are read.
            changed["values"] = {colour_number(value): _known(number, label) for value, label in values.items()}
        if "other" in given:
            changed["other"] = _known(number, given["other"])
        return changed

    @field_validator("ignore", mode="before")
    @classmethod
    def _ignored_colours(cls, given: object) -> object:
        return tuple(map(colour_number, given)) if isinstance(given, list | tuple) else given

    @field_validator("bands", mode="before")
    @classmethod
    def _one_text(cls, bands: object) -> object:
        return tuple(word.strip() for word in bands.split(",")) if isinstance(bands, str) else bands

    @field_validator("class_weights", mode="before")
    @classmethod
    def _balanced(cls, weights: object) -> object:
        if isinstance(weights, str) and weights != "balanced":
            raise ValueError(f"{weights!r} is not known; give 'balanced' or a number per class")
        return weights

    @model_validator(mode="after")
    def _stopping(self) -> TrainConfig:
        if self.patience is not None and not self.validation:
            raise ValueError("patience counts validations; name images under validate, or leave it out")
        return self

    @model_validator(mode="after")
    def _classes_exist(self) -> TrainConfig:
        count = len(self.classes)
        if self.colors and len(self.colors) != count:
            raise ValueError(f"colors has {len(self.colors)} values for {count} classes")
        if wrong := [color for color in self.colors if not COLOUR.fullmatch(color)]:
            raise ValueError(f"{wrong[0]!r} in colors is no colour; write it like '#1f77b4'")
        if strangers := set(self.absent) - set(self.classes):
            raise ValueError(f"absent names {min(strangers)!r}, which is none of {', '.join(self.classes)}")
        for value in (*(self.values or {}).values(), *(() if self.other is None else (self.other,))):
            if not 0 <= value < count:
                raise ValueError(f"class {value} is not one of the {count} classes (0 to {count - 1})")
        if isinstance(self.class_weights, tuple) and self.class_weights and len(self.class_weights) != count:
            raise ValueError(f"class_weights has {len(self.class_weights)} values for {count} classes")
        if self.start is not None and self.encoder_weights is not None:
            raise ValueError("start and encoder_weights exclude each other: start has an encoder already")
        if self.statistics == "start" and self.start is None:
            raise ValueError("statistics 'start' needs start, the model whose statistics are kept")
        if isinstance(self.losses, dict) and sum(self.losses.values()) <= 0:
            raise ValueError("losses must name at least one with a weight above 0")
        return self

    @classmethod
    def load(cls, path: str | Path) -> TrainConfig:
        """Read a YAML file; relative paths in it start from its folder.

        `${TILEPIPE_DATA}` in it is the environment's value, or ../../shared/data. Raises `UsageError`.
        """
        refuse_special(path, UsageError)
        try:
            values = read_yaml(path, expanded)
        except ValueError as error:
            raise UsageError(str(error)) from None
        if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
            raise UsageError(f"{path} holds no configuration; it should start with 'name: ...'")
        if (other := kind_of(values)) not in ("train", ""):
            raise UsageError(f"{path} is no training but a file for another command; give: tilepipe {other} {path}")
        try:
            return cls(**values).within(Path(path).parent)
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from None

    def within(self, folder: Path) -> TrainConfig:
        """Return the same configuration with paths that start from `folder`."""
        copy = self.model_copy()
        copy._folder = folder
        return copy

    def path(self, text: str) -> Path:
        """Return the place that a path in the configuration names."""
        refuse_remote("the configuration", text, UsageError)
        return self._folder / text

    def there(self, text: str) -> str:
        """Return the path of a file or folder that is named, or `text` itself if it names no file: a bundled model, or
        weights to download.

        Raises `UsageError` if the path exists in the working directory only.
        """
        if self.path(text).exists():
            return str(self.path(text))
        # A plain word is the name of a bundled model, whatever the working directory holds.
        if set("/\\.") & set(text) and (said := self.only_here(text)):
            raise UsageError(said)
        return text

    def only_here(self, text: str) -> str:
        """Return a sentence with both places if a path exists in the working directory, and not where it is looked
        for; else ''."""
        pattern, path = Path(text), self.path(text)
        here = next(pattern.parent.glob(pattern.name), None) if pattern.name else None
        if here is None or path.exists() or any(path.parent.glob(path.name)):
            return ""
        wanted = os.path.relpath(os.path.abspath(pattern), os.path.abspath(self._folder))
        return (
            f"{text} is not in {self._folder.absolute()}, where the paths of this configuration start, but in the "
            f"working directory {Path().absolute()}; write {wanted}, or move the file"
        )


def _known(number: dict[str, int], label: object) -> object:
    """Return the number of a class that is named, in `number` by name; anything else as it is."""
    return number.get(label, label) if isinstance(label, str) else label


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    # A part with brackets names a type that was tried, as for losses, which may be a table or a function.
    where = [str(part) for part in first["loc"] if "[" not in str(part)]
    first["loc"] = tuple(where)
    if first["type"] == "extra_forbidden":
        owners: dict[str, type[Strict]] = {"train": Scenes, "score": Scenes, "validate": Scenes, "augment": Augment}
        owner = owners.get(where[0], TrainConfig) if len(where) > 1 else TrainConfig
        return unknown("key", where[-1], [field.alias or name for name, field in owner.model_fields.items()])
    return wrong_value(first)
