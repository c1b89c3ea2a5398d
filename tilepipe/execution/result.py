"""This module defines the result of a run, which shows what lies on disk and reads pixels when they are asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tilepipe.execution.run_record import RunRecord
from tilepipe.planning.certificate import Certificate
from tilepipe.planning.plan import Plan
from tilepipe.products.formats import LOSSLESS, product_of
from tilepipe.products.labels import Labels, Layer
from tilepipe.products.numbers import Numbers
from tilepipe.table import Table

if TYPE_CHECKING:
    import xarray


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """The result of a run: products, labels, plan and certificate."""

    paths: tuple[Path, ...]
    """Paths of the products: labels first, then layers."""
    labels: Labels
    """The label map; its pixels are read when they are asked for."""
    layers: dict[str, Layer]
    """Uncertainty layers that were asked for, by name; their pixels are read when they are asked for."""
    plan: Plan
    """The plan that was carried out."""
    certificate: Certificate
    """The certificate: what is known about seams, in plain sentences in `certificate.sentences`."""
    record: RunRecord = field(repr=False)
    """The content of run.json."""
    probabilities: tuple[Layer, ...] = ()
    """Probability of each class, in the order of the classes, if a product of probabilities was asked for: uint8 pixels
    times `scale` are values from 0 to 1, 255 is nodata. Pixels are read when they are asked for."""

    def __repr__(self) -> str:
        height, width = self.labels.shape
        failed = f", {len(self.failed)} tiles failed" if self.failed else ""
        names = ", ".join(path.name for path in self.paths)
        return f"<Result {names}: {height} x {width} px, {self.certificate.mode}{failed}>"

    @property
    def failed(self) -> list[str]:
        """Tiles that could not be read or predicted, each with the reason. Their pixels are nodata."""
        return list(self.record["failed"])

    @property
    def numbers(self) -> Numbers | None:
        """Numbers of each class: pixels, share, area, objects; None if an older version has made the labels."""
        known = self.record.get("numbers")
        return Numbers.from_dict(known) if known else None

    def areas(self) -> Table:
        """Return one row for each class: `value`, `class`, `pixels`, `share` of the labelled pixels (0 to 1), `area_m2`
        or `area_mm2` if the size of a pixel is known, and `objects` (4-connected; None for the background).

        Areas on the earth are ground areas, whatever the projection.
        """
        if (numbers := self.numbers) is None:
            from tilepipe.products.tally import Tally  # only the labels of an older version are counted here

            numbers = Tally(self.labels.map).numbers()
        area = {f"area_{numbers.unit}": "area"} if numbers.unit else {}
        names = {"value": "value", "class": "name", "pixels": "pixels", "share": "share", **area, "objects": "objects"}
        return Table({column: getattr(one, name) for column, name in names.items()} for one in numbers.classes)

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the labels over the image, the numbers of each class, and the certificate."""
        from tilepipe.execution.report import notebook_of_run

        path = next((path for path in self.paths if product_of(path) in LOSSLESS), None)
        return notebook_of_run(self.record, self.labels.map, path)

    def to_xarray(self) -> xarray.DataArray:
        """Return the labels as an xarray.DataArray with coordinates and CRS."""
        return self.labels.to_xarray()
