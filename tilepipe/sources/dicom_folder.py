"""Finds the slides among DICOM files: all files of one series in a folder are one slide, as scanners write them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tilepipe.errors import InputError
from tilepipe.paths import refuse_special
from tilepipe.sources.base import Resolution
from tilepipe.sources.checks import pick_scene
from tilepipe.sources.companions import dicom_series
from tilepipe.sources.mosaic_files import holds_parts
from tilepipe.sources.slide import SlideSource

ENDINGS = (".dcm", ".dicom", "")
"""Endings of DICOM files, in lower case; archives and discs name them without one."""


def series_of(files: Iterable[Path]) -> dict[bytes, list[Path]]:
    """Return the files of each series of whole-slide images among `files`, sorted by name; other files are left out."""
    found: dict[bytes, list[Path]] = {}
    for file in sorted(files):
        if file.suffix.lower() in ENDINGS and file.is_file():
            refuse_special(file)
            if series := dicom_series(file):
                found.setdefault(series, []).append(file)
    return found


def holds_dicom(folder: Path) -> bool:
    """Return whether a folder holds a slide in DICOM."""
    return any(dicom_series(file) for file in folder.iterdir() if file.suffix.lower() in ENDINGS and file.is_file())


def open_dicom_folder(
    path: str | Path,
    *,
    scene: int | None = None,
    mpp: float | tuple[float, float] | Resolution | None = None,
) -> SlideSource:
    """Open the DICOM files of a folder as one slide.

    If there are several series, the largest is read, and `notes` says so; `scene` picks another one, from 0, in the
    order of their file names. `mpp` overrides micrometres per pixel. Raises `InputError` if OpenSlide cannot open it.
    """
    folder = Path(path)
    slides = [SlideSource(files[0], mpp=mpp) for files in series_of(folder.iterdir()).values()]
    if not slides:
        raise InputError(f"{path} holds no slide in DICOM")
    titles = [(Path(slide.name).name, *slide.shape[1:]) for slide in slides]
    number, notes = pick_scene(str(path), scene, titles)
    slide = slides[number]
    slide.name, slide.place, slide.notes = str(path), folder, notes
    slide.selected = {"scene": number} if len(slides) > 1 else {}
    return slide


def one_image_each(images: Sequence[Path]) -> list[Path]:
    """Return the images that files found by a pattern are: one for all DICOM files of a slide, and each other file.

    A slide is its folder, or the first file of its series if the folder holds other images too.
    """
    kept: list[Path] = []
    folders: dict[Path, dict[bytes, list[Path]]] = {}
    for image in images:
        if image.suffix.lower() not in ENDINGS or not image.is_file() or not (series := dicom_series(image)):
            kept.append(image)
            continue
        known = folders.setdefault(image.parent, {})
        if not known:
            known |= series_of(image.parent.iterdir())
        # A folder that also holds GeoTIFFs would be opened as a mosaic of these.
        alone = len(known) == 1 and not holds_parts(image.parent)
        slide = image.parent if alone else known[series][0]
        if slide not in kept:
            kept.append(slide)
    return kept
