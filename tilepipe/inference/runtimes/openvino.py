"""OpenVINO on the CPU. Nothing is sent to anybody, fp32 is fp32, and a network that ends the process is found first."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tilepipe.cache import cache_directory, keep, recall
from tilepipe.inference.runtimes.base import Compiled, GraphError, Subject, stated
from tilepipe.inference.runtimes.kept_graphs import fingerprint, onnx_of
from tilepipe.inference.runtimes.openvino_model import compiled

PATIENCE = 300.0
"""Seconds after which a compilation in a child process counts as failed."""
TRY = "import sys; from tilepipe.inference.runtimes.openvino_model import try_file; try_file(*sys.argv[1:])"
WORKS = "works"


class OpenVino:
    """Compiles one network for one shape."""

    def compiled(self, subject: Subject) -> Compiled:
        """Return the compiled network. Raises `GraphError`, also if compiling it ends a process here."""
        data = onnx_of(subject)
        _try_apart(subject, data)
        try:
            network = compiled(data, subject.shapes, subject.precision, torch.get_num_threads())
        except Exception as problem:  # its errors have no common base
            raise GraphError(f"openvino refuses the network: {' '.join(str(problem).split())[:160]}") from None
        request = network.create_infer_request()

        def call(tensors: Sequence[Tensor]) -> list[Tensor]:
            given = [one.contiguous().numpy() for one in tensors]
            found = request.infer(given, share_inputs=True)
            # Its outputs lie in memory that the next call writes over.
            return [torch.from_numpy(np.array(found[k])) for k in range(len(network.outputs))]

        return call


def _try_apart(subject: Subject, data: bytes) -> None:
    """Compile and call a network in a child process once per machine, as this can end the process it is done in.

    OpenVINO is not supported on all processors of AMD (https://github.com/openvinotoolkit/openvino/issues/35943).
    """
    size = "-".join(str(side) for shape in subject.shapes[:1] for side in shape)
    graph = fingerprint(subject)[:32]
    name, folder = f"{stated('openvino').replace(' ', '-')}-{graph}-{subject.precision}-{size}.txt", cache_directory()
    found = recall(name, folder)
    if found is None:
        found = _child(data, subject)
        keep(name, found, folder)
    if found != WORKS:
        raise GraphError(f"openvino {found}")


def _child(data: bytes, subject: Subject) -> str:
    """Return `WORKS`, or what happened to the child."""
    shapes = ";".join(",".join(map(str, shape)) for shape in subject.shapes)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        path.write_bytes(data)
        command = [sys.executable, "-c", TRY, str(path), shapes, subject.precision]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            return f"does not compile the network within {PATIENCE:.0f} seconds"
    if done.returncode < 0:
        return f"ends a process here (signal {-done.returncode}) when it compiles the network"
    if done.returncode:
        return f"refuses the network: {(done.stderr.strip().splitlines() or [''])[-1][:160]}"
    return WORKS
