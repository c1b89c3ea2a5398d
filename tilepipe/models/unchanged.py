"""What was found out about a network holds while the network is unchanged; looking for a change takes no hashing.

A hash of all weights takes longer than a small network takes for a tile. So what is measured is kept with the module,
beside a fingerprint: which layers it has, their settings, and for each tensor its place in memory and torch's count of
its changes. A kept run is always told by the full hash (`identity`).
"""

from __future__ import annotations

import types
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from tilepipe.models.contents import is_known
from tilepipe.models.identity import held_here

T = TypeVar("T")
_PLAIN = (bool, int, float, str, type(None))
_HELD = (dict, list, tuple, set, types.FunctionType)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_FOUND: WeakKeyDictionary[nn.Module, tuple[int, dict[Hashable, object]]] = WeakKeyDictionary()


def while_unchanged(module: nn.Module, key: Hashable, find: Callable[[], T]) -> T:
    """Return what `find` has found about a module under `key`; it is called again if the module has changed since."""
    held = held_here()
    seen = held.get(("fingerprint", module)) if held is not None else None
    seen = fingerprint(module) if seen is None else seen
    if held is not None:
        held["fingerprint", module] = seen
    kept = _FOUND.get(module)
    if kept is None or kept[0] != seen:
        kept = (seen, {})
        _FOUND[module] = kept
    if key not in kept[1]:
        found = find()
        # Finding may change a module that counts its calls; what was found of it holds for no other state.
        if fingerprint(module) != seen:
            if held is not None:
                del held["fingerprint", module]
            return found
        kept[1][key] = found
    return kept[1][key]  # type: ignore[return-value]


def fingerprint(module: nn.Module) -> int:
    """Return a number that changes if layers, settings, hooks, code or tensors of a module are changed.

    It holds in this process alone. A change through `tensor.data`, or inside an object of a library, is not seen.
    """
    parts: list[Hashable] = []
    kinds: dict[type, bool] = {}
    for layer in module.modules():
        kind, held = type(layer), vars(layer)
        # An attribute that is set anew is another object. Asking for identities is what keeps this fast.
        parts.append((id(layer), *map(id, held.values())))
        for tensors in (layer._parameters, layer._buffers):
            parts.extend(map(_state, tensors.values()))
        for name in _HOOKS:
            if hooks := held.get(name):
                parts.append(tuple(map(id, hooks.values())))
        if kind not in kinds:
            kinds[kind] = is_known(kind)
            if not kinds[kind]:
                parts.extend(_code(kind))
        if not kinds[kind]:
            parts.extend(inner for value in held.values() if isinstance(value, _HELD) for inner in _inside(value, 3))
    return hash(tuple(parts))


def _state(tensor: Tensor | None) -> Hashable:
    if tensor is None or tensor.is_inference():  # a tensor of inference mode counts no changes
        return id(tensor)
    return id(tensor), tensor._version


def _code(kind: type) -> Iterator[Hashable]:
    """Yield the code of each method of a class of the caller's."""
    for base in kind.__mro__:
        if not is_known(base):
            yield from (id(part.__code__) for part in vars(base).values() if isinstance(part, types.FunctionType))


def _inside(value: object, depth: int) -> Iterator[Hashable]:
    """Yield what a container of the caller's holds, and the code of a function."""
    parts: Iterable[object] = ()
    if isinstance(value, types.FunctionType):
        yield id(value.__code__)
    elif isinstance(value, dict):
        parts = (part for item in list(value.items()) for part in item)
    elif isinstance(value, list | tuple | set):
        parts = list(value)
    for part in parts if depth else ():
        yield part if isinstance(part, _PLAIN) else id(part)
        yield from _inside(part, depth - 1)
    yield depth  # where a container ends
