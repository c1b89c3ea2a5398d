"""Verify: a finished run checked against its certificate, or any label map against its tile grid.

finished_run.py finds the run of a path, its image and its model. recompute.py computes parts of it again: as tiles,
on a moved grid, and by one centred pass. seam_patches.py compares patches on seams and block borders. stored.py
compares what is on disk with the ledger and with labels computed again. one_pass.py compares all labels with one pass
over the whole image. comb.py tests any label map for lines.
verification.py holds the figures and says what they mean, and picture.py draws where they were taken.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from tilepipe.errors import InputError, StorageError, UsageError, public
from tilepipe.evaluation.metrics.seams import Flips, SeamExcess
from tilepipe.evaluation.verify.comb import comb_test, lines_of, open_lines
from tilepipe.evaluation.verify.finished_run import Run, claim, find_run, provider_of_run, reopen
from tilepipe.evaluation.verify.one_pass import one_pass
from tilepipe.evaluation.verify.recompute import Passes
from tilepipe.evaluation.verify.seam_patches import Patch, check_patch, noise_of, places, shifted
from tilepipe.evaluation.verify.stored import Keeper, check_products, check_stored
from tilepipe.evaluation.verify.verification import LIMIT, Verification
from tilepipe.events import Event, Listener, silent
from tilepipe.execution.job import Job
from tilepipe.execution.model_watch import TILES, suspects_of
from tilepipe.paths import refuse_inputs
from tilepipe.planning.certificate import Certificate
from tilepipe.planning.certify import reproducibility_of, versions_of, write_certificate
from tilepipe.text import missing

if TYPE_CHECKING:
    from tilepipe.execution.result import Result
    from tilepipe.models.unread import AnyModel
    from tilepipe.planning.planner import Image

__all__ = ["Options", "Verification", "verify"]

PATCHES = 8
"""Number of patches that are compared with a centred pass. A quarter as many squares are computed on a moved grid."""


class Options(TypedDict, total=False):
    """Options of `verify`. They have the names of the command line's options."""

    windows: int
    """Number of patches to compare; 8 by default, and 0 checks only what is on disk."""
    seed: int
    """Seed of the random places; 0 by default."""
    mask: str | Path
    """Path of the GeoJSON file of the run's polygons, if the run had one."""
    device: str
    """Device that computes; the run's own by default."""
    trust_model: str
    """Hash of the model file that may run code, as in `segment`."""
    tile: int
    """Side of a tile in pixels, for a label map that no run is known of."""
    step: int
    """Distance between the origins of its tiles in pixels; the side of a tile by default."""
    stride: int
    """Total stride of its model in pixels, if it is known."""
    picture: str | Path
    """Path of a PNG to write. It shows the places of the patches and their differences."""
    whole: bool
    """Whether all labels are compared with one pass over the whole image, which is computed in bands of rows."""


@public
def verify(
    run: str | Path | Result,
    image: Image | None = None,
    model: AnyModel | None = None,
    *,
    listener: Listener = silent,
    **options: Unpack[Options],
) -> Verification:
    """Check a finished run against its certificate: seams, the influence of the tile grid, and what is on disk.

    What was measured is added to the run's `certificate.json`. Memory holds a few tiles and one block; with `whole` it
    holds a band of rows of the whole image too.

    Args:
        run: What `segment` returned, the path of one of its products, or its work directory. If `tile` is given, any
            label map (COG, OME-Zarr, GeoTIFF, PNG of one band) is tested for lines where its tiles met, without image
            and model.
        image: The image, if it was given as an array or has moved.
        model: The model, if it was given from Python or has moved; a list if the run had several.
        listener: Is called with each `Event`: what is checked now.
        **options: See `Options`.

    Returns:
        The figures. `.holds` says whether everything that was claimed is so, and `.problems` says what is not.

    Raises:
        InputError: There is no run or label map at the path, or the image is not that of the run.
        ModelError: The model is not that of the run.
        UsageError: An option is not known or does not fit.

    Example:
        >>> import tilepipe as tp
        >>> result = tp.segment("pipelines/sample/Amazon_24_20.tif", "forest", "corner.tif", window=(0, 0, 200, 100))
        >>> found = tp.verify(result, windows=1)
        >>> found.holds, found.problems
        (True, ())
    """
    unknown = sorted(set(options) - set(Options.__annotations__))
    if unknown:
        raise UsageError(f"{unknown[0]!r} is not known; use {', '.join(sorted(Options.__annotations__))}")
    path = Path(run) if isinstance(run, str | Path) else run.paths[0]
    # Who gives a tile size asks about the map alone, also if a run of it is known.
    known = None if "tile" in options else find_run(path)
    if known is None:
        return _lines_alone(path, options)
    if options.get("picture"):
        _check_picture(Path(options["picture"]))
        beside = (known.directory.parent.with_name(name) for name in known.record["products"])
        images = [name for name in (image, known.record["source"]) if isinstance(name, str | Path)]
        refuse_inputs([options["picture"]], [path, *images, *beside])
    job = reopen(known, image, model, dict(options))
    found = _measure(known, job, options, listener)
    with suppress(StorageError):  # a run that may only be read
        write_certificate(_as_found(found), known.directory)
    if options.get("picture"):
        from tilepipe.evaluation.verify.picture import draw

        draw(found, job, Path(options["picture"]))
    return found


def _check_picture(picture: Path) -> None:
    if picture.suffix.lower() != ".png":
        raise UsageError(f"{picture} is no name of a PNG, which the picture is; give {picture.with_suffix('.png')}")
    if not picture.parent.is_dir():
        raise UsageError(f"folder {picture.parent} does not exist; make it first")


def _lines_alone(path: Path, options: Options) -> Verification:
    if options.get("picture") and "tile" in options:
        raise UsageError("a picture shows a run that is computed again; leave out `picture`, or `tile`")
    if "tile" not in options:
        if not path.exists():
            raise InputError(missing(path))
        raise UsageError(
            f"no run of tilepipe is known of {path}: there is no record of one beside it, as after tilepipe clean or a "
            "run without a record; give `tile` and `step` to test its lines alone"
        )
    tile = options["tile"]
    found = comb_test(open_lines(path), tile, options.get("step", tile), options.get("stride"))
    return Verification(str(path), seams=found)


def _measure(run: Run, job: Job, options: Options, listener: Listener) -> Verification:
    count, seed = options.get("windows", PATCHES), options.get("seed", 0)
    claimed = claim(run, job.model)
    listener(Event("verify", message="compares what is on disk with the ledger"))
    found = Verification(
        str(run.directory), claimed, changed=check_products(run), stored=check_stored(run), seams=_lines(run)
    )
    if count < 1 and not options.get("whole"):
        return found
    listener(Event("verify", message="measures the arithmetic of the device"))
    # A run may leave this out because it takes time; here the user has asked for it.
    level = reproducibility_of(job.plan, job.model, measure=True)
    claimed = replace(claimed, device=job.plan.compute.device, level=level)
    passes = Passes(
        job,
        provider_of_run(run),
        lenient=bool(run.record["failed"]),
        ended=list(suspects_of(run.directory, TILES).given_up),
    )
    try:
        patches, again = _patches(run, passes, count, seed, listener)
        limit = _limit(claimed, passes, patches)
        found = replace(found, windows=patches, limit=limit, again=again if count else None)
        if count:
            listener(Event("verify", message="computes squares on a grid moved by half a core"))
            found = replace(found, shifted=shifted(passes, max(1, count // 4), seed))
        if options.get("whole"):
            found = replace(found, one_pass=one_pass(passes, Keeper(run, job.wanted), limit, listener))
    finally:
        passes.close()
    # Another device or version may round otherwise, and then different labels prove nothing.
    same = versions_of(job.plan, job.model).items() >= _that_matter(run).items()
    same = same and job.plan.compute == run.plan.compute
    return replace(found, certificate=claimed, comparable=same)


def _patches(
    run: Run, passes: Passes, count: int, seed: int, listener: Listener
) -> tuple[tuple[Patch, ...], Flips | None]:
    """Return the patches, and how many labels on disk differ from labels computed again in them."""
    keeper, patches, again = Keeper(run, passes.job.wanted), [], Flips(0, 0)
    for box, place in places(passes, count, seed):
        with passes.attempt():
            patch, labels = check_patch(passes, box, place)
            patches.append(patch)
            again += keeper.compare(box, labels)
        listener(Event("verify", len(patches), count))
    return tuple(patches), again


def _that_matter(run: Run) -> dict[str, str]:
    """Return the versions of a run that its labels may depend on, beside its weights."""
    versions = run.record["versions"]
    return {name: versions[name] for name in ("torch", "device", "cuda", "cudnn") if name in versions}


def _limit(claimed: Certificate, passes: Passes, patches: tuple[Patch, ...]) -> float:
    """Return the largest difference in probability that the claim allows.

    For fp32 on a CPU and for fp64 it is `LIMIT`, which is far above the rounding of fp64. Else it is four times the
    difference that the arithmetic alone makes.
    """
    if claimed.mode == "TOLERANCE":
        return claimed.tolerance
    if claimed.precision == "fp64" or (claimed.device, claimed.precision) == ("cpu", "fp32"):
        return LIMIT
    rounding = []
    for patch in patches[:4]:
        with passes.attempt():
            rounding.append(4 * noise_of(passes, patch.box))
    return max([LIMIT, *rounding])


def _lines(run: Run) -> SeamExcess | None:
    """Return the comb test of the run's labels; None if they are on another grid or cannot be read."""
    plan, cut = run.plan, run.plan.tiling
    step = plan.grid.y.step
    if plan.output != plan.predicted or not run.products or min(plan.grid.y.count, plan.grid.x.count) < 2:
        return None
    if cut.columns:  # the test needs lines of one distance in both directions
        return None
    start = -plan.output_region.y0 % step, -plan.output_region.x0 % step
    # With crop windows a tile decides only its core, so lines lie a step apart and no further ones at tile ends.
    tile = step if cut.window == "crop" else cut.tile
    with suppress(InputError, StorageError):  # the ledger's check says so
        return comb_test(lines_of(run.labels()), tile, step, cut.stride, start)
    return None


def _as_found(found: Verification) -> Certificate:
    """Return the certificate with what was measured.

    A claim that does not hold is taken back. A claim that was not tested stays.
    """
    assert found.certificate is not None
    certificate = replace(found.certificate, error=found.error)
    if found.holds or found.problems == (found.uncompared,):
        return certificate
    return replace(certificate, mode="UNCERTIFIED", known="tilepipe verify found: " + "; ".join(found.problems))
