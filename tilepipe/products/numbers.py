"""Numbers of a label map say how many pixels, how much ground or tissue and how many objects each class has."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from tilepipe.errors import StorageError
from tilepipe.text import JSON, setting

M2_PER_HA, M2_PER_KM2 = 1e4, 1e6
SHOWN = 12
"""Largest number of classes that are printed."""


@dataclass(frozen=True)
class ClassNumbers:
    """Numbers of one class."""

    value: int
    """Label value."""
    name: str
    """Name of the class."""
    pixels: int
    """Number of pixels of the label map."""
    share: float
    """Part of all pixels with a label, from 0 to 1; 0 if no pixel has a label."""
    area: float | None
    """Area in `Numbers.unit`; None if the size of a pixel is not known."""
    objects: int | None
    """Number of 4-connected regions; None for the background."""
    density: float | None
    """Objects per km2 of labelled ground, or per mm2 of tissue; None for the background and if no area is known."""
    sizes: tuple[int, ...] = ()
    """Number of objects by size: entry k counts objects of 2**k to 2**(k + 1) - 1 pixels."""


@dataclass(frozen=True)
class Numbers:
    """Numbers of a label map, class by class."""

    classes: tuple[ClassNumbers, ...]
    """Numbers of each class by label value, from 0."""
    nodata: int
    """Number of pixels without a label."""
    unit: Literal["m2", "mm2", ""]
    """Unit of the areas: square metres on the ground for rasters, square millimetres for slides, '' if unknown."""
    tissue: float | None = None
    """Area of tissue in square millimetres, if a tissue mask was used."""

    def to_dict(self) -> JSON:
        """Return the numbers as JSON types, as they stand in run.json."""
        return {**asdict(self), "classes": [asdict(one) for one in self.classes]}

    @classmethod
    def from_dict(cls, fields: JSON) -> Numbers:
        """Return the numbers that `to_dict` has described. Raises `StorageError` for those of another version."""
        try:
            rows = (
                {**one, "sizes": tuple(one.get("sizes", ()))} for one in fields["classes"]
            )  # older records have none
            return cls(**{**fields, "classes": tuple(ClassNumbers(**row) for row in rows)})
        except (KeyError, TypeError, AttributeError):
            raise StorageError(
                f"numbers were written by another version of tilepipe; give {setting(overwrite=True)} to make the "
                "labels again"
            ) from None

    def table(self) -> list[dict[str, object]]:
        """Return one row for each class, by column name, as the rows stand in the CSV file."""
        return [self._row(one) for one in self.classes]

    def _row(self, one: ClassNumbers) -> dict[str, object]:
        row: dict[str, object] = {
            "value": one.value, "class": one.name, "pixels": one.pixels, "share": f"{one.share:.6f}",
        }  # fmt: skip
        if self.unit == "m2":
            row["area_m2"], row["area_ha"] = _decimals(one.area, 2), _decimals(one.area, 6, M2_PER_HA)
        if self.unit == "mm2":
            row["area_mm2"] = _decimals(one.area, 6)
        row["objects"] = one.objects
        if self.unit:
            row[f"objects_per_{'km2' if self.unit == 'm2' else 'mm2'}"] = _decimals(one.density, 4)
        if self.tissue is not None:
            row["tissue_mm2"] = _decimals(self.tissue, 6)
        return row

    def lines(self) -> list[str]:
        """Return one short line for each class that has pixels: share, area, objects."""
        found = [one for one in self.classes if one.pixels]
        most = sorted(found, key=lambda one: -one.pixels)[:SHOWN]
        cells = [
            (one.name, f"{100 * one.share:.1f} %", self.area_text(one.area), _count(one.objects))
            for one in found
            if one in most
        ]
        wide = [max(len(row[k]) for row in cells) for k in range(4)] if cells else []
        lines = [f"{a:<{wide[0]}}  {b:>{wide[1]}}  {c:>{wide[2]}}  {d:>{wide[3]}}".rstrip() for a, b, c, d in cells]
        rest = len(found) - len(most)
        return [*lines, *([f"and {rest} more classes"] if rest else [])]

    def area_text(self, area: float | None) -> str:
        """Return an area in words, in the unit that suits its size; '' if it is not known."""
        if area is None:
            return ""
        if self.unit == "mm2":
            return f"{area:,.4g} mm2" if area < 1e4 else f"{area:,.0f} mm2"
        for size, name in ((M2_PER_KM2 * 100, "km2"), (M2_PER_HA, "ha")):
            if area >= size:
                return f"{area / (M2_PER_KM2 if name == 'km2' else size):,.1f} {name}"
        return f"{area:,.0f} m2"


def _count(objects: int | None) -> str:
    return "" if objects is None else f"{objects:,} object{'' if objects == 1 else 's'}"


def _decimals(value: float | None, places: int, divisor: float = 1.0) -> str | None:
    return None if value is None else f"{value / divisor:.{places}f}"
