"""What was found out about a network holds while the network is unchanged; looking for a change takes no hashing.

A hash of all weights takes longer than a small network takes for a tile. So what is measured is kept with the module,
beside a fingerprint: which layers it has, their settings, and for each tensor its place in memory and torch's count of
its changes. A kept run is always told by the full hash (`identity`).
"""

from __future__ import annotations

import operator
import types
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from tilepipe.models.contents import is_known
from tilepipe.models.identity import held_here

T = TypeVar("T")
_PLAIN = frozenset((bool, int, float, str, type(None)))
_HELD = (dict, list, tuple, set, types.FunctionType)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """What changes if layers, settings, hooks, code or tensors of a module are changed. It holds in this process.

    A change through `tensor.data`, or inside an object of a library, is not seen.
    """

    parts: tuple[Hashable, ...]
    """Layers, their attributes and hooks, the code of classes of the caller's, and the changes of each tensor."""
    tensors: tuple[Tensor | None, ...]
    """Parameters and buffers."""

    def fits(self, other: Fingerprint) -> bool:
        """Return whether another fingerprint is of the same state."""
        return (
            self.parts == other.parts
            and len(self.tensors) == len(other.tensors)
            and all(map(operator.is_, self.tensors, other.tensors))
        )


@dataclass(frozen=True, eq=False)
class _Findings:
    """What has been found about a module in one state."""

    state: Fingerprint
    values: list[object]
    """Settings of the layers. While they are held, no new value can have the address of one that was replaced."""
    found: dict[Hashable, object] = field(default_factory=dict)


_FINDINGS: WeakKeyDictionary[nn.Module, _Findings] = WeakKeyDictionary()


def while_unchanged(module: nn.Module, key: Hashable, find: Callable[[], T]) -> T:
    """Return what `find` has found about a module under `key`; it is called again if the module has changed since.

    What is found must not refer to the module, which would then never be freed.
    """
    held = held_here()
    seen: Fingerprint | None = held.get(("fingerprint", module)) if held is not None else None
    seen = fingerprint(module) if seen is None else seen
    if held is not None:
        held["fingerprint", module] = seen
    kept = _FINDINGS.get(module)
    if kept is None or not kept.state.fits(seen):
        kept = _FINDINGS[module] = _Findings(seen, _settings(module))
    if key not in kept.found:
        found = find()
        # Finding may change a module that counts its calls; what was found of it holds for no other state.
        if not fingerprint(module).fits(seen):
            if held is not None:
                del held["fingerprint", module]
            return found
        kept.found[key] = found
    return kept.found[key]  # type: ignore[return-value]


def fingerprint(module: nn.Module) -> Fingerprint:
    """Return the fingerprint of a module as it is now."""
    parts: list[Hashable] = []
    tensors: list[Tensor | None] = []
    kinds: dict[type, bool] = {}
    for layer in _layers(module):
        kind, held = type(layer), vars(layer)
        # An attribute that is set anew is another object. Asking for identities is what keeps this fast.
        parts += map(id, (kind, layer, *held.values()))
        tensors += (*layer._parameters.values(), *layer._buffers.values())
        for name in _HOOKS:
            if hooks := held.get(name):
                parts.append(tuple(map(id, hooks.values())))
        if kind not in kinds:
            kinds[kind] = is_known(kind)
            if not kinds[kind]:
                parts.extend(_code(kind))
        if not kinds[kind]:
            parts.extend(inner for value in held.values() if isinstance(value, _HELD) for inner in _inside(value, 3))
    # A tensor of inference mode counts no changes.
    parts += [None if tensor is None or tensor.is_inference() else tensor._version for tensor in tensors]
    return Fingerprint(tuple(parts), tuple(tensors))


def _settings(module: nn.Module) -> list[object]:
    """Return the plain values of all layers, and the tuples of such values: the size of a kernel, for example."""
    values = (value for layer in _layers(module) for value in vars(layer).values())
    return [v for v in values if type(v) in _PLAIN or (type(v) is tuple and all(type(part) in _PLAIN for part in v))]


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """Yield a module and all modules in it, each once; `Module.modules` takes longer."""
    left, seen = [module], {id(module)}
    while left:
        layer = left.pop()
        yield layer
        for inner in layer._modules.values():
            if inner is not None and id(inner) not in seen:
                seen.add(id(inner))
                left.append(inner)


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
        yield part if type(part) in _PLAIN else id(part)
        yield from _inside(part, depth - 1)
    yield depth  # where a container ends
