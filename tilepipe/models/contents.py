"""Contents: hashes of a network's parts, the same in every process; and whether the hashes say all of the network.

Weights and plain settings decide what a layer of a known package does. Anything else (a class or function of another
package, an object in C) is hashed as far as Python can read it: code with the values it closes over and the globals it
reads, containers, tensors, attributes. Only calls of the model show what such a part does (`identity`).
"""

from __future__ import annotations

import dis
import hashlib
import sys
import types
import weakref
from collections.abc import Iterable, Mapping, Sequence, Set
from functools import partial
from pathlib import PurePath

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from tilepipe.arrays import Array

PACKAGES = {"torch", "torchvision", "timm", "segmentation_models_pytorch", "huggingface_hub", "tilepipe"}
"""Packages whose code is known by their names and versions."""
_MADE = ("torch.jit.", "torch.fx.", "torch.export.")  # classes that are generated for one object
_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(...), slice, range, torch.dtype, torch.device)
_STEPS, _DEPTH = 20_000, 24
"""Number of values that are read per attribute, and the depth; the rest shows in the network's answers only."""
_OWN = {*vars(nn.Module()), "_live"}
"""Attributes that are read by name, and what `formats.opaque` has opened, which is made from the file's bytes."""
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


def is_known(code: object) -> bool:
    """Return whether a class or function is of a package whose code is known by its name."""
    home = str(getattr(code, "__module__", None) or "")
    top = home.split(".", maxsplit=1)[0]
    return (top in {*PACKAGES, "numpy"} or top in sys.stdlib_module_names) and not f"{home}.".startswith(_MADE)


def network_sha256(module: nn.Module, first: str = "") -> str:
    """Return the hash of the text `first` and of a network's layers, their settings and their weights."""
    digest = hashlib.sha256(first.encode())
    for name, layer in module.named_modules():
        digest.update(f"{name}:{_name(type(layer))}:{_plain_settings(layer)};".encode())
    for name, tensor in module.state_dict().items():
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        # As bytes, since numpy has no bfloat16; flat, since a single number has no axis that bytes could lie along.
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _plain_settings(layer: nn.Module) -> list[tuple[str, object]]:
    """Return the plain values that a layer was made with (kernel size, a constant, ...), sorted by name."""
    plain = (bool, int, float, str, tuple)
    return sorted((k, v) for k, v in vars(layer).items() if isinstance(v, plain) and k != "training")


class Contents:
    """The parts of a network by name, each with its hash."""

    def __init__(self, network: nn.Module, *, weights: bool = True) -> None:
        """Hash all layers, their settings, parameters, buffers and hooks, and the code of unknown classes.

        Without `weights`, parameters and the running statistics of norms count with their shapes alone.
        """
        self.known = True
        """Whether the parts say all of the network, because everything is of known packages."""
        self.written = True
        """Whether the parts say all of the network, because everything is of known packages or written in Python."""
        self._weights = weights
        self.parts: dict[str, str] = {}
        self._kinds: set[type] = set()
        self._layers = {id(layer): name for name, layer in network.named_modules()}
        for name, layer in network.named_modules():
            self._layer(name, layer)
        for name in (f"_global{kind}" for kind in _HOOKS):
            self._part(name, list(getattr(torch_module, name, {}).values()))

    def _layer(self, name: str, layer: nn.Module) -> None:
        kind = type(layer)
        self.parts[name] = _name(kind)
        for base in kind.__mro__ if kind not in self._kinds else ():
            if not is_known(base):
                self._part(f"class {_name(base)}", base)
            else:
                # The class is of a known package, but the user may have put another function into it.
                replaced = {k: v for k, v in vars(base).items() if isinstance(v, types.FunctionType)}
                for key in (key for key, value in replaced.items() if not is_known(value)):
                    self._part(f"class {_name(base)}.{key}", replaced[key])
        self._kinds.add(kind)
        for key, tensor in (*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)):
            trained = isinstance(tensor, nn.Parameter) or key.startswith(("running_", "num_batches_"))
            self._part(f"{name}.{key}", tensor if self._weights or not trained else _form(tensor))
        for key in _HOOKS:
            self._part(f"{name}.{key}", list(getattr(layer, key, {}).values()))
        for key, value in vars(layer).items():
            if key not in _OWN:
                self._part(f"{name}.{key}", value)

    def _part(self, name: str, value: object) -> None:
        if name not in self.parts:
            hashed = _Hash(self._layers)
            hashed.add(value)
            self.parts[name] = hashed.digest.hexdigest()
            self.known = self.known and hashed.known
            self.written = self.written and (hashed.known or hashed.written)


def _form(tensor: Tensor) -> str:
    return f"{tensor.dtype} {tuple(tensor.shape)}"


class _Hash:
    """A hash of Python values by their content, never by their address in memory."""

    def __init__(self, layers: Mapping[int, str]) -> None:
        self.digest = hashlib.sha256()
        self.known = True
        self.written = True
        self._layers = layers
        self._seen: dict[int, tuple[int, object]] = {}
        self._steps = self._depth = 0

    def add(self, value: object) -> None:
        """Add a value and all that it holds to the hash."""
        self._steps += 1
        self._word(type(value).__qualname__)
        if isinstance(value, _PLAIN) and type(value) in _PLAIN:
            self._word(repr(value))
        elif isinstance(value, nn.Module) and id(value) in self._layers:
            self._word(self._layers[id(value)])
        elif id(value) in self._seen:
            self._word(f"again {self._seen[id(value)][0]}")
        elif self._steps > _STEPS or self._depth > _DEPTH:
            self.known = self.written = False
        else:
            self._seen[id(value)] = len(self._seen), value  # kept: another value cannot take its place in memory
            self._depth += 1
            self._compound(value)
            self._depth -= 1

    def _compound(self, value: object) -> None:
        if isinstance(value, Tensor | np.ndarray):
            self._numbers(value)
        elif isinstance(value, Mapping):
            self._all(part for item in value.items() for part in item)
        elif isinstance(value, str | bytes | bytearray):
            self._word(repr(value))
        elif isinstance(value, Set):
            # The order of a set differs from process to process.
            self._all(sorted(hash_of(part, self._layers) for part in value))
        elif isinstance(value, Sequence):
            self._all(value)
        elif isinstance(value, types.ModuleType | np.dtype | np.generic):
            self._word(getattr(value, "__name__", str(value)))
        elif isinstance(value, PurePath | weakref.ref):
            pass  # a file's folder is no part of its content
        elif isinstance(value, nn.Module):  # hidden from torch, perhaps in a list: no state dict has its weights
            inner = Contents(value)
            self.known, self.written = self.known and inner.known, self.written and inner.written
            self._all(part for item in inner.parts.items() for part in item)
        elif callable(value) and isinstance(value, _CODE):
            self._code(value)
        else:
            self._object(value)

    def _all(self, values: Iterable[object]) -> None:
        self._word("(")
        for value in values:
            self.add(value)
        self._word(")")

    def _numbers(self, value: Tensor | Array) -> None:
        self._word(f"{value.dtype} {tuple(value.shape)}")
        if isinstance(value, np.ndarray):
            self._all(value.ravel().tolist()) if value.dtype.hasobject else self.digest.update(value.tobytes())
        elif value.layout is torch.strided and not value.is_quantized and not value.is_meta:
            self.digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        else:
            self.known, self.written = self.known and value.is_meta, self.written and value.is_meta

    def _code(self, value: object) -> None:
        """Add a callable to the hash: its name if it is of a known package, else its code and the values it uses."""
        if isinstance(value, partial):
            self._all((value.func, value.args, value.keywords))
        elif isinstance(value, types.MethodType | types.BuiltinMethodType | types.MethodWrapperType):
            self._word(value.__name__)
            inner = getattr(value, "__func__", None), value.__self__
            self._all([part for part in inner if part is not None and not isinstance(part, types.ModuleType)])
        elif is_known(value) or _is_installed(value):
            self.known, self.written = self.known and is_known(value), self.written and is_known(value)
            self._word(_name(value))
        elif isinstance(value, types.FunctionType):
            self.known = False
            cells = [content_of(cell) for cell in value.__closure__ or ()]
            self._bytecode(value.__code__)
            self._all((value.__defaults__, value.__kwdefaults__, cells))
            read = {name: value.__globals__.get(name) for name in globals_of(value.__code__)}
            self._all([part for name, held in read.items() for part in (name, held if _is_near(held) else None)])
        else:
            self.known = False
            self.written = self.written and isinstance(value, type)
            self._word(_name(value))
            self._all([part for item in sorted(_written(value).items()) for part in item])

    def _bytecode(self, code: types.CodeType) -> None:
        # Neither file name nor line numbers: a cell of a notebook that is run again has others and does the same.
        self._word(code.co_code.hex())
        self._word(" ".join((*code.co_names, *code.co_varnames)))
        for constant in code.co_consts:
            self._bytecode(constant) if isinstance(constant, types.CodeType) else self.add(constant)

    def _object(self, value: object) -> None:
        """Add an object to the hash by its class and attributes; values that it keeps in C are not seen."""
        kind = type(value)
        held = getattr(value, "__dict__", None)
        self.known = self.known and is_known(kind) and isinstance(held, dict)
        self.written = self.written and isinstance(held, dict)
        self._all([kind, held if isinstance(held, dict) else None])
        self._all([getattr(value, name, None) for name in _slots(kind)])

    def _word(self, text: str) -> None:
        data = text.encode("utf-8", "surrogatepass")
        # With its length before it, a word cannot run into the next one: 'ab', 'c' is not 'a', 'bc'.
        self.digest.update(len(data).to_bytes(8, "little") + data)


_CODE = (
    partial, type, types.FunctionType, types.MethodType, types.BuiltinFunctionType, types.MethodWrapperType,
    types.WrapperDescriptorType, types.MethodDescriptorType, np.ufunc,
)  # fmt: skip
_DESCRIPTORS = types.GetSetDescriptorType, types.MemberDescriptorType, types.WrapperDescriptorType


def hash_of(value: object, layers: Mapping[int, str] | None = None) -> str:
    """Return the hash of a value by its content."""
    hashed = _Hash(layers or {})
    hashed.add(value)
    return hashed.digest.hexdigest()


def _name(value: object) -> str:
    home = str(getattr(value, "__module__", ""))
    if home.startswith("tilepipe."):  # moving a file of ours must not change a network's hash
        home = f"tilepipe.models.{home.rpartition('.')[2]}"
    return f"{home}.{getattr(value, '__qualname__', type(value).__qualname__)}"


def _is_installed(code: object) -> bool:
    """Return whether code is of an installed package: its name is enough then, because nobody edits it."""
    file = str(getattr(sys.modules.get(getattr(code, "__module__", None) or ""), "__file__", None) or "")
    return "site-packages" in file or "dist-packages" in file


def _is_near(value: object) -> bool:
    """Return whether a global belongs to the function that reads it: own code, a number or a plain container."""
    return isinstance(value, (*_PLAIN, *_CODE, list, tuple, dict, set, frozenset, Tensor, np.ndarray, nn.Module))


def _written(value: object) -> dict[str, object]:
    """Return the functions and constants that a class's own text defines; a value in C has none."""
    made = ("__module__", "__doc__", "__dict__", "__weakref__", "__firstlineno__", "__static_attributes__")
    held = vars(value) if isinstance(value, type) else {}
    return {key: part for key, part in held.items() if key not in made and not isinstance(part, _DESCRIPTORS)}


def content_of(cell: types.CellType) -> object:
    """Return the value in one of a function's closure cells; None if the cell is still empty."""
    try:
        return cell.cell_contents
    except ValueError:  # the name is bound later
        return None


def globals_of(code: types.CodeType) -> list[str]:
    """Return the global names that a function and its inner functions read."""
    names = {step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names.update(globals_of(constant))
    return sorted(names)


def _slots(kind: type) -> list[str]:
    named = (vars(base).get("__slots__", ()) for base in kind.__mro__)
    listed = [[names] if isinstance(names, str) else list(names) for names in named]
    return [name for names in listed for name in names if name not in ("__dict__", "__weakref__")]
