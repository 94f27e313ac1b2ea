"""A model's `torch.fx` graph with a public name for each of its nodes, traced once per model and forgotten with it."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn

from .eval_mode import in_eval_mode
from .outputs import first_of
from .survey import call_names, enclosing


@dataclass(frozen=True)
class Trace:
    """What tracing leaves behind; it holds no module, so that a cached trace does not keep its model alive.

    Attributes:
        graph: The operations in execution order; module calls name their module by path.
        nodes: Node by every public name: module paths, single calls (`relu:2`), and fx names of all other operations.
        names: Each node's names, the innermost module's first; one fx name for what is no module's output.
        constants: Tensors that the forward made without reading its input, by the name the graph gives them.
        logits: The node of the class scores.
    """

    graph: fx.Graph
    nodes: dict[str, fx.Node]
    names: dict[fx.Node, tuple[str, ...]]
    constants: dict[str, Any]
    logits: fx.Node


class TracedRun(fx.Interpreter):
    """One forward of a model along its traced graph; intermediate values are freed after their last use."""

    def __init__(self, model: nn.Module, trace: Trace):
        super().__init__(model, garbage_collect_values=True, graph=trace.graph)
        self.constants = trace.constants

    def fetch_attr(self, target: str) -> Any:
        """Parameters and buffers come from the model, tracing constants from the trace."""
        return self.constants[target] if target in self.constants else super().fetch_attr(target)


def trace_of(model: nn.Module) -> Trace | None:
    """The trace of `model` in eval mode; None where `torch.fx` cannot follow its forward.

    The model is traced again when modules were added, removed or replaced by others of another type.
    """
    built_as = tuple((path, type(module)) for path, module in model.named_modules())
    known = _TRACES.get(model)
    if known is None or known[0] != built_as:
        known = _TRACES[model] = (built_as, _trace(model))
    return known[1]


_TRACES: weakref.WeakKeyDictionary[nn.Module, tuple[object, Trace | None]] = weakref.WeakKeyDictionary()


class _CallTracer(fx.Tracer):
    """A tracer that notes which node each module call returned, innermost call first."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, fx.Node | None]] = []

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = super().call_module(m, forward, args, kwargs)
        self.calls.append((self.path_of_module(m), result.node if isinstance(result, fx.Proxy) else None))
        return result


def _trace(model: nn.Module) -> Trace | None:
    tracer = _CallTracer()
    with in_eval_mode(model), _attributes_kept(model) as constants:
        try:
            graph = tracer.trace(model)
        except Exception:  # a forward that cannot be traced may raise anything at all
            return None
    # A tensor made in the forward is given to the root as an attribute of the graph's choosing.
    used = {node.target for node in graph.nodes if node.op == "get_attr"}
    logits = first_of(next(iter(reversed(graph.nodes))).args[0], fx.Node)
    if logits is None:
        return None
    nodes, names = _named(graph, tracer.calls, {path for path, _ in model.named_modules()})
    return Trace(graph, nodes, names, {name: constants[name] for name in constants if name in used}, logits)


def _named(
    graph: fx.Graph, calls: list[tuple[str, fx.Node | None]], paths: set[str]
) -> tuple[dict[str, fx.Node], dict[fx.Node, tuple[str, ...]]]:
    """Node by name and names by node; an fx name that is also a module's path gets a suffix, so that neither hides."""
    nodes: dict[str, fx.Node] = {}
    returned_by: dict[fx.Node, list[str]] = {}
    for (path, node), name in zip(calls, call_names([path for path, _ in calls]), strict=True):
        if node is not None and node.op != "placeholder":
            nodes[path] = nodes[name] = node
            returned_by.setdefault(node, []).append(name)
    names: dict[fx.Node, tuple[str, ...]] = {}
    for node in graph.nodes:
        if node in returned_by:
            names[node] = enclosing(returned_by[node])
        elif node.op not in ("placeholder", "output", "get_attr"):
            name = f"{node.name}_function" if node.name in paths else node.name
            names[node], nodes[name] = (name,), node
    return nodes, names


@contextmanager
def _attributes_kept(model: nn.Module) -> Iterator[dict[str, Any]]:
    """Undo what tracing leaves on the modules (proxies that a forward stores, constants); yields the root's own."""
    before = [(module, dict(vars(module))) for module in model.modules()]
    constants: dict[str, Any] = {}
    try:
        yield constants
    finally:
        constants.update({name: value for name, value in vars(model).items() if isinstance(value, Tensor)})
        for module, attributes in before:
            vars(module).clear()
            vars(module).update(attributes)
