"""This module defines the plan: everything that is decided before a run. A plan can be printed, and kept as JSON."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from html import escape

from tilepipe.box import Box, Sides
from tilepipe.errors import TilepipeError
from tilepipe.inference.device import Compute
from tilepipe.planning.fit_row import FitRow
from tilepipe.planning.layout import Left
from tilepipe.planning.memory import Memory, format_bytes
from tilepipe.planning.receptive_field import Reach
from tilepipe.planning.workload import Workload
from tilepipe.text import JSON, json_of
from tilepipe.tiling.statistics_grid import Statistics
from tilepipe.tiling.tiling import Bands, Tiling
from tilepipe.tiling.uncertainty import PROBABILITIES

FORMAT = 3
"""Version of the plan and of the work directory."""


@dataclass(frozen=True, repr=False)
class Plan(Workload):
    """Everything that is decided before a run: grids, tiles, blocks, device and memory. Sizes are in pixels."""

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

    @property
    def seams(self) -> str:
        """Sentence about the seams that are expected."""
        if self.exact:
            return "none: labels equal whole-image inference"
        if self.statistics is not None and self.full_context:
            return "none: labels do not depend on the tiles; statistics come from a grid fixed to the image"
        if self.tiling.halo is None:
            return f"not certified: {self.reach.known}"
        if self.holds_halo:
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
