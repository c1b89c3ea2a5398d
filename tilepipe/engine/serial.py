"""The specification: blocks one after the other. Every other engine must give the same bytes."""

from __future__ import annotations

from tilepipe.engine.book import Book
from tilepipe.engine.steps import Job, Worker


def run(job: Job, book: Book) -> None:
    """Compute the blocks that are missing in the book."""
    worker = Worker(job)
    try:
        for block in book.missing():
            book.commit(worker.run(block, book.givers(block)))
    finally:
        worker.close()
