"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Sequence

import onnxruntime
import torch
from torch import Tensor

from tilepipe.heap import give_back
from tilepipe.inference.runtimes.base import Compiled, GraphError, Subject
from tilepipe.inference.runtimes.kept_graphs import onnx_of

AXES = ("batch", "", "rows", "columns")
"""Names of the free axes of an input; its bands are never free."""


class OnnxRuntime:
    """Opens a session for one network and shape. It computes in fp32."""

    def compiled(self, subject: Subject) -> Compiled:
        """Return a session that gives the same bits every time. Raises `GraphError`."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        options.log_severity_level = 4  # errors are raised
        # Threads that wait would take the processor from reading and writing.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Memory that it has used once would stay with it.
        options.enable_cpu_mem_arena = False
        for k, shape in enumerate(subject.shapes):
            for axis, size in zip(AXES, shape, strict=True):
                if axis:
                    options.add_free_dimension_override_by_name(f"in{k}_{axis}", size)
        try:
            session = onnxruntime.InferenceSession(onnx_of(subject), options, providers=["CPUExecutionProvider"])
        except GraphError:
            raise
        except Exception as problem:  # its errors have no common base
            raise GraphError(f"onnxruntime refuses the network: {' '.join(str(problem).split())[:160]}") from None
        give_back()  # the file was read into many small pieces
        names = [one.name for one in session.get_inputs()]

        def call(tensors: Sequence[Tensor]) -> list[Tensor]:
            given = {name: one.contiguous().numpy() for name, one in zip(names, tensors, strict=True)}
            return [torch.from_numpy(found) for found in session.run(None, given)]

        return call
