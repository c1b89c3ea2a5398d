"""This module defines the plan: everything that is decided before a run. A plan can be printed, and kept as JSON."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, fields, replace
from html import escape

import numpy as np

from tilepipe.box import Box, Sides
from tilepipe.errors import TilepipeError
from tilepipe.inference.device import Compute
from tilepipe.planning.fit_row import FitRow
from tilepipe.planning.layout import Layout, Left
from tilepipe.planning.memory import Memory, format_bytes
from tilepipe.planning.receptive_field import Reach
from tilepipe.text import JSON, json_of
from tilepipe.tiling.grid import Grid, Index
from tilepipe.tiling.statistics_grid import Statistics, nodes_of
from tilepipe.tiling.tiling import SMALL, Bands, Tiling
from tilepipe.tiling.uncertainty import PROBABILITIES, further_planes, probability_names

FORMAT = 3
"""Version of the plan and of the work directory."""


@dataclass(frozen=True, repr=False)
class Plan(Layout):
    """Everything that is decided before a run: grids, tiles, blocks, device and memory. Sizes are in pixels."""

    source: str
    """Name of the image."""
    model: str
    """Name of the model."""
    bands: int
    """Number of bands that are read."""
    dtype: str
    """Type of the image's pixels, such as 'uint8'."""
    compute: Compute
    """Device, precision, batch size and worker processes of the model."""
    classes: int
    """Number of classes."""
    label_dtype: str
    """Type of the labels: 'uint8' or 'uint16'."""
    nodata: int
    """Label of pixels that are not computed or hold no image data."""
    memory: Memory
    """Memory that the run does not exceed (bytes)."""
    reach: Reach
    """Reach of the model on each side (pixels), and how it became known."""
    layers: tuple[str, ...] = ()
    """Uncertainty layers that are kept beside the labels: margin, entropy, disagreement, mutual-information."""
    probabilities: bool = False
    """Whether the probability of each class is kept beside the labels."""
    statistics: Statistics | None = None
    """Source of the statistics of the model's global operations. None if it has no such operation,
    or if each tile uses its own statistics."""
    tta: str = "none"
    """Positions of each tile whose probabilities are averaged: 'none' for one, 'd4' for eight."""
    picked: tuple[int, ...] = ()
    """Numbers of the bands that are read, from 1. Empty if all bands of the file are read in their order."""
    valid_band: int = 0
    """Number of the band that says which pixels hold image data; 0 if the file itself says it."""
    why: str = ""
    """Reason for the size of the tiles, if the user gave none."""
    left: Left | None = None
    """Tiles and blocks that polygons or a tissue mask leave to compute; None if neither is given."""
    agreement: str = ""
    """Sentence about the runtime beside torch; '' if torch computes."""
    holes: bool = False
    """Whether pixels without image data may make the work less. Only reading the image shows how much less."""
    with_image: bool = field(default=False, compare=False)
    """Whether an OME-Zarr holds the image beside its labels, which takes room on the disk."""
    # The rows hold what the machine has free at the moment, so they do not make two plans differ.
    fit_table: tuple[FitRow, ...] = field(default=(), compare=False)
    """The fit table: how image, model and machine fit, one row per question."""

    @property
    def kept(self) -> tuple[str, ...]:
        """Names of all that is kept beside the labels: layers, and the probability of each class."""
        return (*self.layers, *(probability_names(self.classes) if self.probabilities else ()))

    @property
    def exact(self) -> bool:
        """Whether labels equal those of one pass over the whole image."""
        return self.full_context and (self.statistics is None or self.statistics.kind == "whole")

    @property
    def full_context(self) -> bool:
        """Whether every kept pixel has the model's measured reach around it: labels do not depend on the tiles."""
        # One tile is the whole image, so it lacks no context, whatever the reach is.
        one_tile = self.grid.y.count == self.grid.x.count == 1
        return one_tile or (self.reach.measured and self._holds_halo)

    @property
    def _holds_halo(self) -> bool:
        cut = self.tiling
        # A window that fades also gives weight to pixels near the edge of a tile, which lack context; only crop windows
        # drop them.
        return cut.window == "crop" and cut.halo is not None and cut.overlap >= 2 * cut.halo

    @property
    def tile_count(self) -> int:
        """Number of tiles that are predicted. It is the largest possible number if there may be `holes`."""
        if self.left is not None:
            return self.left.tiles
        rows, columns = self.tile_ranges
        return len(rows) * len(columns)

    @property
    def patches(self) -> Grid:
        """Grid of the patches that statistics are taken of."""
        assert self.statistics is not None
        return self.statistics.patches(self.predicted, self.tiling.stride)

    @property
    def nodes(self) -> Box:
        """Rows and columns of the patches whose statistics the region's tiles need."""
        grid, (rows, columns) = self.grid, self.tile_ranges
        # The tiles of the region are a rectangle of rows and columns, so the two corner tiles span the pixels of all of
        # them.
        first, last = grid.tile_box(Index(rows[0], columns[0])), grid.tile_box(Index(rows[-1], columns[-1]))
        return nodes_of(self.patches, Box(first.y0, first.x0, last.y1, last.x1))

    @property
    def work(self) -> float:
        """Largest computing cost, as a multiple of one pass over the region."""
        if self.tiling.columns and not self.left:
            return self.tile_work
        return self.tile_count * self.tile_pixels / self.predicted_region.area + self.statistics_work

    @property
    def tile_pixels(self) -> int:
        """Number of pixels that the model sees for one tile; in bands a pass goes on from tile to tile."""
        bands, (height, width) = self.tiling.columns, self.grid.tile_shape
        return width * (min(bands.rows, height) if bands else height)

    @property
    def statistics_work(self) -> float:
        """Part of `work` that takes statistics. If they are of the whole image, this is the largest possible part."""
        if self.statistics is None:
            return 0.0
        if self.statistics.kind == "whole":
            grid = self.grid
            # Statistics of the whole image need all of its tiles, also for a small region, and a pass for each
            # operation, which sees what the operations before it made.
            tiles = grid.y.count * grid.x.count * grid.y.tile * grid.x.tile
            return len(self.statistics.values) * tiles / self.predicted_region.area
        return self.nodes.area * self.patches.y.tile * self.patches.x.tile / self.predicted_region.area

    @property
    def baseline_work(self) -> float:
        """Value of `work` for tiles of this size that overlap by half, as blended tiles usually do."""
        cut = self.tiling
        # Half of a tile is rounded down, since an overlap must be a multiple of the stride.
        half = replace(cut, overlap=cut.tile // 2 // cut.stride * cut.stride, window="gaussian", bands=None)
        return replace(self, tiling=half).tile_work

    @property
    def whole(self) -> Plan:
        """Plan of the whole image with the same choices."""
        return replace(self, region=Box.of_shape(*self.shape), left=None)

    @property
    def is_small(self) -> bool:
        """Whether tiles reach so far beyond the region that `work` says more about its size than about the tiles."""
        return self.work > SMALL * self.whole.work

    @property
    def cost(self) -> str:
        """Sentence about the work. For a small region it also names the work of the whole image, for which tiles were
        chosen."""
        if self.is_small:
            return (
                f"{self.whole.work:.2f} x one pass over the whole image; {self.work:.3g} x over this small region, "
                "beyond which its tiles reach"
            )
        return self.costly or f"{self.work:.2f} x one pass over the region"

    @property
    def costly(self) -> str:
        """Sentence that is given if `work` is more than `baseline_work`; else ''."""
        if self.is_small:
            return ""
        work = self.tile_work + self.statistics_work  # The work is that of the whole region, as `baseline_work` is.
        if work <= self.baseline_work:
            return ""
        return (
            f"{work:.2f} x one pass over the region is more than the {self.baseline_work:.2f} of tiles of "
            f"{self.tiling.tile} px that overlap by half; larger tiles may cost less"
        )

    def disk(self) -> int:
        """Return the largest number of bytes that the work directory and one product take, without compression."""
        labels, sums = self._disk()
        return labels + sums

    def least_disk(self, compression: int) -> int:
        """Return the bytes that are taken if labels are compressed to one part in `compression`."""
        labels, sums = self._disk()
        return labels // compression + sums

    def _disk(self) -> tuple[int, int]:
        """Return the bytes of labels, layers and image, and those of sums and statistics, which hardly compress."""
        size = 1 if self.label_dtype == "uint8" else 2
        y, x, strips = self.grid.y, self.grid.x, 0
        if self.grid.blended:  # Strips are kept for one row of blocks and for the blocks in work.
            one = y.zone * x.tile + y.tile * x.zone + y.tile * x.tile
            alive = self.predicted_region.width // x.zone + 3 + self.compute.in_flight
            # A strip holds int64 sums of each class: the blend adds integers of 48 bits (see
            # docs/decisions/exact-integers.md).
            strips = 8 * (self.classes + further_planes(self.layers)) * one * alive
        size += len(self.kept)
        statistics = self.compute.itemsize * self.nodes.area * sum(self.statistics.values) if self.statistics else 0
        # An image lies there with all its levels, each a quarter of the one before.
        image = self.bands * np.dtype(self.dtype).itemsize * 4 / 3 * self.output_region.area if self.with_image else 0
        pixels = self.predicted_region.area * size + 3 * self.output_region.area * size
        return pixels + math.ceil(image), strips + statistics

    def key(self, image: JSON, weights: str) -> str:
        """Return the run key: a hash of the image's identity, the weights' sha256 and what decides a label or layer.

        Workers, memory, names and the reach are left out, because they do not change a label; the halo is included. The
        positions that are averaged are left out too, because the identity of the model includes them.
        """
        # Everything counts that is not named here, so a new field changes the key until somebody decides that it does
        # not.
        settings = self.to_dict()
        for name in (
            "source",
            "model",
            "memory",
            "reach",
            "why",
            "left",
            "holes",
            "with_image",
            "fit_table",
            "tta",
            "agreement",
        ):
            del settings[name]
        del settings["compute"]["workers"]
        # These fields came later. A run without them has the key that it had before.
        if not self.probabilities:
            del settings["probabilities"]
        if self.tiling.bands is None:
            del settings["tiling"]["bands"]
        if self.compute.runtime == "torch":
            del settings["compute"]["runtime"]
        # The order of fields in a class must not change the key, so the names are sorted.
        text = json.dumps({"format": FORMAT, "image": image, "weights": weights, **settings}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_dict(self) -> JSON:
        """Return the plan as JSON types, names first, as in plan.json."""
        names = dict.fromkeys(("source", "model", "bands", "dtype"))
        return {**names, **asdict(self), "region": self.region.to_list()}

    def to_json(self) -> str:
        """Return the text of plan.json."""
        return json.dumps(self.to_dict(), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Return the plan that the text of plan.json holds. Raises `TilepipeError` if the text holds no plan."""
        try:
            values = json_of(text)
            values["region"] = Box(*values["region"])
            if bands := values["tiling"].get("bands"):
                values["tiling"]["bands"] = Bands(**bands)
            for name, kind in (("memory", Memory), ("tiling", Tiling), ("compute", Compute)):
                values[name] = kind(**values[name])
            # JSON knows no classes and no tuples; only with them does a plan that was read equal the plan that was
            # written.
            sides = values["reach"].pop("sides")
            values["reach"] = Reach(sides and Sides(**sides), **values["reach"])
            if values["statistics"]:
                values["statistics"] = Statistics(
                    **values["statistics"] | {"values": tuple(values["statistics"]["values"])}
                )
            if values.get("left"):
                values["left"] = Left(**values["left"])
            values["fit_table"] = [FitRow(**row) for row in values.get("fit_table", ())]
            for name in ("shape", "predicted", "output", "layers", "fit_table", "picked"):
                values[name] = tuple(values.get(name, ()))
            # plan.json also holds the format and the request key, which are no part of the plan.
            return cls(**{each.name: values[each.name] for each in fields(cls) if each.name in values})
        except (ValueError, KeyError, TypeError) as error:
            raise TilepipeError(f"not a plan of this version: {error}") from None

    @property
    def seams(self) -> str:
        """Sentence about the seams that are expected."""
        if self.exact:
            return "none: labels equal whole-image inference"
        if self.statistics is not None and self.full_context:
            return "none: labels do not depend on the tiles; statistics come from a grid fixed to the image"
        if self.tiling.halo is None:
            return f"not certified: {self.reach.known}"
        if self._holds_halo:
            return f"not certified: {self.tiling.halo} px of context, {self.reach.known}"
        if self.reach.tolerance:
            return (
                f"at most about {self.reach.tolerance:g} in probability, measured on patches of the image; an overlap "
                f"of {2 * self.tiling.halo} would be exact and costs too much for tiles of {self.tiling.tile}"
            )
        return f"not certified: an overlap of {2 * self.tiling.halo} with crop windows would be exact"

    @property
    def tile_text(self) -> str:
        """Size of the tiles, and how they are computed if that is in bands."""
        (height, width), bands = self.grid.tile_shape, self.tiling.bands
        if bands is None:
            return f"{height} x {width} px"
        tall = min(bands.rows, height) if self.tiling.columns else height
        return f"{tall} x {width} px, in bands of {bands.height} rows"

    def __repr__(self) -> str:
        tiles = f"{self.tile_count} tiles of {self.tile_text}"
        return f"<Plan {self.model} on {self.source}: {tiles}, memory at most {format_bytes(self.memory.total)}>"

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"

    def __str__(self) -> str:
        grid, box, cut, how = self.grid, self.region, self.tiling, self.compute
        region = f"rows {box.y0} to {box.y1}, columns {box.x0} to {box.x1}"
        size = "{} x {} px".format
        tiles = f"at most {self.tile_count}" if self.holes else f"{self.tile_count}"
        blocks = f"{len(list(self.blocks()))}" + (f", {self.left.blocks} with tiles," if self.left else "")
        rows = {
            "image": f"{self.source}: {size(*self.shape)}, {self.bands} bands {self.dtype}",
            "region": "all" if box == Box.of_shape(*self.shape) else region,
            "model": f"{self.model}: {self.classes} classes, on a grid of {size(*self.predicted)}",
            **({"average": "of the 8 turned and mirrored positions of each tile"} if self.tta == "d4" else {}),
            "tiles": f"{tiles} of {self.tile_text}, overlap {cut.overlap}, {cut.window} windows",
            "seams": self.seams,
            **self._about_statistics(),
            "blocks": f"{blocks} of {size(grid.y.zone, grid.x.zone)}",
            **({"size": self.why} if self.why else {}),
            "work": self.cost,
            "device": f"{how.device}, {how.precision}, {how.runtime}, batches of {how.batch}, "
            f"{how.workers or 'no'} worker processes",
            **({"layers": ", ".join(self._beside)} if self._beside else {}),
            "memory": f"at most {format_bytes(self.memory.total)}",
            "disk": f"at most {format_bytes(self.disk())}",
        }
        lines = [f"{name:8}{text}" for name, text in rows.items()]
        return "\n".join([*lines, *(f"{'fit':8}{row.name:12}{row.state:9}{row.text}" for row in self.fit_table)])

    @property
    def _beside(self) -> tuple[str, ...]:
        return (*self.layers, PROBABILITIES) if self.probabilities else self.layers

    def _about_statistics(self) -> dict[str, str]:
        """Return rows of the table: global operations, the source of their statistics, and the cost of these."""
        if self.statistics is None:
            return {}
        passes, patches = len(self.statistics.values), self.patches
        how = f"a field of {patches.y.count} x {patches.x.count} patches of {patches.y.tile} x {patches.x.tile} px"
        if self.statistics.kind == "whole":
            times = "pass" if passes == 1 else "passes, each up to its layer"
            how = f"statistics of the whole image, in {passes} {times}"
        return {"global": self.reach.frozen, "fixed": f"by {how}; {self.statistics_work:.2f} of the work"}
