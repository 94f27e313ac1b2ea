"""Walks a traced network backwards and applies a rule of relevance at each of its operations.

What has no rule (concatenation, attention, products of maps) is refused by name before anything runs.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, fx, nn

from ...errors import ModelError
from ..layers.fx_trace import Trace, TracedRun, trace_of
from .rules import (
    RuleOptions,
    conv_relevance,
    factorised_relevance,
    flattened_relevance,
    linear_relevance,
    normalised,
    pixel_relevance,
    propagate,
    pull_back,
    split_sum,
    start_relevance,
)

PASS = (nn.Dropout, nn.Dropout2d, nn.Identity)
SHARE = (nn.ReLU, nn.ReLU6, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
SHARE_CALLS = {
    F.relu, F.relu6, torch.relu, F.max_pool2d, torch.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, torch.mean, "relu", "mean",
}  # fmt: skip
SUMS = {operator.add, operator.iadd, torch.add}
PASS_CALLS = {F.dropout}
UNIT_CALLS = {F.normalize}
"""As batch norm: relevance passes, the gradient goes through."""
RESHAPES = {torch.flatten, "flatten", "view", "reshape"}
Start = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Of features `(batch, width)` their relevance and gradient."""
KNOWN = "convolutions, batch norms, ReLUs, pools, means, sums, flattening and linear layers"


@dataclass(eq=False)
class Walk:
    """Relevance and gradients at the nodes of a graph, and what the forward pass left there."""

    model: nn.Module
    trace: Trace
    options: RuleOptions
    values: dict[fx.Node, Tensor]
    relevances: dict[fx.Node, list[Tensor]] = field(default_factory=dict)
    gradients: dict[fx.Node, list[Tensor]] = field(default_factory=dict)

    def give(self, node: fx.Node, relevance: Tensor, gradient: Tensor) -> None:
        """What one of the node's readers gives back to it."""
        self.relevances.setdefault(node, []).append(relevance)
        self.gradients.setdefault(node, []).append(gradient)

    def taken(self, node: fx.Node) -> tuple[Tensor, Tensor]:
        """What all readers gave: the sum, where a value that several read is not 0."""
        relevances, gradients = self.relevances.pop(node), self.gradients.pop(node)
        if len(relevances) == 1:
            return relevances[0], gradients[0]
        return sum(relevances[1:], relevances[0]) * (self.values[node] != 0), sum(gradients[1:], gradients[0])


class _KeptRun(TracedRun):
    """A forward pass that keeps every value; operations that would overwrite their input get a copy."""

    def __init__(self, model: nn.Module, trace: Trace):
        super().__init__(model, trace)
        self.values: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        self.values[n] = super().run_node(n)
        return self.values[n]

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        if getattr(self.fetch_attr(target), "inplace", False):
            args = (args[0].clone(), *args[1:])
        return super().call_module(target, args, kwargs)

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if kwargs.get("inplace"):
            args = (args[0].clone(), *args[1:])
        return super().call_function(operator.add if target is operator.iadd else target, args, kwargs)


def signed_relevance(
    model: nn.Module,
    images: Float[Tensor, "batch channel height width"],
    options: RuleOptions,
    start: Start,
) -> Float[Tensor, "batch height width"]:
    """AGF's map: positive for the target, negative against it; over the largest absolute value of an image's three channels.

    Args:
        model: In eval mode, and one that `check_walk` lets pass.
        images: In network-input space.
        options: Terms and normalisation.
        start: Of what the last linear layer is given, or of the features of a model without one, the relevance and the gradient there.
    """
    trace = check_walk(model, with_classifier=False)
    run = _KeptRun(model, trace)
    with torch.no_grad():
        run.run(images)
    walk = Walk(model, trace, options, run.values)
    source = features_node(model, trace)
    walk.give(source, *start(walk.values[source]))
    nodes = list(trace.graph.nodes)
    for node in reversed(nodes):
        if node in walk.relevances and node.op != "placeholder":
            _step(walk, node)
    [pixels] = [walk.relevances[node][0] for node in nodes if node.op == "placeholder" and node in walk.relevances]
    return normalised(pixels, signed_maximum=options.signed_maximum).sum(1).detach()


def check_walk(model: nn.Module, *, with_classifier: bool) -> Trace:
    """The trace of a model that relevance can be carried through.

    Args:
        model: What is explained.
        with_classifier: It must end in a linear layer of two or more classes.

    Raises:
        ModelError: Naming the operation that has no rule.
    """
    trace = trace_of(model)
    if trace is None:
        raise ModelError(
            "agf carries relevance along the network's graph, and torch.fx cannot trace this model; use grad_cam or sise"
        )
    on_the_way = _ancestors(trace.logits if with_classifier else features_node(model, trace))
    for node in trace.graph.nodes:
        if node in on_the_way and not _has_rule(model, node):
            raise ModelError(
                f"agf has no rule for {_named(model, node)}; it knows {KNOWN}: use grad_cam or sise for this model"
            )
    last = _module(model, trace.logits)
    if with_classifier and not isinstance(last, nn.Linear):
        raise ModelError(f"agf starts at a linear layer, but the logits come from {_named(model, trace.logits)}")
    if with_classifier and isinstance(last, nn.Linear) and last.out_features < 2:
        raise ModelError(
            "agf starts at the target's share among the classes, and the model has one logit, whose share is always 1; "
            "use grad_cam or sise, or give it a second class"
        )
    return trace


def features_node(model: nn.Module, trace: Trace) -> fx.Node:
    """What the last linear layer is given, where the model returns what such a layer says; else what it returns."""
    return _inputs(trace.logits)[0] if isinstance(_module(model, trace.logits), nn.Linear) else trace.logits


def class_start(model: nn.Module, targets: Int[Tensor, " batch"]) -> Start:
    """At the model's own last layer, for a class of each image."""
    layer = _module(model, check_walk(model, with_classifier=True).logits)
    if layer is None:
        raise ModelError("agf starts at a linear layer, and the model has none")
    return lambda features: start_relevance(layer, features, targets)


def _step(walk: Walk, node: fx.Node) -> None:
    relevance, gradient = walk.taken(node)
    inputs, module = _inputs(node), _module(walk.model, node)
    if node.op == "get_attr" or not inputs:
        return
    source = inputs[0]
    values = walk.values[source]
    if node.target in SUMS:
        first, second = (walk.values[each] for each in inputs)
        for each, part in zip(inputs, split_sum(first, second, relevance), strict=True):
            walk.give(each, part, gradient)
    elif isinstance(module, nn.Conv2d):
        walk.give(source, *_through_conv(walk, node, module, values, relevance, gradient))
    elif isinstance(module, nn.BatchNorm2d):
        walk.give(source, relevance, pull_back(module, values, gradient)[0])
    elif isinstance(module, nn.Linear):
        contribution, pulled = linear_relevance(module, values, relevance), gradient @ module.weight
        if (maps := _flattened_maps(walk, source)) is not None:
            contribution = flattened_relevance(contribution, maps, pulled, walk.options)
        walk.give(source, contribution, pulled)
    elif isinstance(module, PASS) or node.target in PASS_CALLS:
        walk.give(source, relevance, gradient)
    elif node.target in UNIT_CALLS:
        walk.give(source, relevance, pull_back(_layer_of(walk.model, node), values, gradient)[0])
    elif isinstance(module, nn.Flatten) or node.target in RESHAPES:
        walk.give(source, relevance.reshape(values.shape), gradient.reshape(values.shape))
    else:
        layer = _layer_of(walk.model, node)
        walk.give(source, propagate(layer, values, relevance), pull_back(layer, values, gradient)[0])


def _through_conv(
    walk: Walk, node: fx.Node, layer: nn.Conv2d, values: Tensor, relevance: Tensor, gradient: Tensor
) -> tuple[Tensor, Tensor]:
    if _inputs(node)[0].op == "placeholder":
        return pixel_relevance(layer, values, relevance), torch.zeros_like(values)
    if _is_flat(walk.model, node, layer):
        return conv_relevance(layer, values, relevance), pull_back(layer, values, gradient)[0]
    return factorised_relevance(layer, values, relevance, gradient, walk.options)


def _is_flat(model: nn.Module, node: fx.Node, layer: nn.Conv2d) -> bool:
    """Without residual: 1x1 convolutions, and those whose output goes into a sum, batch norm apart.

    In a ResNet these are the released code's own: a Bottleneck's first and third, a BasicBlock's second, and the shortcut's.
    """
    if tuple(layer.kernel_size) == (1, 1):
        return True
    readers = list(node.users)
    while len(readers) == 1 and isinstance(_module(model, readers[0]), nn.BatchNorm2d | nn.Identity):
        readers = list(readers[0].users)
    return any(reader.target in SUMS for reader in readers)


def _flattened_maps(walk: Walk, source: fx.Node) -> Tensor | None:
    """The maps that a linear layer reads flattened, dropout apart; None where they have one pixel."""
    node = source
    while isinstance(_module(walk.model, node), PASS) or node.target in PASS_CALLS:
        node = _inputs(node)[0]
    if not (isinstance(_module(walk.model, node), nn.Flatten) or node.target in RESHAPES):
        return None
    maps = walk.values[_inputs(node)[0]]
    return maps if maps.ndim == 4 and maps.shape[2] * maps.shape[3] > 1 else None


def _layer_of(model: nn.Module, node: fx.Node) -> Any:
    """The operation as a function of its first input, which it leaves alone."""
    module = _module(model, node)
    if module is not None:
        return lambda values: module(values.clone() if getattr(module, "inplace", False) else values)
    rest, named = node.args[1:], {name: value for name, value in node.kwargs.items() if name != "inplace"}
    if node.op == "call_method":
        return lambda values: getattr(values, str(node.target))(*rest, **named)
    return lambda values: node.target(values, *rest, **named)  # pyright: ignore[reportCallIssue]


def _has_rule(model: nn.Module, node: fx.Node) -> bool:
    module = _module(model, node)
    if node.op == "placeholder":
        return all(isinstance(_module(model, reader), nn.Conv2d) for reader in node.users)
    if isinstance(module, nn.Conv2d):
        return module.padding_mode == "zeros"
    if module is not None:
        return isinstance(module, (nn.BatchNorm2d, nn.Linear, nn.Flatten, *PASS, *SHARE))
    if node.target in SUMS:
        return len(_inputs(node)) == 2
    if node.op in ("call_function", "call_method") and len(_inputs(node)) == 1:
        return node.target in SHARE_CALLS | PASS_CALLS | UNIT_CALLS | RESHAPES
    return False


def _module(model: nn.Module, node: fx.Node) -> nn.Module | None:
    return model.get_submodule(str(node.target)) if node.op == "call_module" else None


def _inputs(node: fx.Node) -> list[fx.Node]:
    return [each for each in node.args if isinstance(each, fx.Node)]


def _ancestors(node: fx.Node) -> set[fx.Node]:
    seen, waiting = {node}, [node]
    while waiting:
        for each in waiting.pop().all_input_nodes:
            if each not in seen:
                seen.add(each)
                waiting.append(each)
    return seen


def _named(model: nn.Module, node: fx.Node) -> str:
    module = _module(model, node)
    if node.op == "placeholder":
        return "an input that something else than a convolution reads"
    kind = (
        str(getattr(node.target, "__name__", node.target))
        if module is None
        else f"{type(module).__name__} {node.target!r}"
    )
    return f"the operation {kind}"
