"""This module keeps graphs of networks on disk, so that a network is exported once per machine."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from importlib.metadata import version

from tilepipe.cache import cache_directory
from tilepipe.inference.runtimes.base import Subject

VERSION = 1  # version of what is written; raise it when files change
DIGEST = hashlib.sha256().digest_size


def onnx_of(subject: Subject) -> bytes:
    """Return the network as an ONNX file: the one that was kept if it is as it was written, else a new one.

    Raises `GraphError`.
    """
    folder = cache_directory()
    name = f"graph-{fingerprint(subject)[:32]}.onnx"
    if folder is not None:
        with contextlib.suppress(OSError):
            with (folder / name).open("rb") as file:
                digest, data = file.read(DIGEST), file.read()
            if hashlib.sha256(data).digest() == digest:
                return data
    # torch is opened only if nothing was kept.
    from tilepipe.inference.runtimes.onnx_graph import onnx_file

    made = onnx_file(subject.module, subject.examples)
    if folder is not None:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            handle, path = tempfile.mkstemp(dir=folder, suffix=".tmp")
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(made).digest())
                file.write(made)
            os.replace(path, folder / name)
    return made


def fingerprint(subject: Subject) -> str:
    """Return the hash of all that decides the graph of a network."""
    examples = [list(one.shape) for one in subject.examples]
    settled = [VERSION, subject.key, examples, version("torch"), version("tilepipe")]
    return hashlib.sha256(json.dumps(settled).encode()).hexdigest()
