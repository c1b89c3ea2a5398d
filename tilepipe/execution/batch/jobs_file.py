"""A jobs file: which images, one model, which settings, and where each output goes.

    images: [scenes/**/*.tif]              # paths or globs, relative to the file
    model: forest                          # a bundled model or a model directory; [a, b]: their mean
    output: labels/{dir}/{stem}.labels.tif # {stem} and {name} of the image, {dir}: its folder below the glob's start
    of: [cog]                              # products; optional
    settings: {tile: 512}                  # those of `tilepipe segment`; optional

Outputs lie in the folder that the template starts with, whatever the images are called, and no two images share one.
"""

from __future__ import annotations

import glob
import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from string import Formatter

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from tilepipe.errors import UsageError
from tilepipe.execution.batch.pixel_sizes import is_table
from tilepipe.paths import refuse_remote, refuse_special
from tilepipe.planning.settings import Request, Settings
from tilepipe.products.formats import files_of
from tilepipe.products.naming import output_paths
from tilepipe.products.vector_options import VectorOptions
from tilepipe.sources.dicom_folder import one_image_each
from tilepipe.text import JSON, comma_list, did_you_mean, kind_of, read_yaml, wrong_value
from tilepipe.tiling.uncertainty import layer_names

FIELDS = ("dir", "stem", "name")
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
_GLOB = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class BatchItem:
    """One image of a batch, and the places of its labels."""

    image: Path
    """Absolute path of the image."""
    output: Path
    """Absolute path of the output that the template gives, inside the output folder of the jobs."""
    products: tuple[Path, ...]
    """Files or folders that will be written: `output`, and the products in other formats beside it."""


class Jobs(BaseModel):
    """The content of a jobs file, checked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: tuple[str, ...] = Field(min_length=1)
    """Paths or globs, relative to the jobs file; `**` goes through folders."""
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

    @field_validator("images", mode="before")
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
        parts = _split(template)[1].split("/")
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
    return (base / _split(jobs.output)[0]).resolve()


def expand(jobs: Jobs, base: Path, products: frozenset[Path] = frozenset()) -> list[BatchItem]:
    """Return one `BatchItem` per image, sorted by image.

    `base` is the folder that relative paths start from; `products` are files that earlier runs wrote; globs do not take
    them for images. Raises `UsageError` if there is no image, if two images share an output, or if an image is an
    output.
    """
    found: dict[Path, BatchItem] = {}
    listed: set[Path] = set()
    for pattern in jobs.images:
        start, images = _matches(base, pattern)
        # A user who names a file means it, even if the file looks like a product of another image; a glob does not.
        listed |= set(images) if len(images) == 1 and images[0].name == Path(pattern).name else set()
        for image in images:
            found.setdefault(image, _job(jobs, base, image, start))
    taken = {product for job in found.values() for product in job.products if product != job.image} | products
    chosen = [found[image] for image in sorted(found) if image in listed or image not in taken]
    if not chosen:
        raise UsageError(f"no image matches {', '.join(jobs.images)} in {base}; check 'images:', paths start there")
    _refuse_collisions(chosen)
    return chosen


def safe_name(name: str) -> str:
    """Return `name` as a file name that every system allows: in NFC form, with '_' for characters that some system
    forbids."""
    # Some systems write an accent in one character or in two, and both spellings must give one output.
    plain = unicodedata.normalize("NFC", name)
    plain = "".join("_" if c in '/\\:*?"<>|' or unicodedata.category(c) in ("Cc", "Cs") else c for c in plain)
    return f"_{plain}" if plain.strip(" .") == "" or _RESERVED.fullmatch(plain) else plain


def _parse(template: str) -> list[tuple[str, str | None, str | None, str | None]]:
    try:
        return list(Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"{template!r} is not a template: {error}") from None


def _split(template: str) -> tuple[str, str]:
    """Return (the folders before the first field, the rest) of a template."""
    folder, slash, _ = template[: template.index("{")].rpartition("/")
    return folder + slash, template[len(folder + slash) :]


def _matches(base: Path, pattern: str) -> tuple[Path, list[Path]]:
    """Return (the folder before the pattern's wildcards, the matching paths); paths are absolute, hidden files left
    out, and all DICOM files of a slide are one image."""
    literal = (base / pattern).parent.resolve() / Path(pattern).name
    if literal.exists():  # brackets are common in names: 'scene [1].tif' is first that file, then a pattern
        return literal.parent, [literal]
    parts = Path(pattern).parts
    wild = [k for k, part in enumerate(parts) if _GLOB.search(part)]
    if not wild:
        return literal.parent, [literal]
    start = (base / Path(*parts[: wild[0]])).resolve()
    found = glob.glob(str(Path(*parts[wild[0] :])), root_dir=start, recursive=True)
    return start, one_image_each([start / name for name in sorted(found)])


def _job(jobs: Jobs, base: Path, image: Path, start: Path) -> BatchItem:
    # The folder of a DICOM slide may be the one that the pattern starts in.
    inside = image.parent.relative_to(start).parts if image.parent.is_relative_to(start) else ()
    below = "/".join(safe_name(part) for part in inside) or "."
    names = {"dir": below, "stem": safe_name(image.stem), "name": safe_name(image.name)}
    folder = output_folder(jobs, base)
    # Links are followed here, so an output cannot leave the folder through a link either.
    output = (folder / _split(jobs.output)[1].format(**names)).resolve()
    if not output.is_relative_to(folder):
        raise UsageError(f"the output of {image} would be {output}, outside {folder}; is there a link in between?")
    products = output_paths(output, list(jobs.of))
    if not products:
        raise UsageError(f"{output.name} says no product; end the template with .tif or name the products in 'of'")
    jobs.polygons.refuse_unused(products)
    files = files_of(products, layer_names(jobs.settings.get("layers", ())))
    return BatchItem(image, output, tuple(file.path for file in files))


def _refuse_collisions(jobs: list[BatchItem]) -> None:
    images = {path for job in jobs for path in (job.image, job.image.resolve())}
    # A hard link is the image itself, and so is another spelling of its name on a file system that ignores case.
    inodes = {(found.st_dev, found.st_ino) for job in jobs if (found := _stat(job.image))}
    taken: dict[str, BatchItem] = {}
    for job in jobs:
        for product in job.products:
            found = _stat(product)
            if product in images or (found and (found.st_dev, found.st_ino) in inodes):
                raise UsageError(f"an output of {job.image} would be {product}, which is an image; change the template")
            # On macOS and Windows A.tif and a.tif are one file.
            other = taken.setdefault(str(product).casefold(), job)
            if other is not job:
                raise UsageError(
                    f"{other.image} and {job.image} would share the output {product}; "
                    "put {dir} or {name} into the template"
                )


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _first_problem(error: ValidationError) -> str:
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")  # a misspelt field explains a missing one
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return did_you_mean(where, Jobs.model_fields)
    return wrong_value(first)
