"""Surveys a model along its traced graph: shapes from one forward, the ways through it from the graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from .dominators import Flow, crossed_by_all, leading_to, reached_from
from .fx_trace import Trace, TracedRun
from .outputs import logits_of
from .survey import PASSES_ON, FeatureMap, Survey, has_weights, is_depthwise, map_shape


def traced_survey(model: nn.Module, trace: Trace, images: Tensor) -> Survey:
    """Run `images` along the trace and describe every map that it makes.

    Args:
        model: The traced model, in eval mode.
        trace: Its trace.
        images: `(batch, channel, height, width)`, one image is enough.

    Raises:
        Exception: Whatever the model raises for these images.
    """
    run = _ShapeRun(model, trace)
    with torch.no_grad():
        output = run.run(images)
    shapes = run.shapes
    flow = _flow(trace, shapes)
    modules = dict(model.named_modules())
    matrices = {name for name, parameter in model.named_parameters(remove_duplicate=False) if parameter.ndim > 1}
    weighted = {node for node in flow.inputs if _is_weighted(node, modules, matrices)}
    kernels = {name: parameter.shape for name, parameter in model.named_parameters(remove_duplicate=False)}
    crossed, learned = crossed_by_all(flow), reached_from(flow, weighted)
    weighed_later = leading_to(flow, weighted)
    axes = _channel_axes(flow, shapes)
    classes = logits_of(output).shape[1]

    maps: dict[fx.Node, FeatureMap] = {}
    for node in flow.inputs:
        shape = shapes[node]
        map_size = map_shape(shape, axes[node]) if shape is not None and node in trace.names else None
        if shape is None or map_size is None or shape[0] != images.shape[0]:
            continue
        channels, size = map_size
        in_head = node not in weighed_later and channels == classes
        maps[node] = FeatureMap(
            names=trace.names[node],
            channels=channels,
            size=size,
            channel_axis=axes[node],
            crossed=node in crossed,
            feature=node in learned and not in_head and not PASSES_ON.search(_operation(node, modules)),
            depthwise=is_depthwise(_module(node, modules)) or _is_depthwise_call(node, kernels),
        )
    return Survey(tuple(maps.values()), {name: maps[node] for name, node in trace.nodes.items() if node in maps})


class _ShapeRun(TracedRun):
    """A traced run that notes the shape of every tensor, and which other values hold tensors."""

    def __init__(self, model: nn.Module, trace: Trace):
        super().__init__(model, trace)
        self.shapes: dict[fx.Node, torch.Size | None] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.shapes[n] = value.shape
        elif any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(value)):
            self.shapes[n] = None
        return value


def _flow(trace: Trace, shapes: dict[fx.Node, torch.Size | None]) -> Flow[fx.Node]:
    """The graph of tensors alone: sizes read from a tensor carry no signal, and would seem to bypass layers."""
    inputs = {node: [read for read in node.all_input_nodes if read in shapes] for node in shapes}
    source = next(node for node in trace.graph.nodes if node.op == "placeholder")
    return Flow(inputs, source, trace.logits)


def _module(node: fx.Node, modules: dict[str, nn.Module]) -> nn.Module | None:
    return modules[str(node.target)] if node.op == "call_module" else None


def _operation(node: fx.Node, modules: dict[str, nn.Module]) -> str:
    """The name of what the node does: a module's class, or a function's or method's name."""
    module = _module(node, modules)
    if module is not None:
        return type(module).__name__
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")


def _is_weighted(node: fx.Node, modules: dict[str, nn.Module], matrices: set[str]) -> bool:
    """Whether the node applies a kernel or a matrix: its module's, or a parameter that a function reads from the model."""
    module = _module(node, modules)
    if module is not None:
        return has_weights(module)
    return any(source.op == "get_attr" and source.target in matrices for source in node.all_input_nodes)


def _is_depthwise_call(node: fx.Node, kernels: dict[str, torch.Size]) -> bool:
    """Whether a function convolves each channel on its own: a kernel of one input channel in as many groups as it puts out channels."""
    if "conv" not in str(node.target) or len(node.args) < 2 or not isinstance(node.args[1], fx.Node):
        return False
    shape = kernels.get(str(node.args[1].target), torch.Size())
    groups = node.kwargs.get("groups", node.args[-1] if len(node.args) >= 7 else 1)
    return len(shape) == 4 and shape[1] == 1 and isinstance(groups, int) and groups > 1 and shape[0] % groups == 0


def _channel_axes(flow: Flow[fx.Node], shapes: dict[fx.Node, torch.Size | None]) -> dict[fx.Node, int]:
    """Follow the channel axis from the image (1) through permutations; reshapes keep channels last where they were last."""
    axes: dict[fx.Node, int] = {}
    for node, inputs in flow.inputs.items():
        shape = shapes[node]
        read = next((source for source in inputs if shapes[source] is not None), None)
        if shape is None or read is None:
            axes[node] = axes[inputs[0]] if inputs else 1
            continue
        before = shapes[read] or torch.Size()
        order = _permutation(node, len(before))
        if order is not None:
            axes[node] = order.index(axes[read]) if axes[read] in order else 1
        elif len(before) != len(shape):
            axes[node] = len(shape) - 1 if axes[read] == len(before) - 1 else 1
        else:
            axes[node] = axes[read]
    return axes


def _permutation(node: fx.Node, ndim: int) -> list[int] | None:
    """The order in which `permute` or `transpose` puts its input's axes; None for another operation."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    if node.op not in ("call_function", "call_method") or name not in ("permute", "transpose", "swapaxes"):
        return None
    dims = list(pytree.tree_leaves((node.args[1:], tuple(node.kwargs.values()))))
    if not all(isinstance(dim, int) and -ndim <= dim < ndim for dim in dims):
        return None
    dims = [dim % ndim for dim in dims]
    if name == "permute":
        return dims if len(dims) == ndim else None
    order = list(range(ndim))
    order[dims[0]], order[dims[1]] = dims[1], dims[0]
    return order
