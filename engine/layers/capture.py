"""One differentiable forward that hands out the feature maps of a plan's layers beside the logits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn

from ...errors import ModelError
from .block_plan import BlockLayer, BlockPlan
from .eval_mode import in_eval_mode
from .fx_trace import Trace, TracedRun, trace_of
from .outputs import logits_of


def capture_layers(
    model: nn.Module,
    plan: BlockPlan,
    images: Float[Tensor, "batch channel height width"],
    *,
    gradients: bool = True,
) -> tuple[Float[Tensor, "batch class ..."], list[Float[Tensor, "batch _ _ _"]]]:
    """Run the model on images and keep the activations of every planned layer.

    The forward runs in eval mode and with gradients, also under `torch.no_grad` or `torch.inference_mode` and where no
    parameter asks for them: `torch.autograd.grad(logits[:, c].sum(), activations)` works on what is returned. Operations
    that overwrite their input do not reach the returned activations. The model is left as it came.

    Args:
        model: The model that the plan was made for.
        plan: From `block_layers`.
        images: Network input.
        gradients: False for a forward that records nothing, which is faster and keeps nothing in memory but what is returned.

    Returns:
        The logits, and the activations `(batch, channel, height, width)` of each layer in the plan's order.

    Raises:
        ModelError: If a layer of the plan is not in the model or did not run.
    """
    with in_eval_mode(model), torch.inference_mode(False), torch.set_grad_enabled(gradients):
        kept = _Kept(plan, is_cut=not images.requires_grad)
        images = images.clone() if images.is_inference() else images
        if all(_call(name, model) for name in plan.names):
            with _hooked(model, kept):
                output = model(images)
        else:
            output = _KeepingRun(model, _trace_with(plan, model), kept).run(images)
        return logits_of(output), kept.activations()


def logits_with_layer(
    model: nn.Module,
    plan: BlockPlan,
    images: Float[Tensor, "batch channel height width"],
    values: Float[Tensor, "row channel h w"],
) -> Float[Tensor, "row class ..."]:
    """Run the model on images and go on with `values` in the place of the output of the plan's only layer.

    There may be several rows for each image, one image's after another's: what lies behind the layer runs for each of them, what lies
    before it once for an image, unless the user named the layer, which other paths may then pass by. Gradients flow from the logits to
    `values`.

    Raises:
        ModelError: If the layer is not in the model or did not run, or what lies behind it does not give one row for each of `values`.
    """
    placed = _Placed(plan, values)
    with in_eval_mode(model), torch.inference_mode(False), torch.enable_grad():
        images = images.clone() if images.is_inference() else images
        if plan.how == "named":
            images = images.repeat_interleave(len(values) // len(images), dim=0)
        if all(_call(name, model) for name in plan.names):
            with _hooked(model, placed):
                output = model(images)
        else:
            output = _KeepingRun(model, _trace_with(plan, model), placed).run(images)
        placed.activations()
        logits = logits_of(output)
    if len(logits) != len(values):
        raise ModelError(
            f"{len(values)} values of layer {plan.names[0]} give {len(logits)} rows of logits: what lies behind it counts its images "
            "before it; name a later layer"
        )
    return logits


class _Kept:
    """The activations on their way out; what is kept and what flows on share no storage."""

    def __init__(self, plan: BlockPlan, is_cut: bool):
        self.plan = plan
        self.is_cut = is_cut
        self.values: dict[str, Tensor] = {}

    def keep(self, layer: BlockLayer, value: Tensor) -> Tensor:
        """Keep `value` and return what the model goes on with.

        The lowest layer starts the graph anew unless the images' gradient is wanted: nothing below it is ever asked for,
        and the largest intermediate values are freed.
        """
        maps = value.movedim(layer.channel_axis, 1)
        if not maps.requires_grad or (self.is_cut and layer is self.plan[0]):
            maps = maps.detach().requires_grad_()
        self.values[layer.name] = maps
        return maps.movedim(1, layer.channel_axis).clone()

    def activations(self) -> list[Tensor]:
        missing = [name for name in self.plan.names if name not in self.values]
        if missing:
            raise ModelError(
                f"layers {', '.join(missing)} did not run; make a new plan with block_layers for these images"
            )
        return [self.values[name] for name in self.plan.names]


class _Placed(_Kept):
    """Puts values in the place of a layer's output."""

    def __init__(self, plan: BlockPlan, given: Tensor):
        super().__init__(plan, is_cut=False)
        self.given = given

    def keep(self, layer: BlockLayer, value: Tensor) -> Tensor:
        self.values[layer.name] = self.given
        return self.given.movedim(1, layer.channel_axis)


class _KeepingRun(TracedRun):
    """A traced run that hands planned nodes' values to `kept`: for operations that no hook can see."""

    def __init__(self, model: nn.Module, trace: Trace, kept: _Kept):
        super().__init__(model, trace)
        self.kept = kept
        self.layers = {trace.nodes[layer.name]: layer for layer in kept.plan}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        return self.kept.keep(self.layers[n], value) if n in self.layers else value


@contextmanager
def _hooked(model: nn.Module, kept: _Kept) -> Iterator[None]:
    """Hand the planned module calls' outputs to `kept` while the context is open."""
    handles = []
    try:
        for layer in kept.plan:
            path, number = _call(layer.name, model) or ("", None)
            handles.append(model.get_submodule(path).register_forward_hook(_keeping_hook(layer, number, kept)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _keeping_hook(layer: BlockLayer, number: int | None, kept: _Kept) -> Any:
    calls = 0

    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        nonlocal calls
        calls += 1
        return kept.keep(layer, output) if number in (None, calls) else output

    return hook


def _call(name: str, model: nn.Module) -> tuple[str, int | None] | None:
    """The module and which of its calls a layer name means (None: its only one); None for a name of no module."""
    if _has(name, model):
        return name, None
    path, _, number = name.rpartition(":")
    return (path, int(number)) if number.isdecimal() and _has(path, model) else None


def _has(path: str, model: nn.Module) -> bool:
    """Whether there is such a submodule, without a walk through all of them."""
    try:
        model.get_submodule(path)
    except AttributeError:
        return False
    return True


def _trace_with(plan: BlockPlan, model: nn.Module) -> Trace:
    trace = trace_of(model)
    missing = [name for name in plan.names if trace is None or name not in trace.nodes]
    if trace is None or missing:
        raise ModelError(f"the model has no layer {missing[0]!r}; make a plan for this model with block_layers")
    return trace
