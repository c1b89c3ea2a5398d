"""What was found out about a network holds while the network is unchanged; looking for a change takes no hashing.

A hash of all weights takes longer than a small network takes for a tile. So what is measured is kept with the module,
beside a fingerprint: which layers it has, their settings, and for each tensor its place in memory and torch's count of
its changes. A kept run is always told by the full hash (`identity`).
"""

from __future__ import annotations

import types
from collections.abc import Callable, Hashable, Iterator
from typing import TypeVar
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from tilepipe.models.contents import is_known

T = TypeVar("T")
_PLAIN = (bool, int, float, str, type(None))
_FOUND: WeakKeyDictionary[nn.Module, tuple[int, dict[Hashable, object]]] = WeakKeyDictionary()


def while_unchanged(module: nn.Module, key: Hashable, find: Callable[[], T]) -> T:
    """Return what `find` has found about a module under `key`; it is called again if the module has changed since."""
    seen = fingerprint(module)
    kept = _FOUND.get(module)
    if kept is None or kept[0] != seen:
        kept = (seen, {})
        _FOUND[module] = kept
    if key not in kept[1]:
        found = find()
        # Finding may change a module that counts its calls; what was found of it holds for no other state.
        if fingerprint(module) != seen:
            return found
        kept[1][key] = found
    return kept[1][key]  # type: ignore[return-value]


def fingerprint(module: nn.Module) -> int:
    """Return a number that changes if layers, settings, hooks, code or tensors of a module are changed.

    It holds in this process alone. A change inside an object that is no container, or through `tensor.data`, is not
    seen.
    """
    return hash(tuple(_parts(module)))


def _parts(module: nn.Module) -> Iterator[Hashable]:
    kinds: set[type] = set()
    for layer in module.modules():
        yield id(layer)
        if isinstance(layer, nn.Module) and type(layer) not in kinds:
            kinds.add(type(layer))
            yield from _code(type(layer))
        for name, value in vars(layer).items():
            yield name
            yield from _value(value, 3)


def _code(kind: type) -> Iterator[Hashable]:
    """Yield what tells that a class of the caller's got another method: the code of each."""
    yield id(kind)
    for base in kind.__mro__:
        if not is_known(base):
            yield from (id(part.__code__) for part in vars(base).values() if isinstance(part, types.FunctionType))
    yield id(kind.__call__)
    yield id(getattr(kind, "forward", None))


def _value(value: object, depth: int) -> Iterator[Hashable]:
    if isinstance(value, Tensor):
        yield id(value)
        # A tensor of inference mode counts no changes.
        yield 0 if value.is_inference() else value._version
        yield value.data_ptr() if value.layout.__str__() == "torch.strided" and not value.is_meta else 0
    elif isinstance(value, _PLAIN):
        yield value
    elif isinstance(value, dict | list | tuple | set) and depth:
        yield len(value)
        for part in value.items() if isinstance(value, dict) else value:
            yield from _value(part, depth - 1)
    elif isinstance(value, types.FunctionType):
        yield id(value.__code__)
        yield from (id(cell) for cell in value.__closure__ or ())
    else:
        yield id(value)
