"""Network: a network whose graph is known, ready to be run over planes in bands of rows."""

from __future__ import annotations

import operator
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from tilepipe.inference.banded.lookup import Make, NotBandedError, rule_of
from tilepipe.inference.banded.operation import operation_of
from tilepipe.inference.banded.rules import Rule

SAME = ("clone", "alias", "detach", "contiguous", "dropout", "lift_fresh_copy")
"""Operations that give what they are given."""


@dataclass(frozen=True)
class Step:
    """One operation of the graph."""

    name: str
    """Name of its result in the graph."""
    inputs: tuple[str, ...]
    """Names of the results that it takes rows from."""
    make: Make
    """Makes its rule for one pass."""
    spent: tuple[str, ...]
    """Names of the results that nobody needs after this step."""


class BandedNetwork:
    """A network that computes a plane of any height in bands of rows, each pixel as in one pass over the plane."""

    def __init__(self, steps: tuple[Step, ...], source: str, result: str) -> None:
        """Keep the operations in the order of the graph, and the names of the graph's input and output."""
        self.steps, self.source, self.result = steps, source, result

    def begin(self) -> Pass:
        """Return a pass over a new plane."""
        return Pass(self)


class Pass:
    """A pass over one plane, from its top to its bottom. It keeps what the next band needs."""

    def __init__(self, network: BandedNetwork) -> None:
        self._network = network
        self._rules: list[Rule] = [step.make() for step in network.steps]

    def feed(self, rows: Tensor, *, last: bool = False) -> Tensor | None:
        """Take the next rows (B, bands, n, W) and return the logits of all rows that are complete now, if any.

        `last` says that the plane ends below these rows: then the logits of all other rows are returned.
        """
        network = self._network
        live: dict[str, Tensor | None] = {network.source: rows}
        for step, rule in zip(network.steps, self._rules, strict=True):
            live[step.name] = rule.push([live[name] for name in step.inputs], last)
            for name in step.spent:
                del live[name]
        return live[network.result]


def banded(module: nn.Module, bands: int, side: int) -> BandedNetwork:
    """Return a network in eval mode that computes in bands what `module` computes in one pass.

    Its graph is taken from one tile of `side` x `side` pixels, a multiple of the total stride. Raises `NotBandedError`
    that names the operation in the way.
    """
    weight = next(module.parameters(), torch.empty(0))
    tile = torch.zeros(1, bands, side, side, dtype=weight.dtype, device=weight.device)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            exported = torch.export.export(module, (tile,), strict=False).run_decompositions({})
            graph = exported.module()
    except Exception as problem:  # a stranger's module may do what cannot be exported
        raise NotBandedError(f"torch.export fails: {' '.join(str(problem).split())[:200]}") from problem
    assert isinstance(graph, GraphModule)
    with torch.no_grad():
        network = _compiled(graph)
        _compare(network, module, tile)
    return network


def _compare(network: BandedNetwork, module: nn.Module, tile: Tensor) -> None:
    """Raise `NotBandedError` if bands give something else than the module on a plane of another size than `tile`.

    The graph keeps numbers that Python has computed from the size of its tile; the module computes them anew.
    """
    _, bands, height, width = tile.shape
    drawn = torch.rand((1, bands, 2 * height, 2 * width), generator=torch.Generator().manual_seed(0))
    plane, going = drawn.to(tile), network.begin()
    try:
        parts = [going.feed(rows, last=k == 3) for k, rows in enumerate(plane.chunk(4, 2))]
        found = torch.cat([part for part in parts if part is not None], 2)
        truth = module(plane)
        same = found.shape == truth.shape and bool((found - truth).abs().max() <= 1e-3 * truth.abs().max())
    except RuntimeError:  # shapes that do not fit
        same = False
    if not same:
        raise NotBandedError("a value that depends on the size of the plane")


def _compiled(graph: GraphModule) -> BandedNetwork:
    """Return the graph as steps. Values that do not depend on the image are computed now."""
    _name_unpooling(graph)
    known: dict[Node, object] = {}
    same: dict[Node, Node] = {}  # nodes that give what another node gives
    found: list[tuple[Node, list[Node], Make]] = []
    (source,) = (node for node in graph.graph.nodes if node.op == "placeholder")
    result = source
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            known[node] = _attribute(graph, str(node.target))
        elif node.op == "output":
            results = node.args[0]
            if not (isinstance(results, tuple) and len(results) == 1 and isinstance(results[0], Node)):
                raise NotBandedError("more than one result")
            result = same.get(results[0], results[0])
        elif node.op == "call_function":
            if node.target is operator.getitem and isinstance(of := node.args[0], Node) and of in known:
                known[node] = known[of][node.args[1]]  # type: ignore[index]
            elif all(each in known for each in node.all_input_nodes):
                known[node] = operation_of(node, known).run()
            elif node.users and not _many(node):
                here = operation_of(node, known)
                rows = [same.get(each, each) for each in here.rows]
                if here.name in SAME:
                    same[node] = rows[0]
                    continue
                try:
                    found.append((node, rows, rule_of(here)))
                except NotBandedError as problem:
                    raise NotBandedError(f"{problem}{_place(node)}") from None
    return BandedNetwork(_steps(found, result), source.name, result.name)


def _many(node: Node) -> bool:
    """Return whether an operation gives several tensors; each is an operation of its own then, made from `getitem`."""
    return not isinstance(node.meta.get("val"), Tensor)


def _steps(found: list[tuple[Node, list[Node], Make]], result: Node) -> tuple[Step, ...]:
    last_use = {node: at for at, (_, rows, _) in enumerate(found) for node in rows}
    last_use.pop(result, None)
    return tuple(
        Step(node.name, tuple(each.name for each in rows), make, tuple({n.name for n in rows if last_use.get(n) == at}))
        for at, (node, rows, make) in enumerate(found)
    )


def _attribute(graph: GraphModule, path: str) -> object:
    value: object = graph
    for name in path.split("."):
        value = getattr(value, name)
    return value


def _place(node: Node) -> str:
    """Return ' (layer)' with the name of the layer that made a node; '' if it has none."""
    layers = [path for path, _ in node.meta.get("nn_module_stack", {}).values() if path]
    return f" ({layers[-1]})" if layers else ""


def _name_unpooling(graph: GraphModule) -> None:
    """Put torch's own max-unpooling where a graph scatters values into zeros by the indices of a pooling."""
    aten = torch.ops.aten
    for node in list(graph.graph.nodes):
        if node.target is not aten.view.default or node.args[0].target is not aten.scatter.src:
            continue
        _, _, indices, values = node.args[0].args
        if indices.target is aten.view.default and values.target is aten.view.default:
            with graph.graph.inserting_before(node):
                size = list(node.meta["val"].shape[2:])
                named = graph.graph.call_function(aten.max_unpool2d.default, (values.args[0], indices.args[0], size))
            named.meta = dict(node.meta)
            node.replace_all_uses_with(named)
    graph.graph.eliminate_dead_code()
