"""This module compares the disk that the labels of a batch need with what is free, before any work."""

from __future__ import annotations

from collections.abc import Sequence

from tilepipe.errors import StorageError, TilepipeError
from tilepipe.execution.batch.batch import Batch
from tilepipe.execution.batch.image_state import size_on_disk
from tilepipe.execution.batch.one_image import Looked
from tilepipe.execution.batch.record import Entry
from tilepipe.planning.fit_table import COMPRESSION
from tilepipe.planning.memory import format_bytes, format_free
from tilepipe.sources.open import open_source
from tilepipe.storage import free_space

PIXELS_PER_BYTE = 100
"""Number of pixels that a byte of a compressed image file holds at most, but for images of one colour."""


def refuse_small_disk(batch: Batch, todo: Sequence[Looked]) -> None:
    """Raise `StorageError` if the products of all images in work cannot fit on the disk, with the figures.

    A product is taken to need as many bytes per pixel as those of the record; before there are any, labels are taken to
    be compressed as far as they can be. Each run checks the disk again for its own work.
    """
    free = free_space(batch.folder)
    each = _bytes_per_pixel(list(batch.known.values())) or 1 / COMPRESSION
    # Images are opened for their sizes only if files as large as theirs could hold that many pixels.
    if free is None or each * PIXELS_PER_BYTE * sum(size_on_disk(item.item) for item in todo) < free:
        return
    pixels = sum(_pixels(batch, item) for item in todo)
    need = round(each * pixels)
    if need > free:
        raise StorageError(
            f"the products of {len(todo)} images need about {format_bytes(need)} in {batch.folder}, and "
            f"{format_free(free)} are free there; make room, or name another folder for `output`"
        )


def _pixels(batch: Batch, looked: Looked) -> int:
    try:
        settings = batch.settings_of(looked.item)
        how = {
            name: settings[name] for name in ("scene", "z", "t", "driver", "allow") if settings.get(name) is not None
        }
        _, height, width = open_source(looked.item.image, **how).shape
    except (TilepipeError, OSError):  # the image fails when it is its turn
        return 0
    return height * width


def _bytes_per_pixel(entries: Sequence[Entry]) -> float:
    """Return the size of all products over the number of pixels, by what earlier batches have written; 0 if unknown."""
    known = [entry for entry in entries if entry.files and entry.numbers]
    pixels = sum(sum(row["pixels"] for row in entry.numbers["classes"]) + entry.numbers["nodata"] for entry in known)
    written = sum(int(state.get("bytes", 0)) for entry in known for state in entry.files.values())
    return written / pixels if pixels else 0.0
