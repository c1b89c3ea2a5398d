"""This module moves the products of a run from a folder of its work directory to their final places.

All products are written and synced first. run.json then says how they look, what they may replace, and that they are
not in place yet; they are renamed back to back; run.json says that the set is complete. A process that dies in between
leaves all that is needed to finish, and the next command on the same output does so before anything else.

A product is replaced only if it was there when the run began and was allowed to be replaced. Anything else at a final
path right before the rename is left alone. If the system can do so (Linux, most file systems), a file or folder changes
places with the old one at once. Otherwise a folder is moved aside first, and a reader may find nothing for that moment.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from tilepipe.errors import LockedError, TilepipeError, UsageError
from tilepipe.events import Event, Listener
from tilepipe.execution.file_state import FileState, is_same, seen, sha256_of, state_of
from tilepipe.execution.outputs import Outputs
from tilepipe.execution.run_record import RECORD, RunRecord, as_written, read_record
from tilepipe.products.formats import LOSSLESS, PRODUCTS, REPORT, SIDECARS, File, side_file, users_of_style
from tilepipe.products.material import Material
from tilepipe.products.qgis_style import STYLE, is_own_style, is_same_style, style_path
from tilepipe.products.vector_options import DRAWN
from tilepipe.storage import locked, storage_errors, sync, sync_tree, write_json
from tilepipe.text import JSON, setting

STAGED = "products"
"""Name of the folder of a work directory that holds products before they are put in place."""

ASIDE = "replaced"
"""Name of the folder of a work directory to which a replaced output is moved, if the old and the new output cannot
change places."""

ANEW = setting(overwrite=True)


def is_published(record: RunRecord, outputs: Outputs) -> bool:
    """Return whether all products are in place as run.json says; with `overwrite` every byte is compared."""
    if not record["published"] or not all(as_written(record, file.path) for file in outputs.files):
        return False
    if outputs.drawn_otherwise(record):
        return False
    return not outputs.overwrite or all(
        sha256_of(file.path) == record["products"][file.path.name].get("sha256") for file in outputs.files
    )


def refuse_existing(outputs: Outputs, record: RunRecord | None = None) -> dict[str, FileState]:
    """Return the state of what is at the final paths and may be replaced, by name.

    Products that are as `record` (run.json) says are the run's own. Files that the run was replacing may be replaced.
    Raises `UsageError` if another file exists and may not be replaced, or if the folder does not exist.
    """
    found: dict[str, FileState] = {}
    for file in outputs.files:
        product, path = file.product, file.path
        if not path.parent.is_dir():
            raise UsageError(f"folder {path.parent} does not exist; make it first")
        _refuse_open(path)
        if file.style and (outputs.overwrite or is_own_style(file.style)) and (now := seen(file.style)):
            found[file.style.name] = now
        if not os.path.lexists(path):
            if not (outputs.overwrite or record):
                _refuse_orphans(file)
            continue
        if not outputs.overwrite and not (record and _is_known(path, record)):
            raise UsageError(f"{path} exists{_why_not_known(path, outputs, record)}; use {ANEW} or another output")
        if not outputs.overwrite and product in DRAWN and record and _is_old(path, outputs, record):
            raise UsageError(
                f"{path} exists and was written with other options; use {ANEW}, or tilepipe "
                "export with another output, which takes them from the labels"
            )
        # A replaced folder is removed, so a user's own folder that happens to have this name must not be replaced.
        if path.is_dir() != PRODUCTS[product].folder or (
            path.is_dir() and not (path / PRODUCTS[product].inside).exists()
        ):
            raise UsageError(f"{path} exists and is no {product} product, so it is not replaced; choose another output")
        if now := seen(path):
            found[path.name] = now
    return found


def _why_not_known(path: Path, outputs: Outputs, record: RunRecord | None) -> str:
    """Return the reason why a file is not taken for a product of the finished run; '' if no run wrote it."""
    if record and path.name in record["products"]:
        return " and was changed since tilepipe wrote it"
    damaged = [found for found in outputs.work.glob(f"*/{RECORD}") if read_record(found.parent) is None]
    return f", and {damaged[0]}, which would say whether it is complete, is damaged" if damaged else ""


def _is_old(path: Path, outputs: Outputs, record: RunRecord) -> bool:
    """Return whether a published product was written with other options than the ones asked for now."""
    return record["published"] and outputs.drawn_otherwise(record) and as_written(record, path)


def _refuse_open(path: Path) -> None:
    """Raise `LockedError` if another program works on a GeoPackage, since its changes are in a file beside it."""
    log = path.with_name(f"{path.name}-wal")
    with suppress(OSError):
        if log.stat().st_size:
            raise LockedError(f"{path} is open in another program, which keeps changes in {log}; close it there first")


def _refuse_orphans(file: File) -> None:
    """Raise `UsageError` if a side file exists without its product and tilepipe did not write the side file."""
    orphans = [side for side in (side_file(file.path, end) for end in SIDECARS) if side.is_file()]
    # The side files that tilepipe writes for labels have such a table (see `cog_tags`).
    orphans = [side for side in orphans if b'tableType="thematic"' not in side.read_bytes()]
    if file.style and os.path.lexists(file.style) and not is_own_style(file.style):
        orphans.append(file.style)
    for side in orphans:
        raise UsageError(f"{side} exists without {file.path.name}; use {ANEW} to replace it, or another output")


def _refuse_style(fresh: Path, final: Path, record: RunRecord) -> None:
    """Raise `UsageError` if a new style would replace one that somebody saved, or that of a file which stays."""
    if not (fresh.exists() and os.path.lexists(final)) or is_same_style(fresh, final):
        return
    if not is_own_style(final):
        refuse_foreign(final, record)
    staying = [path for path in users_of_style(final) if path.name not in record["products"]]
    if staying:
        raise UsageError(
            f"{final} is the style of {staying[0].name}, which has other classes; move {staying[0].name} away and "
            "give the same command again, or name another output"
        )


def refuse_foreign(path: Path, record: RunRecord) -> None:
    """Raise `UsageError` if a file at `path` did not exist, or was different, when the run began."""
    if os.path.lexists(path) and not _is_known(path, record):
        raise UsageError(
            f"{path} was made or changed by somebody else while the run worked, so it is left as it is; "
            "move it away and give the same command again, which only puts the finished products in place"
        )


def _is_known(path: Path, record: RunRecord) -> bool:
    known = [of[path.name] for of in (record["products"], record["replaces"]) if path.name in of]
    return any(is_same(path, state) for state in known)


def write_products(
    material: Material, outputs: Outputs, directory: Path, listener: Listener, times: Callable[[], JSON] = dict
) -> dict[str, FileState]:
    """Write products inside `directory`, durably; return their state by file name; `times` are those of run.json."""
    fresh = directory / STAGED
    with storage_errors(fresh):
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
    material = replace(material, assets=(*material.assets, *(file.asset for file in outputs.files)))
    # Products that read every label come first: their reading is the progress that is shown. A report comes last, since
    # it tells how long the others took.
    by_reading = sorted(outputs.files, key=lambda file: (file.product == REPORT, file.product not in LOSSLESS))
    began = time.perf_counter()
    for k, file in enumerate(by_reading):
        listener(Event("export", k, len(outputs.files), f"writing {file.path.name}"))
        if file.product == REPORT:
            facts = _timed(material.facts, time.perf_counter() - began)
            material = replace(material, facts={**facts, **times()})
        PRODUCTS[file.product].write(material.showing(file.content), fresh / file.path.name)
        while material.notes:
            note = f"{file.path.name}: {material.notes.pop(0)}"
            listener(Event("export", k + 1, len(outputs.files), note, {"note": note}))
    with storage_errors(fresh):
        sync_tree(fresh)
        endings = {file.path.name: (*SIDECARS, *([STYLE] if file.style else [])) for file in outputs.files}
        there = {name: [end for end in ends if side_file(fresh / name, end).exists()] for name, ends in endings.items()}
        return {name: {**state_of(fresh / name), "beside": beside} for name, beside in there.items()}


def _timed(facts: JSON, seconds: float) -> JSON:
    """Return the facts of a run that works, with the wall time that its products took so far."""
    if "stages" not in facts or "products" in facts["stages"]:  # the run has ended, and its facts are whole
        return facts
    return {**facts, "stages": {**facts["stages"], "products": seconds}}


def is_whole(directory: Path, record: RunRecord) -> bool:
    """Return whether each product is staged or in place, so that putting them in place can be finished."""
    folder, staged = directory.parent.parent, directory / STAGED
    return all(
        is_same(staged / name, known) or is_same(folder / name, known) for name, known in record["products"].items()
    )


def put_in_place(directory: Path, record: RunRecord) -> RunRecord:
    """Rename what is staged onto its final paths, one after the other; return run.json, which now says so.

    Raises `UsageError`, with nothing renamed, if a foreign file is in the way.
    """
    folder, staged = directory.parent.parent, directory / STAGED
    # All paths are checked before the first rename: a set of products is put in place whole or not at all. Each path is
    # checked once more right before its rename, since somebody may have saved a file there meanwhile.
    waiting = [name for name, known in record["products"].items() if is_same(staged / name, known)]
    for name in waiting:
        refuse_foreign(folder / name, record)
        _refuse_style(style_path(staged / name), style_path(folder / name), record)
    for name in waiting:
        with storage_errors(folder / name):
            _refuse_style(style_path(staged / name), style_path(folder / name), record)
            _put_sidecars(staged / name, folder / name)
            refuse_foreign(folder / name, record)
            _replace(staged / name, folder / name, directory / ASIDE)
    with storage_errors(folder):
        sync(folder, folder)
    record = {**record, "published": True}
    # An export has no run.json.
    if (directory / RECORD).exists():
        write_json(directory / RECORD, record)
    shutil.rmtree(staged, ignore_errors=True)
    shutil.rmtree(directory / ASIDE, ignore_errors=True)
    return record


def finish_others(outputs: Outputs) -> None:
    """Put products in place if a process died while it did so, so that no old product stays beside a new one.

    Products that cannot be put in place stay as they are; the command that wrote them says why.
    """
    begun = [path.parent for path in outputs.work.glob(f"*/{RECORD}")]
    begun = [directory for directory in begun if _is_begun(directory)]
    if begun:
        with locked(*outputs.locks), suppress(TilepipeError):
            for directory in begun:
                record = read_record(directory)
                if record and not record["published"]:
                    put_in_place(directory, record)


def _is_begun(directory: Path) -> bool:
    record = read_record(directory)
    if record is None or record["published"] or not is_whole(directory, record):
        return False
    return any(as_written(record, directory.parent.parent / name) for name in record["products"])


def _put_sidecars(fresh: Path, final: Path) -> None:
    """Put the side files of a product in place before the product, so that the product never stands without them."""
    for suffix in SIDECARS:
        if fresh.with_name(fresh.name + suffix).exists():
            os.replace(fresh.with_name(fresh.name + suffix), final.with_name(final.name + suffix))
        else:  # a side file of the earlier product would describe other pixels
            final.with_name(final.name + suffix).unlink(missing_ok=True)
    # Products of one name share their style, so it is put in place with the first of them, and never removed.
    if style_path(fresh).exists():
        os.replace(style_path(fresh), style_path(final))


# These are the flags RENAME_EXCHANGE and RENAME_NOREPLACE of Linux.
EXCHANGE, NO_REPLACE = 2, 1


def _replace(fresh: Path, final: Path, aside: Path) -> None:
    """Rename onto `final`. The earlier product stays at `fresh` or `aside`, and the caller removes it."""
    if not os.path.lexists(final):
        # A plain rename would replace a file that somebody has saved there since the last look.
        if not rename2(fresh, final, NO_REPLACE):
            os.rename(fresh, final)
    elif not rename2(fresh, final, EXCHANGE):
        shutil.rmtree(aside, ignore_errors=True)
        # os.replace does not replace a folder that is not empty.
        if final.is_dir():
            os.rename(final, aside)
        try:
            os.replace(fresh, final)
        except OSError:
            if aside.exists():
                os.rename(aside, final)
            raise


def rename2(old: Path, new: Path, flag: int) -> bool:
    """Rename with Linux's renameat2; return False if the system or file system does not have it. Raises `OSError`."""
    try:
        # Python has no function for this call. Two plain renames would leave a moment without the old and the new
        # product.
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    here = -100  # AT_FDCWD
    if call(here, os.fsencode(old), here, os.fsencode(new), flag) == 0:
        return True
    number = ctypes.get_errno()
    # The kernel is old, the file system lacks these flags (NFS, FUSE), or a container filters system calls.
    if number in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM):
        return False
    raise OSError(number, os.strerror(number), str(new))
