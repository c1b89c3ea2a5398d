"""A jobs file: which images, one model, which settings, and where each output goes.

    images: [scenes/**/*.tif]              # paths or globs, relative to the file
    model: forest                          # a bundled model or a model directory; [a, b]: their mean
    output: labels/{dir}/{stem}.labels.tif # {stem} and {name} of the image, {dir}: its folder below the glob's start
    of: [cog]                              # products; optional
    settings: {tile: 512}                  # those of `tilepipe segment`; optional
    manifest: scenes.csv                   # images that a table or STAC items name; in place of `images` or besides
    exclude: ["*_old.tif"]                 # patterns of images that are left out; optional
    modified_after: 2026-11-01             # images that are older are left out; optional
    settle: 60                             # time that an image must stay unchanged before it is read (seconds)

Outputs lie in the folder that the template starts with, whatever the images are called, and no two images share one.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from string import Formatter

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tilepipe.errors import UsageError
from tilepipe.execution.batch.pixel_sizes import is_table
from tilepipe.paths import refuse_remote, refuse_special
from tilepipe.planning.settings import Request, Settings
from tilepipe.products.vector_options import VectorOptions
from tilepipe.text import JSON, comma_list, did_you_mean, kind_of, read_yaml, wrong_value

FIELDS = ("dir", "stem", "name")
SETTLE = 2.0
"""Time that an image must stay unchanged before it is read, if the jobs file says nothing (seconds)."""


class Jobs(BaseModel):
    """The content of a jobs file, checked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: tuple[str, ...] = ()
    """Paths or globs, relative to the jobs file; `**` goes through folders."""
    manifest: str = ""
    """Path of a CSV table or of STAC items that name images, relative to the jobs file."""
    exclude: tuple[str, ...] = ()
    """Patterns of the images that are left out; they are compared with the path from the jobs file and with the
    name."""
    modified_after: date | None = None
    """Images that were changed last before this day are left out."""
    incremental: bool = False
    """Whether labels of an image that has changed are taken over where it has not (see the setting `since`)."""
    index: bool = False
    """Whether an index of outlines (GeoJSON) and a VRT of all rasters are written beside the record."""
    metrics: str = ""
    """Path of a file with figures for Prometheus, relative to the jobs file; '' for none."""
    settle: float = Field(default=SETTLE, ge=0)
    """Time that an image must stay unchanged before it is read (seconds)."""
    model: str | tuple[str, ...]
    """A bundled model or a model directory; a path is relative to the jobs file. Of a list, the probabilities are
    averaged."""
    output: str = "{dir}/{stem}.labels.tif"
    """Template of the output path, relative to the jobs file."""
    of: tuple[str, ...] = ()
    """Products; if empty, the output's name says the product."""
    settings: JSON = Field(default_factory=dict)
    """Settings of `tilepipe.segment`."""

    @property
    def models(self) -> tuple[str, ...]:
        """Names of all models."""
        return (self.model,) if isinstance(self.model, str) else self.model

    @property
    def polygons(self) -> VectorOptions:
        """Options of polygons and objects."""
        return Request.of({name: self.settings.get(name) for name in VectorOptions.names()}).polygons

    @model_validator(mode="after")
    def _names_images(self) -> Jobs:
        if not (self.images or self.manifest):
            raise ValueError("it needs 'images:' or 'manifest:'")
        return self

    @field_validator("images", "exclude", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("images")
    @classmethod
    def _on_this_machine(cls, images: tuple[str, ...]) -> tuple[str, ...]:
        for image in images:
            refuse_remote("the jobs file", image, UsageError)
        return images

    @field_validator("of", mode="before")
    @classmethod
    def _as_in_the_option(cls, value: object) -> object:
        return comma_list(value) if isinstance(value, str) else value

    @field_validator("settings")
    @classmethod
    def _of_the_right_kind(cls, settings: JSON) -> JSON:
        known = {name: value for name, value in settings.items() if name in Settings.__annotations__}
        # A size for each image is no setting of one run; the batch reads the table when it begins.
        if is_table(known.get("pixel_size")):
            del known["pixel_size"]
        # The batch itself reports unknown settings.
        unknown = {name: value for name, value in settings.items() if name not in known}
        return {**unknown, **Request.of(known).given}

    @field_validator("output")
    @classmethod
    def _template(cls, template: str) -> str:
        for _, field, spec, conversion in _parse(template):
            if field is not None and (field not in FIELDS or spec or conversion):
                raise ValueError(f"{{{field}}} is not a field; the fields are {{dir}}, {{stem}} and {{name}}")
        last = template.rpartition("/")[2]
        if "{stem}" not in last and "{name}" not in last:
            raise ValueError(f"{last!r} would be the same for every image; put {{stem}} or {{name}} into it")
        parts = split(template)[1].split("/")
        # `{dir}` may stand for several folders, so letters beside it would change the name of the first or last one
        # only.
        if ".." in parts or any("{dir}" in part and part != "{dir}" for part in parts):
            raise ValueError("{dir} is a whole part of the path, and '..' cannot follow a field")
        return template


def read_jobs(path: Path) -> Jobs:
    """Read a jobs file. Raises `UsageError` that names the first error in the file."""
    refuse_special(path, UsageError)
    try:
        fields = read_yaml(path)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if not isinstance(fields, dict) or not all(isinstance(key, str) for key in fields):
        raise UsageError(f"{path} holds no jobs; it needs at least 'images:' and 'model:'")
    if (other := kind_of(fields)) not in ("batch run", ""):
        raise UsageError(f"{path} is no jobs file but one for another command; give: tilepipe {other} {path}")
    try:
        return Jobs(**fields)
    except ValidationError as error:
        raise UsageError(f"{path}: {_first_problem(error)}") from None
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def output_folder(jobs: Jobs, base: Path) -> Path:
    """Return the folder that all outputs lie in: the part of the template before its first field."""
    return (base / split(jobs.output)[0]).resolve()


def _parse(template: str) -> list[tuple[str, str | None, str | None, str | None]]:
    try:
        return list(Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"{template!r} is not a template: {error}") from None


def split(template: str) -> tuple[str, str]:
    """Return (the folders before the first field, the rest) of a template."""
    folder, slash, _ = template[: template.index("{")].rpartition("/")
    return folder + slash, template[len(folder + slash) :]


def _first_problem(error: ValidationError) -> str:
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")  # a misspelt field explains a missing one
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return did_you_mean(where, Jobs.model_fields)
    return wrong_value(first)
