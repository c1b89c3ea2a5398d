"""Copying: a caller's module is copied in eval mode, in float32, on the CPU; copy and original share no tensor.

`copy.deepcopy` alone would first double the weights on the caller's device. It fails if an attribute is a session or a
lock. It also leaves functions as they are: a replaced `forward` or a hook would go on calling the caller's module.
"""

from __future__ import annotations

import copy
import types
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from tilepipe.errors import ModelError
from tilepipe.models.contents import content_of, globals_of

_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_DEPTH = 8
Copies = dict[int, object]
"""Replacement of each object in the copy, by the object's id."""


def own_copy(module: nn.Module) -> nn.Module:
    """Return a copy of a module in eval mode, in float32 on the CPU. Raises `ModelError` as `copied` does."""
    return copied(module).to("cpu", torch.float32).eval()


def copied(module: nn.Module) -> nn.Module:
    """Return a copy of a module with its tensors in float32 on the CPU; the module stays as it is.

    Objects that cannot be copied (a session, an open file) are shared. Raises `ModelError` for parameters without
    values.
    """
    missing = [name for name, tensor in module.named_parameters() if tensor.is_meta or is_lazy(tensor)]
    if missing:
        raise ModelError(f"parameter {missing[0]!r} of the module has no values yet; load its weights first")
    copies: Copies = _tensors(module)
    try:
        mine: nn.Module = copy.deepcopy(module, copies)
    except Exception:  # an attribute of an unknown module may raise anything
        # New copies of the tensors: the attempt that failed has left half of a copy in its memo. What is in the memo is
        # taken as it is, so the objects named here are shared.
        copies = _tensors(module) | {id(value): value for value in _uncopyable(module)}
        try:
            mine = copy.deepcopy(module, copies)
        except Exception as error:
            raise ModelError(
                f"a {type(module).__name__} cannot be copied ({type(error).__name__}: {error}), and tilepipe does not "
                "change the module that it is given; give it a __deepcopy__"
            ) from None
    _rebind(mine, copies)
    return mine


def _tensors(module: nn.Module) -> Copies:
    """Return copies of all tensors of a module on the CPU by the tensor's id; floating types become float32."""
    copies: Copies = {}
    for layer in module.modules():
        if isinstance(layer, torch.jit.ScriptModule):
            continue
        # deepcopy refuses tensors that were computed with gradients.
        plain = [value for value in vars(layer).values() if type(value) is Tensor and not value.is_leaf]
        for tensor in (*layer._parameters.values(), *layer._buffers.values(), *plain):
            # Subclasses may hold more than numbers; they are left to deepcopy.
            if type(tensor) is nn.Parameter:
                copies[id(tensor)] = nn.Parameter(_moved(tensor), tensor.requires_grad)
            elif type(tensor) is Tensor:
                copies[id(tensor)] = _moved(tensor)
    return copies


def _moved(tensor: Tensor) -> Tensor:
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    return tensor.detach().to("cpu", dtype, copy=True)


def _uncopyable(module: nn.Module) -> Iterator[object]:
    """Yield the objects in a module that Python cannot copy."""
    layers = {id(layer) for layer in module.modules()}
    for layer in module.modules():
        hooks = [hook for name in _HOOKS for hook in getattr(layer, name).values()]
        held = [value for name, value in vars(layer).items() if name not in ("_parameters", "_buffers", "_modules")]
        for value in (*held, *hooks):
            yield from _leaves(value, layers, 0)


def _leaves(value: object, layers: set[int], depth: int) -> Iterator[object]:
    """Yield the innermost parts of a value that cannot be copied."""
    if id(value) in layers:
        return
    try:
        copy.deepcopy(value)
    except Exception:  # an unknown object may raise anything
        parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple | set) else ()
        parts = [*parts, *getattr(value, "__dict__", {}).values()]
        inner = [leaf for part in parts for leaf in _leaves(part, layers, depth + 1)] if depth < _DEPTH else []
        yield from inner or [value]


def _rebind(mine: nn.Module, copies: Copies) -> None:
    """Make functions in a copy call the copy instead of the original module."""
    rebinding = _Rebinding(copies)
    for layer in mine.modules():
        if isinstance(layer, torch.jit.ScriptModule):
            continue
        for held in (vars(layer), *(getattr(layer, name) for name in _HOOKS)):
            for name, value in list(held.items()):
                if (other := rebinding.of(value)) is not value:
                    held[name] = other


class _Rebinding:
    """Rebuilds values that refer to the originals so that they refer to the copies."""

    def __init__(self, copies: Copies) -> None:
        self._copies = copies
        self._above: list[int] = []
        self._ways: list[tuple[type, Callable[[Any], object]]] = [
            (types.FunctionType, self._function),
            (types.MethodType, self._method),
            (partial, self._partial),
            (list, self._items),
            (tuple, self._items),
            (dict, self._dict),
        ]

    def of(self, value: Any) -> Any:
        """Return a value that refers to the copies; the value itself if it refers to no original."""
        if isinstance(value, nn.Module):
            return self._copies.get(id(value), value)
        way = next((way for kind, way in self._ways if type(value) is kind), None)
        # A list may hold itself, and a function may read itself as a global.
        if way is None or id(value) in self._above or len(self._above) > _DEPTH:
            return value
        self._above.append(id(value))
        try:
            return way(value)
        finally:
            self._above.pop()

    def _method(self, value: types.MethodType) -> types.MethodType:
        owner = self.of(value.__self__)
        return value if owner is value.__self__ else types.MethodType(value.__func__, owner)

    def _partial(self, value: partial[object]) -> partial[object]:
        func, args, keywords = self.of(value.func), self.of(value.args), self.of(value.keywords)
        same = func is value.func and args is value.args and keywords is value.keywords
        return value if same else partial(func, *args, **keywords)

    def _items(self, value: list[object] | tuple[object, ...]) -> object:
        parts = [self.of(part) for part in value]
        return value if all(a is b for a, b in zip(parts, value, strict=True)) else type(value)(parts)

    def _dict(self, value: dict[object, object]) -> dict[object, object]:
        items = {key: self.of(part) for key, part in value.items()}
        return value if all(items[key] is part for key, part in value.items()) else items

    def _function(self, value: types.FunctionType) -> types.FunctionType:
        cells = value.__closure__ or ()
        inside = [content_of(cell) for cell in cells]
        closed = [self.of(part) for part in inside]
        read = {name: value.__globals__[name] for name in globals_of(value.__code__) if name in value.__globals__}
        changed = {name: other for name, part in read.items() if (other := self.of(part)) is not part}
        defaults, keywords = self.of(value.__defaults__), self.of(value.__kwdefaults__)
        same = all(a is b for a, b in zip(inside, closed, strict=True))
        if same and not changed and defaults is value.__defaults__ and keywords is value.__kwdefaults__:
            return value
        names = {**value.__globals__, **changed} if changed else value.__globals__
        pairs = zip(cells, inside, closed, strict=True)
        closure = tuple(cell if a is b else types.CellType(b) for cell, a, b in pairs)
        made = types.FunctionType(value.__code__, names, value.__name__, defaults, closure or None)
        made.__kwdefaults__, made.__qualname__, made.__module__ = keywords, value.__qualname__, value.__module__
        return made
