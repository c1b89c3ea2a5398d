"""Operation: one operation of a network's graph, with its arguments by name."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch._ops import OpOverload
from torch.fx import Node
from torch.fx.node import map_arg

from tilepipe.inference.banded.rules import Call

FRESH = ("aten.conv", "aten._native_batch_norm", "aten.add", "aten.cat")
"""Operations whose results lie in memory of their own."""


@dataclass(frozen=True)
class Operation:
    """An operation of the graph."""

    name: str
    """Name without package and overload, such as 'conv2d'."""
    given: Mapping[str, Any]
    """Its arguments by name; those that hold rows of the image are nodes."""
    rows: tuple[Node, ...]
    """Nodes that give rows of the image."""
    run: Call
    """Runs the operation; takes the tensors for `rows`."""
    before: tuple[int, ...]
    """Shape of the first of `rows`, in the plane that the graph was made with."""
    after: tuple[int, ...]
    """Shape of the result in that plane; () if it gives more than one tensor."""
    fresh: bool
    """Whether nothing else needs the first of `rows`, so that the result may be written over it."""

    def __getitem__(self, name: str) -> Any:
        """Return an argument."""
        return self.given[name]


def operation_of(node: Node, known: Mapping[Node, object]) -> Operation:
    """Return the operation of a node; `known` has the values that do not depend on the image."""
    outer, item = node, None
    if node.target is operator.getitem:  # one of several results
        maker, item = node.args
        assert isinstance(maker, Node)
        node = maker
    target = node.target
    assert isinstance(target, OpOverload)
    schema = target._schema.arguments
    given: dict[str, Any] = {each.name: each.default_value for each in schema if each.has_default_value()}
    given |= {each.name: value for each, value in zip(schema, node.args, strict=False)} | node.kwargs

    def with_values(value: Any, values: Mapping[Node, Any]) -> Any:
        # torch declares narrower types than it takes.
        return map_arg(value, lambda n: values.get(n, n))

    given = {name: with_values(value, known) for name, value in given.items()}
    rows = tuple(dict.fromkeys(each for each in node.all_input_nodes if each not in known))

    def run(*tensors: Tensor) -> Any:
        values = dict(zip(rows, tensors, strict=True))
        found = target(**{name: with_values(value, values) for name, value in given.items()})
        return found if item is None else found[item]

    name = target._schema.name.removeprefix("aten::") + (f"[{item}]" if item else "")
    return Operation(name, given, rows, run, *_shapes(rows, outer), _fresh(rows))


def _shapes(rows: tuple[Node, ...], node: Node) -> tuple[tuple[int, ...], tuple[int, ...]]:
    before = tuple(rows[0].meta["val"].shape) if rows else ()
    after = node.meta.get("val")
    return before, tuple(after.shape) if isinstance(after, Tensor) else ()


def _fresh(rows: tuple[Node, ...]) -> bool:
    if len(rows) != 1 or len(rows[0].users) != 1:
        return False
    maker = rows[0].args[0] if rows[0].target is operator.getitem else rows[0]
    return isinstance(maker, Node) and str(maker.target).startswith(FRESH)
