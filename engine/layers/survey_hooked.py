"""Surveys a model that `torch.fx` cannot trace: forward hooks say what its modules put out, autograd how signals travel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .channel_axis import FIRST, measured_axes
from .dominators import Flow, crossed_by_all, leading_to, reached_from
from .outputs import logits_of
from .survey import (
    PASSES_ON,
    FeatureMap,
    Survey,
    call_names,
    enclosing,
    has_weights,
    is_compiled,
    is_depthwise,
    map_shape,
)

Step = Any
"""A node of the autograd graph (`torch.autograd.graph.Node`); hashable, and the same object while it is held."""
ASPECT_TOLERANCE = 1.5
"""Without a graph no permutation can be followed: a tensor whose aspect differs more from the image's is no map."""


@dataclass(frozen=True)
class _Call:
    path: str
    module: nn.Module
    shape: torch.Size
    step: Step


def hooked_survey(model: nn.Module, images: Tensor) -> Survey:
    """Run `images` once under hooks and describe every map that a module puts out.

    Args:
        model: The model, in eval mode.
        images: `(batch, channel, height, width)`, one image is enough.

    Raises:
        ModelError: If the model returns no class scores.
        Exception: Whatever the model raises for these images.
    """
    with torch.enable_grad(), _watched(model) as calls:
        source = images.detach().clone().requires_grad_()
        logits = logits_of(model(source.view_as(source)))
        image_step = source.view_as(source).grad_fn
    flow = _flow(logits.grad_fn, image_step)
    if flow is None:
        return Survey(())
    own = [call for call in calls if not any(True for _ in call.module.children())]
    weighted = {call.step for call in own if has_weights(call.module)}
    crossed, learned, weighed_later = crossed_by_all(flow), reached_from(flow, weighted), leading_to(flow, weighted)

    maps: dict[Step, FeatureMap] = {}
    names: dict[str, FeatureMap] = {}
    named = list(zip(calls, call_names([call.path for call in calls]), strict=True))
    returned_by: dict[Step, list[str]] = {}
    for call, name in named:
        returned_by.setdefault(call.step, []).append(name)
    measured = measured_axes(model, images)
    known = measured if len(measured) == len(calls) else [None] * len(calls)
    for (call, name), axis in zip(named, known, strict=True):
        axes = map_shape(call.shape, axis or FIRST)
        if axes is None or call.step is None or call.shape[0] != images.shape[0] or not _lies_like(axes[1], images):
            continue
        channels, size = axes
        in_head = call.step not in weighed_later and channels == logits.shape[1]
        passes_on = PASSES_ON.search(type(call.module).__name__) is not None and call in own
        if call.step not in maps:
            maps[call.step] = FeatureMap(
                names=enclosing(returned_by[call.step]),
                channels=channels,
                size=size,
                channel_axis=axis or FIRST,
                crossed=call.step in crossed,
                feature=call.step in learned and not in_head and not passes_on,
                depthwise=is_depthwise(call.module),
            )
        names[call.path] = names[name] = maps[call.step]
    return Survey(tuple(maps.values()), names)


@contextmanager
def _watched(model: nn.Module) -> Iterator[list[_Call]]:
    """Note each module call's tensor output while the context is open, innermost call first; the root's own is left out."""
    calls: list[_Call] = []

    def note(path: str) -> Any:
        def hook(module: nn.Module, _: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                calls.append(_Call(path, module, output.shape, output.grad_fn))

        return hook

    open_modules = [(path, module) for path, module in model.named_modules() if path and not is_compiled(module)]
    handles = [module.register_forward_hook(note(path)) for path, module in open_modules]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _flow(logits_step: Step, image_step: Step) -> Flow[Step] | None:
    """The autograd graph from the image to the logits, in execution order; None where no gradient flows."""
    image = image_step.next_functions[0][0]
    inputs: dict[Step, list[Step]] = {}
    waiting = [(logits_step, False)] if logits_step is not None else []
    while waiting:  # depth first without recursion: the graph is deeper than Python's stack
        step, is_done = waiting.pop()
        if step in inputs:
            continue
        reads = [read for read, _ in step.next_functions if read is not None]
        if is_done:
            inputs[step] = reads
        else:
            waiting.append((step, True))
            waiting.extend((read, False) for read in reads if read not in inputs)
    return Flow(inputs, image, logits_step) if image in inputs else None


def _lies_like(size: tuple[int, int], images: Tensor) -> bool:
    """Whether a map's aspect is the image's, within the tolerance."""
    height, width = images.shape[2:]
    ratio = (size[0] * width) / (size[1] * height)
    return 1 / ASPECT_TOLERANCE <= ratio <= ASPECT_TOLERANCE
