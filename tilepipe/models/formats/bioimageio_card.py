"""The description of a BioImage Model Zoo package becomes a card; what has no place in a card is refused by name.

`bioimageio.spec` parses and checks the description (https://github.com/bioimage-io/spec-bioimage-io, format 0.5). It is
used for nothing else: it opens no file and no address.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tilepipe.errors import ModelError
from tilepipe.models.formats.bioimageio_package import Package
from tilepipe.models.formats.bioimageio_steps import Step, decision, scaling
from tilepipe.models.formats.opaque import missing_extra
from tilepipe.text import JSON

Compared = Literal["logits", "probabilities", "labels"]
METRES = {"nanometer": 1e-9, "micrometer": 1e-6, "millimeter": 1e-3, "centimeter": 1e-2, "meter": 1.0, "kilometer": 1e3}
"""Metres in each unit of length that the description may use."""
_DTYPES = ("uint8", "uint16", "int16", "float32")
_BANDS = ("red", "green", "blue", "nir")
_LAYOUTS = {("batch", "channel", "y", "x"): "NCHW", ("batch", "y", "x", "channel"): "NHWC"}


@dataclass(frozen=True)
class TestTensor:
    """A tensor of the package: (1, bands, H, W) or (1, H, W, bands)."""

    source: str
    """Name of the member."""
    sha256: str | None
    """Its hash; None if the description has none."""


@dataclass(frozen=True)
class Description:
    """What a description says, in the words of a card."""

    fields: JSON
    """Fields of a card, without mean and std if `sampled`."""
    weights: Any
    """Weights by format, as bioimageio.spec gives them."""
    tensors: tuple[TestTensor, TestTensor]
    """Tensors for the test: the input before pre-processing, and the output after post-processing."""
    layout: str
    """Order of their axes: 'NCHW' or 'NHWC'."""
    steps: tuple[Step, ...]
    """Pre-processing."""
    compared: Compared | None
    """What the output is after post-processing; None if it is what the network gives."""
    sampled: tuple[str, ...] = field(default=())
    """Steps that measure every image anew, which a card cannot say."""


def described(package: Package) -> Description:
    """Return what a package says. Raises `ModelError` that names the part which tilepipe cannot do."""
    found = _parsed(package)
    place = f"{package.path}: {package.description}"
    if len(found.inputs) != 1 or len(found.outputs) != 1:
        raise ModelError(
            f"{place} has {len(found.inputs)} inputs and {len(found.outputs)} outputs "
            f"({', '.join(str(one.id) for one in (*found.inputs, *found.outputs))}); tilepipe reads models "
            "with one each"
        )
    given, gives = found.inputs[0], found.outputs[0]
    layout = _layout(given, place)
    if _layout(gives, place) != layout:
        raise ModelError(f"{place}: input {given.id} and output {gives.id} have different orders of axes")
    channels = [list(_axis(one, "channel").channel_names) for one in (given, gives)]
    dtype = _data(given).type
    steps = tuple(_step(one) for one in given.preprocessing)
    sampled = tuple(step.name for step in steps if step.measures)
    fields: JSON = {
        "name": re.sub(r"\W+", "-", str(found.name)).strip("-") or "model",
        "description": str(found.description or ""),
        "license": str(found.license or ""),
        "bands": len(channels[0]),
        **_sizes(given, gives, place),
        **({} if layout == "NCHW" else {"layout": layout}),
        **({"dtype": dtype} if dtype in _DTYPES else {}),
    }
    if names := [name.lower() for name in channels[0] if name.lower() in _BANDS]:
        fields["band_names"] = names if len(names) == len(channels[0]) else ()
    if not sampled:
        gain, offset = scaling(steps, len(channels[0]), dtype, place)
        fields |= {
            "mean": [float(-o / g) for g, o in zip(gain, offset, strict=True)],
            "std": [float(1 / g) for g in gain],
        }
    compared, decided = decision([_step(one) for one in gives.postprocessing], channels[1], _data(gives), place)
    tensors = tuple(_tensor(one, place) for one in (given, gives))
    return Description(
        fields | decided, found.weights, (tensors[0], tensors[1]), layout, steps, compared, sampled
    )  # fmt: skip


def _parsed(package: Package) -> Any:
    fields = package.fields()
    version, kind = str(fields.get("format_version", "")), fields.get("type")
    if kind != "model":
        raise ModelError(f"{package.path} describes a {kind}, no model")
    if not re.match(r"0\.5\.", version):
        raise ModelError(
            f"{package.path} has format_version {version or 'none'}, and tilepipe reads 0.5; write it anew with "
            "bioimageio update-format (package bioimageio.core)"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the package's remarks on what it imports
            from bioimageio.spec import InvalidDescr, ValidationContext, build_description
    except ImportError as error:
        raise missing_extra("bioimageio.spec", "bioimageio", error) from None
    # Without checks of files nothing is opened or fetched, wherever a description points to.
    context = ValidationContext(perform_io_checks=False, log_warnings=False, progressbar=False, root=Path())
    try:
        found = build_description(fields, context=context)
    except Exception as error:  # pydantic's errors, and those of the package
        raise ModelError(f"{package.path}: {package.description}: {str(error).splitlines()[0]}") from None
    if isinstance(found, InvalidDescr):
        first = found.validation_summary.errors[0]
        where = ".".join(str(part) for part in first.loc)
        raise ModelError(f"{package.path}: {package.description}: {where}: {first.msg.splitlines()[0]}")
    return found


def _layout(tensor: Any, place: str) -> str:
    order = tuple("channel" if axis.type == "channel" else str(axis.id) for axis in tensor.axes)
    if order not in _LAYOUTS:
        raise ModelError(
            f"{place}: {tensor.id} has the axes {', '.join(order)}; tilepipe reads batch, channel, y, x or batch, "
            "y, x, channel"
        )
    return _LAYOUTS[order]


def _axis(tensor: Any, name: str) -> Any:
    return next(axis for axis in tensor.axes if name in (axis.type, str(axis.id)))


def _data(tensor: Any) -> Any:
    return tensor.data[0] if isinstance(tensor.data, list | tuple) else tensor.data


def _step(one: Any) -> Step:
    kwargs: Any = getattr(one, "kwargs", None)
    values = kwargs.model_dump() if hasattr(kwargs, "model_dump") else dict(kwargs or {})
    return Step(str(one.id), values)


def _tensor(tensor: Any, place: str) -> TestTensor:
    if tensor.test_tensor is None:
        raise ModelError(f"{place}: {tensor.id} has no test_tensor, so nothing shows that the model works here")
    return TestTensor(member(tensor.test_tensor, place), _digest(tensor.test_tensor))


def member(file: Any, place: str) -> str:
    """Return the name of a file in the package. Raises `ModelError` if the description names another place."""
    name = str(getattr(file.source, "path", file.source))
    if "://" in name or not re.match(r"[\w.]", name):
        raise ModelError(f"{place} names {name}, and only files in the package are read; get the whole package")
    return name


def _digest(file: Any) -> str | None:
    return None if file.sha256 is None else str(file.sha256)


def _sizes(given: Any, gives: Any, place: str) -> Mapping[str, object]:
    """Return stride, tile, pad and pixel size that the axes y and x say."""
    down, across = (_spatial(_axis(given, name), _axis(gives, name), given.id, place) for name in ("y", "x"))
    if down != across:
        raise ModelError(
            f"{place}: the axes y and x differ ({down} and {across}); tilepipe reads square pixels and tiles"
        )
    return down


def _spatial(axis: Any, out: Any, tensor: str, place: str) -> JSON:
    where = f"{place}: axis {axis.id}"
    found: JSON = {}
    metres = METRES.get(str(axis.unit))
    if metres is not None:
        size = metres * axis.scale
        found = (
            {"resolution": size, "unit": "m"} if size >= 1e-3 else {"resolution": round(size * 1e6, 9), "unit": "um"}
        )
    fixed = axis.size if isinstance(axis.size, int) else None
    if fixed is not None:
        found["tile"] = fixed
    elif not hasattr(axis.size, "step"):
        raise ModelError(f"{where} has a size that depends on {axis.size.axis_id}; tilepipe reads sizes of their own")
    elif axis.size.min % axis.size.step:
        raise ModelError(f"{where} takes {axis.size.min} + n x {axis.size.step} px; tiles are multiples of the step")
    else:
        found["stride"] = axis.size.step
    if isinstance(out.size, int):
        offset = None if fixed is None else out.size - fixed
    else:
        same = (str(out.size.tensor_id), str(out.size.axis_id)) == (str(tensor), str(axis.id))
        offset = out.size.offset if same and abs(out.scale - axis.scale) < 1e-9 * axis.scale else None
    if offset is None or offset > 0 or offset % 2:
        size = (
            out.size
            if isinstance(out.size, int)
            else f"{out.size.axis_id} of {out.size.tensor_id} {out.size.offset:+d}"
        )
        raise ModelError(
            f"{where} of the output has size {size} and scale {out.scale:g}, that of the input scale {axis.scale:g}; "
            "tilepipe reads maps as large as the tile, or smaller by an even number of pixels"
        )
    if offset:
        found["pad"] = -offset // 2
        found |= {} if fixed is None else {"tile": fixed + offset}
    return found
