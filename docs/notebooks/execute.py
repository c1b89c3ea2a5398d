"""Execute the notebooks beside this file and store their outputs: `make notebooks`."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbclient import NotebookClient

OPTIONS = [
    "--InlineBackend.figure_formats={'jpeg'}",  # the pictures are photographs: a fifth of the bytes of PNG
    "--IPKernelApp.log_level=ERROR",  # it warns that the kernel's own connection on this machine is not encrypted
]


def execute(path: Path, seconds: int = 600) -> nbformat.NotebookNode:
    """Run all cells of a notebook in the notebook's folder and return the notebook with the new outputs.

    Raises `nbclient.exceptions.CellExecutionError` if a cell raises, and `CellTimeoutError` if one takes more than
    `seconds`.
    """
    notebook = nbformat.read(path, as_version=4)
    # Times of execution are others each time: without them a diff shows only what has changed.
    client = NotebookClient(notebook, timeout=seconds, record_timing=False, extra_arguments=OPTIONS)
    client.coalesce_streams = True  # else what one cell prints is cut up by the moments at which it came
    client.resources = {"metadata": {"path": str(path.parent)}}
    client.execute()
    notebook.metadata.language_info = {"name": "python"}  # the version of Python would be that of the machine
    return notebook


if __name__ == "__main__":
    for one in sorted(Path(__file__).parent.glob("*.ipynb")):
        nbformat.write(execute(one), one)
        print(one.name)
