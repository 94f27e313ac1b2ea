"""A classifier cut at one layer: what gives the layer's maps, what makes features of them, and the layer that gives the logits."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, fx, nn

from ...errors import ModelError, NoBlocksError, did_you_mean
from ..layers.blocks import block_layers
from ..layers.eval_mode import in_eval_mode
from ..layers.fx_trace import Trace, trace_of
from ..layers.outputs import wide

PASSING = (
    nn.ReLU,
    nn.ReLU6,
    nn.Hardswish,
    nn.SiLU,
    nn.GELU,
    nn.Tanh,
    nn.Dropout,
    nn.Flatten,
    nn.Identity,
    nn.BatchNorm1d,
)
PASSING_FUNCTIONS = (torch.flatten, torch.relu, F.relu, F.dropout)
PASSING_METHODS = ("flatten", "relu", "view", "reshape")
POOLS = (nn.MaxPool2d, nn.AvgPool2d)


@dataclass(frozen=True, eq=False)
class ModelSplit:
    """The parts, which share the classifier's modules."""

    layer: str
    front: fx.GraphModule
    """Images to the layer's maps."""
    pool: nn.Module | None
    """The pooling that is all that follows the layer."""
    tail: fx.GraphModule
    """Maps (pooled, where there is a pool) to a tuple of features: the inputs of the fully connected layers but the first, or of the only one."""
    head: nn.Module
    """The last of these features to logits."""
    hidden: bool
    """Whether there are hidden fully connected layers."""
    channels: int
    size: tuple[int, int]
    signed: bool
    """Whether the maps have negative values, too."""
    grid: Grid | None
    """Where the cells' receptive fields lie; None where the layers do not say."""

    def read(
        self, images: Float[Tensor, "batch channel height width"]
    ) -> tuple[Float[Tensor, "batch _ h w"], tuple[Tensor, ...], Float[Tensor, "batch class"]]:
        """Maps, features and logits of the classifier itself, without gradients."""
        with torch.no_grad():
            (maps,) = self.front(images)
            features = self.tail(maps.clone() if self.pool is None else self.pool(maps))  # a copy: ReLUs work in place
            logits = self.head(features[-1])
        return maps.float(), tuple(feature.float() for feature in features), wide(logits)


@dataclass(frozen=True)
class Grid:
    """Centres of receptive fields in pixels of the input: start + index x step, along height and width."""

    start: tuple[float, float]
    step: tuple[float, float]


def split_model(model: nn.Module, image: Float[Tensor, "channel height width"], layer: str | None = None) -> ModelSplit:
    """Cut a classifier.

    Args:
        model: Traceable by torch.fx; left as it came.
        image: Network input to find shapes with.
        layer: A module's path or a name of `heatlas layers`. By default the last block's end where its maps are flattened into fully
            connected layers (VGG), else that of the block before.

    Raises:
        ModelError: When the model cannot be traced, or the layer is not there, is passed by, or gives no maps.
    """
    trace = trace_of(model)
    if trace is None:
        raise ModelError(
            "torch.fx cannot trace the model, so it cannot be cut at a layer; train ttame or ptame instead"
        )
    with in_eval_mode(model):
        linears = linear_chain(trace, model)
        chosen = layer or default_layer(model, image, linears)
        if chosen not in trace.nodes:
            raise ModelError(f"the model has no layer {chosen!r}{did_you_mean(chosen, trace.nodes)}")
        node = trace.nodes[chosen]
        front = part_of_graph(model, trace, image_node(trace), [node])
        maps = noise_maps(front, image)
        if not isinstance(maps, Tensor) or maps.ndim != 4:
            raise ModelError(f"layer {chosen} gives no maps (batch, channel, h, w); name another")
        signed = bool((maps < 0).any())
        pool = None if signed else following_pool(node, model)  # a maximum is not that of both signs' parts
        start = next(iter(node.users)) if pool is not None else node
        outputs, head = feature_nodes(trace, linears, model)
        tail = part_of_graph(model, trace, start, outputs, chosen)
    return ModelSplit(
        chosen, front, pool, tail, head, len(linears) > 1, maps.shape[1], (maps.shape[2], maps.shape[3]), signed,
        receptive_grid(front),
    )  # fmt: skip


def noise_maps(front: fx.GraphModule, image: Tensor) -> Any:
    """The layer's output for seeded noise."""
    noise = torch.randn(4, *image.shape, generator=torch.Generator().manual_seed(0)).to(image)
    with torch.no_grad():
        (maps,) = front(noise)
    return maps


def default_layer(model: nn.Module, image: Tensor, linears: list[fx.Node]) -> str:
    """See `split_model`."""
    try:
        plan = block_layers(model, image[None])
    except NoBlocksError as error:
        raise ModelError(
            "an explainer network takes the maps of a CNN apart, and the model has none that shrink from block to block: name a layer that gives "
            "maps with `layers`, or train ttame (transformers, too) or ptame (any classifier)"
        ) from error
    if plan[-1].channel_axis != 1:
        raise ModelError("the model keeps its channels last; an explainer network reads maps (batch, channel, h, w)")
    first = model.get_submodule(str(linears[-1].target)) if linears else None
    flattened = isinstance(first, nn.Linear) and first.in_features > plan[-1].channels
    return plan[-1].name if flattened else plan[-2].name


def linear_chain(trace: Trace, model: nn.Module) -> list[fx.Node]:
    """The fully connected layers at the end, the last one first; none where another layer gives the logits."""
    linears, node = [], trace.logits
    while True:
        module = model.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, nn.Linear):
            linears.append(node)
        elif not linears or not passes(node, module):
            return linears
        if len(node.all_input_nodes) != 1:
            return linears
        node = node.all_input_nodes[0]


def passes(node: fx.Node, module: nn.Module | None) -> bool:
    """Whether a node stands between fully connected layers."""
    return (
        isinstance(module, PASSING)
        or (node.op == "call_function" and node.target in PASSING_FUNCTIONS)
        or (node.op == "call_method" and node.target in PASSING_METHODS)
    )


def feature_nodes(trace: Trace, linears: list[fx.Node], model: nn.Module) -> tuple[list[fx.Node], nn.Module]:
    """Nodes of the features, low to high, and the layer that makes logits of the last."""
    if not linears:
        return [trace.logits], nn.Identity()
    head = model.get_submodule(str(linears[0].target))
    inputs = [node.all_input_nodes[0] for node in linears]
    return (inputs[:-1][::-1] if len(linears) > 1 else inputs), head


def following_pool(node: fx.Node, model: nn.Module) -> nn.Module | None:
    """The pooling that is all that follows a node."""
    users = list(node.users)
    if len(users) != 1 or users[0].op != "call_module":
        return None
    module = model.get_submodule(str(users[0].target))
    return module if isinstance(module, POOLS) else None


def image_node(trace: Trace) -> fx.Node:
    return next(node for node in trace.graph.nodes if node.op == "placeholder")


def part_of_graph(
    model: nn.Module, trace: Trace, start: fx.Node, outputs: list[fx.Node], layer: str = ""
) -> fx.GraphModule:
    """What computes nodes from another one, as a module over the model's own modules; it gives a tuple.

    Raises:
        ModelError: When something else of the image is needed, too.
    """
    needed: set[fx.Node] = set()
    waiting = list(outputs)
    while waiting:
        node = waiting.pop()
        if node is start or node in needed:
            continue
        if node.op == "placeholder" and node is image_node(trace):
            raise ModelError(
                f"what follows layer {layer} reads the image past it, too; name a layer that everything passes (`heatlas layers`)"
            )
        needed.add(node)
        waiting += node.all_input_nodes
    graph, copies = fx.Graph(), dict[fx.Node, Any]()
    copies[start] = graph.placeholder("maps")
    for node in trace.graph.nodes:
        if node in needed:
            copies[node] = (
                (node.args[0] if node.args else None)
                if node.op == "placeholder"
                else graph.node_copy(node, copies.__getitem__)
            )
    graph.output(tuple(copies[node] for node in outputs))
    return fx.GraphModule(own_attributes(model, trace, graph), graph)


def own_attributes(model: nn.Module, trace: Trace, graph: fx.Graph) -> dict[str, Any]:
    """Modules and tensors that a graph names."""
    attributes: dict[str, Any] = {}
    for node in graph.nodes:
        name = str(node.target)
        if node.op == "call_module":
            attributes[name] = model.get_submodule(name)
        elif node.op == "get_attr":
            attributes[name] = trace.constants[name] if name in trace.constants else operator.attrgetter(name)(model)
    return attributes


def receptive_grid(front: fx.GraphModule) -> Grid | None:
    """Start and step of the receptive fields' centres; None where a layer that changes the size is no plain convolution or pooling."""
    grids: dict[fx.Node, Grid] = {}
    for node in front.graph.nodes:
        if node.op == "placeholder":
            grids[node] = Grid((0.0, 0.0), (1.0, 1.0))
            continue
        given = [grids[other] for other in node.all_input_nodes if other in grids]
        if not given or node.op == "output":
            continue
        module = front.get_submodule(str(node.target)) if node.op == "call_module" else None
        if module is None and "pool" in str(node.target):
            return None
        grids[node] = stepped(max(given, key=lambda grid: grid.step), module)
    (last,) = next(iter(reversed(front.graph.nodes))).args[0]  # pyright: ignore[reportGeneralTypeIssues]
    return grids.get(last)


def stepped(grid: Grid, module: nn.Module | None) -> Grid:
    """The grid behind a convolution or pooling; others keep it."""
    if not isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d) or isinstance(module.padding, str):
        return grid
    kernel, stride, padding = pair(module.kernel_size), pair(module.stride), pair(module.padding)
    dilation = pair(getattr(module, "dilation", 1))
    start = tuple(
        grid.start[axis] + ((kernel[axis] - 1) * dilation[axis] / 2 - padding[axis]) * grid.step[axis]
        for axis in (0, 1)
    )
    return Grid(start, (grid.step[0] * stride[0], grid.step[1] * stride[1]))  # pyright: ignore[reportArgumentType]


def pair(value: Any) -> tuple[float, float]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
