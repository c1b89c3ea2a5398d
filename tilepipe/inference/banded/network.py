"""Network: a network whose graph is known, ready to be run over planes in bands of rows."""

from __future__ import annotations

import math
import operator
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from tilepipe.box import Box
from tilepipe.heap import give_back
from tilepipe.inference.banded.held import Held, Marked, Under
from tilepipe.inference.banded.lookup import Make, NotBandedError, rule_of
from tilepipe.inference.banded.operation import operation_of
from tilepipe.inference.banded.rows import ROWS
from tilepipe.inference.banded.rules import Rule
from tilepipe.inference.device import Compute
from tilepipe.inference.statistics.held import made_up
from tilepipe.models.identity import model_identity
from tilepipe.models.model import Model
from tilepipe.models.precision import on_device
from tilepipe.tiling.statistics_grid import Statistics

SAME = ("clone", "alias", "detach", "contiguous", "dropout", "lift_fresh_copy")
"""Operations that give what they are given."""
SIDE = 64
"""Least side of the tile whose graph is taken (pixels)."""
MOST = 4
"""Largest number of networks that a process keeps."""


@dataclass(frozen=True)
class Step:
    """One operation of the graph."""

    name: str
    """Name of its result in the graph."""
    inputs: tuple[str, ...]
    """Names of the results that it takes rows from."""
    make: Make
    """Makes its rule for one pass."""
    share: float
    """Rows of its result per row of the plane."""
    spent: tuple[str, ...]
    """Names of the results that nobody needs after this step."""


class BandedNetwork:
    """A network that computes a plane of any height in bands of rows, each pixel as in one pass over the plane."""

    def __init__(self, steps: tuple[Step, ...], source: str, result: str) -> None:
        """Keep the operations in the order of the graph, and the names of the graph's input and output."""
        self.steps, self.source, self.result = steps, source, result

    def begin(self, under: Under | None = None) -> Pass:
        """Return a pass over a new plane; `under` gives its statistics, if the network holds some fixed."""
        return Pass(self, under)

    def going_on(self, rules: list[Rule], band: int) -> Pass:
        """Return a pass that goes on where another one has left these rules, with bands of `band` rows."""
        made = Pass(self, None, rules)
        made.band = band
        return made


class Pass:
    """A pass over one plane, from its top to its bottom. It keeps what the next band needs."""

    def __init__(self, network: BandedNetwork, under: Under | None, rules: list[Rule] | None = None) -> None:
        self._network = network
        self.rules = rules or [step.make() for step in network.steps]
        """Rules of the steps, with the rows that they keep."""
        self.band = 0
        """Rows of a band; 0 before the first."""
        for step, rule in zip(network.steps, self.rules, strict=True):
            if isinstance(rule, Held) and under:
                rule.begin(under, round(1 / step.share))

    def feed(self, rows: Tensor, *, last: bool = False) -> Tensor | None:
        """Take the next rows (B, bands, n, W) and return the logits of all rows that are complete now, if any.

        `last` says that the plane ends below these rows: then the logits of all other rows are returned.
        """
        parts = list(self.parts(rows, last=last))
        return torch.cat(parts, ROWS) if len(parts) > 1 else next(iter(parts), None)

    def parts(self, rows: Tensor, *, last: bool = False) -> Iterator[Tensor]:
        """Take the next rows as `feed` does, and yield the logits in parts; each part is computed when it is asked for.

        At the end of a plane, rows that have waited become complete all at once. They go on through the network in
        parts of about a band, so that the end takes no more memory than the bands before it.
        """
        network, live, left = self._network, dict[str, Tensor | None](), dict[str, Tensor]()
        self.band = self.band or rows.shape[ROWS]
        live[network.source], ended = rows, {network.source} if last else set[str]()
        flushed = set[str]()
        while True:
            for step, rule in zip(network.steps, self.rules, strict=True):
                made = None
                if step.name not in flushed:
                    over = all(name in ended for name in step.inputs)
                    made = rule.push([live.get(name) for name in step.inputs], over)
                    flushed.update({step.name} if over else ())
                if last:
                    made = self._cut(step, made, left)
                    if step.name in flushed and step.name not in left:
                        ended.add(step.name)
                live[step.name] = made
                for name in step.spent:
                    live.pop(name, None)
            found = live.pop(network.result, None)
            if found is not None:
                yield found
            if not last or network.result in ended:
                return
            live.clear()

    def _cut(self, step: Step, made: Tensor | None, left: dict[str, Tensor]) -> Tensor | None:
        """Return as many rows of a step's result as a band has there; `left` keeps the others, by step."""
        most = max(1, round(self.band * step.share))
        waiting = left.pop(step.name, None)
        if waiting is not None:
            made = waiting if made is None else torch.cat([waiting, made], ROWS)
        if made is not None and made.shape[ROWS] > most:
            # Copies, since a view of a few rows keeps all of them in memory.
            left[step.name], made = made[:, :, most:].clone(), made[:, :, :most].clone()
        return made


_KEPT: OrderedDict[tuple[object, ...], BandedNetwork | NotBandedError] = OrderedDict()
"""Networks of this process, the last ones used; torch takes seconds to export one."""


def banded_of(model: Model, stride: int, compute: Compute, statistics: Statistics | None = None) -> BandedNetwork:
    """Return the network of a model in bands, on a device in a precision; made once in a process.

    With `statistics`, those of norms and poolings over the whole image are held fixed. Raises `NotBandedError`, which
    names the operation in the way.
    """
    # The key has the weights in it, since a module may be trained further.
    key = (model_identity(model, compute.device, compute.precision), compute.precision, stride, statistics)
    if key not in _KEPT:
        module = on_device(model.module, torch.device(compute.device), compute.precision)
        try:
            _KEPT[key] = banded(module, model.card.bands, math.lcm(stride, SIDE), statistics)
        except NotBandedError as problem:
            _KEPT[key] = problem
        give_back()  # finding the operations took much memory
    _KEPT.move_to_end(key)
    while len(_KEPT) > MOST:
        _KEPT.popitem(last=False)
    found = _KEPT[key]
    if isinstance(found, NotBandedError):
        raise found
    return found


def banded(module: nn.Module, bands: int, side: int, statistics: Statistics | None = None) -> BandedNetwork:
    """Return a network in eval mode that computes in bands what `module` computes in one pass.

    Its graph is taken from one tile of `side` x `side` pixels, a multiple of the total stride. Raises `NotBandedError`
    that names the operation in the way.
    """
    weight = next(module.parameters(), torch.empty(0))
    tile = torch.zeros(1, bands, side, side, dtype=weight.dtype, device=weight.device)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            whole = module if statistics is None else Marked(module)
            exported = torch.export.export(whole, (tile,), strict=False).run_decompositions({})
            graph = exported.module()
    except Exception as problem:  # a stranger's module may do what cannot be exported
        raise NotBandedError(f"torch.export fails: {' '.join(str(problem).split())[:200]}") from problem
    assert isinstance(graph, GraphModule)
    with torch.no_grad():
        network = _compiled(graph)
        _compare(network, module, tile, statistics)
    return network


def _compare(network: BandedNetwork, module: nn.Module, tile: Tensor, statistics: Statistics | None) -> None:
    """Raise `NotBandedError` if bands give something else than the module on a plane of another size than `tile`.

    The graph keeps numbers that Python has computed from the size of its tile; the module computes them anew.
    """
    _, bands, height, width = tile.shape
    drawn = torch.rand((1, bands, 2 * height, 2 * width), generator=torch.Generator().manual_seed(0))
    plane, place = drawn.to(tile), Box(0, 0, 2 * height, 2 * width)
    try:
        fixed = made_up(module, plane, statistics, height) if statistics else None
        going = network.begin(fixed.rows(2 * width) if fixed else None)
        parts = [going.feed(rows, last=k == 3) for k, rows in enumerate(plane.chunk(4, 2))]
        found = torch.cat([part for part in parts if part is not None], 2)
        with fixed.under([place]) if fixed else nullcontext():
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
                if here.name in SAME or (here.name == "expand" and here.before == here.after):
                    same[node] = rows[0]
                    continue
                try:
                    found.append((node, rows, rule_of(here)))
                except NotBandedError as problem:
                    raise NotBandedError(f"{problem}{_place(node)}") from None
    return BandedNetwork(_steps(found, result, _rows_of(source)), source.name, result.name)


def _many(node: Node) -> bool:
    """Return whether an operation gives several tensors; each is an operation of its own then, made from `getitem`."""
    return not isinstance(node.meta.get("val"), Tensor)


def _steps(found: list[tuple[Node, list[Node], Make]], result: Node, rows: int) -> tuple[Step, ...]:
    last_use = {node: at for at, (_, inputs, _) in enumerate(found) for node in inputs}
    last_use.pop(result, None)
    return tuple(
        Step(
            node.name,
            tuple(each.name for each in inputs),
            make,
            _rows_of(node) / rows,
            tuple({n.name for n in inputs if last_use.get(n) == at}),
        )
        for at, (node, inputs, make) in enumerate(found)
    )


def _rows_of(node: Node) -> int:
    """Return the rows of a result in the plane that the graph was made with."""
    return int(node.meta["val"].shape[ROWS])


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
