"""This module defines the options for polygons and objects, which `segment` and `export` share."""

from __future__ import annotations

from tilepipe.cli.help import expert
from tilepipe.cli.values import word_or

POLYGONS = "Polygons and objects"
"""Group of these options in the long help."""

VECTORS = (
    expert(POLYGONS, "--crs", metavar="CRS", show_default="the image's", help="CRS of polygons in a table."),
    expert(
        POLYGONS,
        "--min-area",
        type=float,
        metavar="AREA",
        help="Leave out smaller polygons and objects: square metres, of slides square micrometres, else pixels.",
    ),
    expert(
        POLYGONS,
        "--fill-holes",
        type=word_or(float, "all"),
        metavar="AREA|all",
        help="Close holes up to this area, or each, unless they hold another polygon or nodata.",
    ),
    expert(
        POLYGONS,
        "--simplify",
        type=float,
        metavar="LENGTH",
        help="Simplify borders; they move at most this far. Neighbours keep their common border.",
    ),
    # A flag that is not given is None and not False, so that `given` leaves it out.
    expert(
        POLYGONS, "--smooth", is_flag=True, default=None, help="Round corners. Neighbours keep their common border."
    ),
    expert(
        POLYGONS,
        "--orthogonalize",
        is_flag=True,
        default=None,
        help="Give polygons right angles, as buildings have. Neighbours may overlap or part then.",
    ),
    expert(POLYGONS, "--split", is_flag=True, default=None, help="Split objects that touch, at their necks."),
    expert(
        POLYGONS,
        "--neck",
        type=float,
        metavar="NUMBER",
        show_default="0.8",
        help="How narrow a neck is at which objects are split: its width over that of the thinner part.",
    ),
    expert(
        POLYGONS,
        "--annotations",
        is_flag=True,
        default=None,
        help="Write objects for QuPath as annotations, which can be edited, and not as detections.",
    ),
    expert(
        POLYGONS,
        "--with-image",
        is_flag=True,
        default=None,
        help="Write the image beside its labels into the OME-Zarr, for viewers.",
    ),
)
