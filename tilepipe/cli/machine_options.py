"""This module defines the options about the machine: arithmetic, memory of a call, errors of tiles, and trust."""

from __future__ import annotations

import click

from tilepipe.cli.help import expert, option

MACHINE = "Machine"

PRECISIONS = click.Choice(["auto", "fp64", "fp32", "tf32", "bf16", "fp16"])

_TRUST = {
    "metavar": "sha256:HASH",
    "help": "Load a model file that can run code, if this is its hash.",
}
TRUST = option("--trust-model", **_TRUST)

COMPUTING = (
    expert(
        MACHINE,
        "--precision",
        type=PRECISIONS,
        metavar="NAME",
        show_default="fp32",
        help="Arithmetic of the model: fp32, fp64 (labels do not depend on the tiling for any weights; slower), bf16, "
        "and on CUDA devices tf32 and fp16.",
    ),
    expert(
        MACHINE,
        "--runtime",
        type=click.Choice(["auto", "torch", "onnxruntime", "openvino", "compile"]),
        metavar="NAME",
        show_default="auto",
        help="Program that computes the model: torch, onnxruntime, openvino, compile (torch.compile), or auto, the "
        "fastest that agrees with torch.",
    ),
    expert(
        MACHINE,
        "--batch",
        type=click.IntRange(min=1),
        metavar="N",
        show_default="by device",
        help="Tiles in one call of the model.",
    ),
    expert(
        MACHINE,
        "--block",
        type=click.IntRange(min=1),
        metavar="N",
        show_default="1024",
        help="Side of a block in pixels. A block is the unit of work that is kept if a run is interrupted.",
    ),
    expert(
        MACHINE,
        "--on-tile-error",
        type=click.Choice(["nodata", "fail"]),
        metavar="nodata|fail",
        show_default="nodata",
        help="If a tile cannot be read or predicted: leave its pixels without a label and list it (nodata), or end the "
        "run (fail).",
    ),
    expert(
        MACHINE,
        "--tile-timeout",
        type=float,
        metavar="SECONDS",
        show_default="600",
        help="Longest time for one batch of tiles; a tile that takes longer twice cannot be predicted (0: no limit).",
    ),
    expert(
        MACHINE,
        "--no-record",
        "record",
        is_flag=True,
        flag_value=False,
        default=None,
        help="Leave no record (.OUTPUT.tilepipe) of a finished run; verify and the same command again need it.",
    ),
    expert(
        MACHINE, "--scheduler", metavar="ADDRESS", help="Address of a running Dask scheduler, like tls://host:8786."
    ),
    expert(MACHINE, "--trust-model", **_TRUST),
)
