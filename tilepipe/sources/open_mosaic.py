"""Opens the sources that are made of several files: mosaics, bands that lie in several files, and virtual rasters."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tilepipe.box import Box
from tilepipe.errors import InputError
from tilepipe.sources.bands import Band
from tilepipe.sources.base import Resolution
from tilepipe.sources.checks import given_resolution
from tilepipe.sources.geotiff import GeoTiffSource
from tilepipe.sources.mosaic import Composition, Mosaic, mosaic_of
from tilepipe.sources.mosaic_files import LIST, Files, check_links, files_of_mosaic
from tilepipe.sources.mosaic_grid import Laid, Part
from tilepipe.sources.stac_index import JSON_ENDINGS, PARQUET, files_of_stac, files_of_table, is_stac
from tilepipe.sources.stacked_bands import Pick, Stack, Stacked, by_band
from tilepipe.sources.tiff_kinds import Kinds, Opened
from tilepipe.sources.vrt import TYPES, Vrt, VrtBand, is_vrt, named_files, read_vrt
from tilepipe.text import missing, setting

Size = Resolution | float | None
"""A pixel size that the user states: one number of metres, or one for each axis."""


def opener_of(path: Path, start: bytes) -> Callable[..., Mosaic | Stacked] | None:
    """Return what opens a file that begins with `start` and names other files; None if it names none."""
    if is_vrt(start):
        return open_vrt
    if start.startswith(PARQUET) or is_stac(path):
        return open_index
    return open_mosaic if path.suffix.lower() == LIST and start else None


def open_mosaic(
    what: str | Path | Sequence[str | Path],
    *,
    bands: Sequence[int] | None = None,
    resolution: Size = None,
    allow: Sequence[str | Path] = (),
) -> Mosaic | Stacked:
    """Open the files of a folder, a pattern, a list file or a Python list as one source.

    If each file has one band and names it, as in B02.tif, the bands are stacked. `bands` picks bands by number from 1.
    `resolution` overrides the pixel size [metres]. `allow` names folders in which a list may name files too. Raises
    `InputError` if the files are not parts of one image.
    """
    allow = (allow,) if isinstance(allow, str | Path) else allow
    return _opened(files_of_mosaic(what, allow), Options(bands, given_resolution(resolution, "m"), allow))


def _opened(files: Files, options: Options) -> Mosaic | Stacked:
    kinds, resolution = Kinds(), options.resolution
    opened = list(kinds.open(files.paths))
    groups: dict[Band, list[Opened]] | None = None
    if all(len(kind.file_bands) == 1 for kind in kinds.sources):
        groups = by_band(opened, files.named)
    elif files.named:
        wide = next(kind for kind in kinds.sources if len(kind.file_bands) > 1)
        raise InputError(f"{wide.name} has {len(wide.file_bands)} bands; assets that are stacked have one band each")
    source: Mosaic | Stacked
    if groups is None:
        source = Mosaic(_parted(mosaic_of(files.name, files, opened, kinds.sources)), resolution)
    else:
        source = _stacked(files, groups, kinds.sources, resolution)
    source.allowed = tuple(map(str, options.allow))
    return source if options.bands is None else source.picking(options.bands)


def _parted(made: Composition) -> Composition:
    """Return a composition. Raises `InputError` if several files cover the same ground, as dates and bands do."""
    parts = made.laid.parts
    if len(parts) > 1 and all(part.box == parts[0].box for part in parts):
        first, last = (os.path.basename(parts[k].known.path) for k in (0, -1))
        raise InputError(
            f"{made.name}: all {len(parts)} files, from {first} to {last}, cover the same ground, so the last would "
            "hide the others. Bands of one image need names such as in_B02.tif or in_red.tif; images of several days "
            "are a batch: tilepipe batch run JOBS.yaml"
        )
    return made


def _stacked(
    files: Files, groups: dict[Band, list[Opened]], kinds: Sequence[GeoTiffSource], resolution: Resolution | None
) -> Stacked:
    sources = tuple(
        Mosaic(mosaic_of(f"{files.name} ({band.name})", replace(files, notes=()), opened, kinds))
        for band, opened in groups.items()
    )
    bands = tuple(
        Band(band.name, band.colour or source.file_bands[0].colour)
        for band, source in zip(groups, sources, strict=True)
    )
    picks = tuple(Pick(k, 1) for k in range(len(sources)))
    return Stacked(Stack(files.name, files.place, sources, picks, bands, resolution, by_number=True))


def open_index(
    path: str | Path,
    *,
    bands: Sequence[int] | None = None,
    resolution: Size = None,
    allow: Sequence[str | Path] = (),
) -> Mosaic | Stacked:
    """Open the GeoTIFFs that a STAC item collection or a table in GeoParquet names as one source.

    The options are those of `open_mosaic`. Raises `InputError` and `UsageError`.
    """
    allow = (allow,) if isinstance(allow, str | Path) else allow
    find = files_of_stac if Path(path).suffix.lower() in JSON_ENDINGS else files_of_table
    return _opened(find(Path(path), allow), Options(bands, given_resolution(resolution, "m"), allow))


def open_vrt(
    path: str | Path,
    *,
    bands: Sequence[int] | None = None,
    resolution: Size = None,
    allow: Sequence[str | Path] = (),
) -> Mosaic | Stacked:
    """Open a virtual raster that places GeoTIFFs side by side. GDAL does not open the VRT itself.

    The files must lie in the folder of the VRT or below, or in a folder of `allow`. Raises `InputError` if the VRT does
    more than place whole pixels, or names a file elsewhere.
    """
    allow = (allow,) if isinstance(allow, str | Path) else allow
    name, path, stated = str(path), Path(path), given_resolution(resolution, "m")
    vrt = read_vrt(path)
    named = named_files(vrt)
    for file in named:
        if not os.path.lexists(file):
            raise InputError(f"{name} names {missing(file)}")
    check_links(path, named, allow)
    kinds = Kinds(placed=False)
    files = _VrtFiles(path, vrt, dict(zip(named, kinds.open(named), strict=True)), kinds.sources)
    sources: list[Mosaic] = []
    picks: dict[int, Pick] = {}
    for group in vrt.groups():
        picks |= {id(band): Pick(len(sources), number) for number, band in enumerate(group, 1)}
        sources.append(Mosaic(files.composition(group), stated))
    source: Mosaic | Stacked = sources[0]
    if len(sources) > 1:
        places, named_bands = tuple(picks[id(band)] for band in vrt.bands), tuple(map(files.named, vrt.bands))
        source = Stacked(Stack(name, path, tuple(sources), places, named_bands, stated))
    source.allowed = tuple(map(str, allow))
    return source if bands is None else source.picking(bands)


@dataclass(frozen=True)
class Options:
    """How a source of several files is opened."""

    bands: Sequence[int] | None
    """Numbers of the bands, from 1; None for all."""
    resolution: Resolution | None
    """Pixel size that the user states."""
    allow: Sequence[str | Path]
    """Folders in which a list may name files, besides its own."""


@dataclass(frozen=True)
class _VrtFiles:
    """A VRT and its files, opened."""

    path: Path
    vrt: Vrt
    opened: dict[str, Opened]
    kinds: Sequence[GeoTiffSource]

    def composition(self, group: Sequence[VrtBand]) -> Composition:
        """Return the composition of bands that draw the same pieces. Raises `InputError` if a file does not fit."""
        drawn = group[0].drawn
        if not drawn:
            raise InputError(f"{self.path} draws no file into its bands")
        used = list(dict.fromkeys(self.opened[piece.path].kind for piece in drawn))
        parts = tuple(
            Part(piece.box, used.index(self.opened[piece.path].kind), self.opened[piece.path].known, piece.y, piece.x)
            for piece in drawn
        )
        for part in parts:
            self._check(part, self.kinds[used[part.kind]], group)
        where = self.vrt.georeference
        kinds = tuple(self._with_nodata(self.kinds[kind], group) for kind in used)
        numbers, bands = tuple(band.number for band in group), tuple(map(self.named, group))
        laid = Laid(parts, self.vrt.shape, where.transform if where else None)
        return Composition(str(self.path), self.path, laid, kinds, where, bands, numbers, "the VRT")

    def named(self, band: VrtBand) -> Band:
        """Return the name and the colour of a band, those of the first file if the VRT says none."""
        known = self.kinds[self.opened[band.drawn[0].path].kind].file_bands if band.drawn else ()
        own = known[band.number - 1] if band.number <= len(known) else Band()
        return Band(band.named.name or own.name, band.named.colour or own.colour)

    def _check(self, part: Part, kind: GeoTiffSource, group: Sequence[VrtBand]) -> None:
        file, (_, height, width) = part.known.path, kind.shape
        if not Box.of_shape(height, width).contains(part.inside(part.box)):
            raise InputError(f"{self.path} draws pixels of {file} that are not there; it has {height} x {width} pixels")
        for band in group:
            if band.number > len(kind.file_bands):
                count = len(kind.file_bands)
                raise InputError(f"{self.path} draws band {band.number} of {file}, which has {count} bands")
            if TYPES.get(band.dtype) != kind.dtype.name:
                raise InputError(
                    f"{self.path} has pixels of type {band.dtype} and {file} pixels of type {kind.dtype.name}, and "
                    "values are not converted; build the VRT again: gdalbuildvrt out.vrt tiles/*.tif"
                )

    def _with_nodata(self, kind: GeoTiffSource, group: Sequence[VrtBand]) -> GeoTiffSource:
        """Return a kind with the nodata value of the VRT. Raises `InputError` if the file states another one."""
        values = list(dict.fromkeys(repr(band.nodata) for band in group if band.nodata is not None))
        if not values:
            return kind
        stated = [None if value is None else repr(float(value)) for value in kind.nodatas]
        if set(stated) == set(values):
            return kind
        if len(values) > 1 and set(stated) == {None} and kind.complete:
            raise InputError(
                f"{self.path} takes {', '.join(values)} for no data, another value in each band, and one value is "
                f"taken from a VRT; write it out: gdal_translate -of HFA {self.path} out.img, and give out.img with "
                f"{setting(driver='HFA')}"
            )
        if len(values) > 1 or set(stated) != {None} or not kind.complete:
            raise InputError(
                f"{self.path} takes {', '.join(values)} for no data and {kind.name} states {stated[0] or 'a mask'}; "
                "build the VRT with the values of its files: gdalbuildvrt out.vrt tiles/*.tif"
            )
        return kind.with_nodata(float(values[0]))
