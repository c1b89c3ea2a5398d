"""This module finds the images of a batch, and the place of each output; no two images share one."""

from __future__ import annotations

import glob
import os
import re
import unicodedata
from dataclasses import dataclass
from datetime import date, datetime
from fnmatch import fnmatch
from pathlib import Path

from tilepipe.errors import UsageError
from tilepipe.execution.batch.jobs_file import Jobs, output_folder, split
from tilepipe.execution.batch.manifest import images_of
from tilepipe.products.formats import files_of
from tilepipe.products.naming import output_paths
from tilepipe.sources.dicom_folder import one_image_each
from tilepipe.tiling.uncertainty import layer_names

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


def expand(jobs: Jobs, base: Path, products: frozenset[Path] = frozenset()) -> list[BatchItem]:
    """Return one `BatchItem` per image, sorted by image.

    `base` is the folder that relative paths start from; `products` are files that earlier runs wrote; globs do not take
    them for images. Raises `UsageError` if there is no image, if two images share an output, or if an image is an
    output.
    """
    found: dict[Path, BatchItem] = {}
    listed: set[Path] = set()
    for image in images_of(base / jobs.manifest, jobs.settings.get("allow", ())) if jobs.manifest else ():
        listed.add(image)
        found[image] = _job(jobs, base, image, (base / jobs.manifest).parent.resolve())
    for pattern in jobs.images:
        start, images = _matches(base, pattern)
        # A user who names a file means it, even if the file looks like a product of another image; a glob does not.
        listed |= set(images) if len(images) == 1 and images[0].name == Path(pattern).name else set()
        for image in images:
            found.setdefault(image, _job(jobs, base, image, start))
    taken = {product for job in found.values() for product in job.products if product != job.image} | products
    named = [found[image] for image in sorted(found) if image in listed or image not in taken]
    if not named:
        raise UsageError(f"no image matches {', '.join(jobs.images)} in {base}; check 'images:', paths start there")
    chosen = [job for job in named if _wanted(jobs, base, job.image)]
    if not chosen:
        raise UsageError(f"'exclude' and 'modified_after' leave out all of {len(named)} images; check both")
    _refuse_collisions(chosen)
    return chosen


def safe_name(name: str) -> str:
    """Return `name` as a file name that every system allows: in NFC form, with '_' for characters that some system
    forbids."""
    # Some systems write an accent in one character or in two, and both spellings must give one output.
    plain = unicodedata.normalize("NFC", name)
    plain = "".join("_" if c in '/\\:*?"<>|' or unicodedata.category(c) in ("Cc", "Cs") else c for c in plain)
    return f"_{plain}" if plain.strip(" .") == "" or _RESERVED.fullmatch(plain) else plain


def _wanted(jobs: Jobs, base: Path, image: Path) -> bool:
    """Return whether neither `exclude` nor `modified_after` leaves out an image."""
    names = (image.name, os.path.relpath(image, base))
    if any(fnmatch(name, pattern) for pattern in jobs.exclude for name in names):
        return False
    state = _stat(image) if jobs.modified_after else None
    # An image that cannot be found is kept, so that the batch says what is wrong with it.
    return state is None or datetime.fromtimestamp(state.st_mtime).date() >= (jobs.modified_after or date.min)


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
    output = (folder / split(jobs.output)[1].format(**names)).resolve()
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
