"""Precision of the forward pass in training; weights, their average, the loss and the optimiser stay float32."""

from __future__ import annotations

import torch

from tilepipe.arithmetic import HALF


def autocast_type(precision: str, device: torch.device) -> torch.dtype | None:
    """Return the type that autocast uses for 'auto', 'fp32', 'bf16' or 'fp16'; None computes in float32.

    'auto' is fp32 on the CPU and bf16 on a GPU, fp16 where the GPU has no bf16 of its own.
    """
    if precision != "auto":
        return HALF[precision]
    if device.type == "cpu":
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def grad_scaler(half: torch.dtype | None, device: torch.device) -> torch.amp.GradScaler:
    """Return what keeps small gradients from vanishing in fp16 (Micikevicius 2018, 1710.03740); does nothing else."""
    return torch.amp.GradScaler(device.type, enabled=half is torch.float16)
