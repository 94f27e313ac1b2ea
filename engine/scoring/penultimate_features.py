"""The penultimate features of whole images, read on the way of a forward pass that is made anyhow: the input of the layer that
gives the logits, averaged over positions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..features.feature_bank import FeatureBank
from ..layers.outputs import logits_of

LATEST = 8
"""Layers whose output is kept: auxiliary heads may run after the one that gives the logits."""
Call = tuple[Tensor, Tensor]
"""A layer's averaged input `(batch, width)` and its output."""


class PenultimateReader:
    """Listens to the first forward pass of a batch; no hook stays behind.

    Large outputs, which are feature maps, are not kept: they would hold the memory of the whole forward pass. Once it is known how
    many classes there are, only layers with an output for each are looked at.
    """

    def __init__(self, model: nn.Module):
        self.model = model
        self._classes: int | None = None
        self._calls: list[Call] = []

    @contextmanager
    def listening(self, wanted: bool = True) -> Iterator[None]:
        """Take note of the next forward pass of the model within the context."""
        self._calls = calls = []
        hooks = []
        over = [0]  # rows of passes that are over: a look at the layers (one row) may come before the batch itself

        def note(module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
            tensors = bool(given) and isinstance(given[0], Tensor) and isinstance(output, Tensor)
            if tensors and output.ndim >= 2 and len(output) > max(over):
                self._note(calls, module, given[0].detach(), output.detach())

        def end(module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
            over.append(len(given[0]) if given and isinstance(given[0], Tensor) else 0)

        try:
            if wanted:
                hooks = [m.register_forward_hook(note) for m in self.model.modules() if gives_logits(m)]
                if not isinstance(self.model, torch.jit.ScriptModule):
                    hooks.append(self.model.register_forward_hook(end))
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def features(self, logits: Float[Tensor, "batch class *pixels"]) -> Float[Tensor, "batch width"] | None:
        """Of the batch that was listened to, float32; None where the layer cannot be found.

        Args:
            logits: What the model gave for it.
        """
        calls, self._calls = self._calls, []
        self._classes = logits.shape[1]
        return penultimate(calls, logits)

    def _note(self, calls: list[Call], module: nn.Module, given: Tensor, output: Tensor) -> None:
        if self._classes is not None and self._classes not in (output.shape[-1], output.shape[1]):
            return
        calls.append((averaged(given, module), output))
        for place in range(len(calls) - LATEST, -1, -1):
            if not calls[place][1].numel():
                break
            calls[place] = calls[place][0], output.new_empty(0, 0)


def gives_logits(module: nn.Module) -> bool:
    """Whether it is a layer that could: one that multiplies with a matrix."""
    if isinstance(module, torch.jit.ScriptModule):
        return False
    weight = getattr(module, "weight", None)
    matrix = isinstance(weight, Tensor) and weight.ndim >= 2 and not any(True for _ in module.children())
    return matrix or isinstance(module, FeatureBank)


def averaged(given: Tensor, module: nn.Module) -> Float[Tensor, "batch width"]:
    """Over tokens, which stand before the width, or over pixels, which stand behind the channels; float32."""
    values = given.float()
    channels_first = (
        values.ndim == 4 and isinstance(getattr(module, "weight", None), Tensor) and module.weight.ndim == 4
    )  # type: ignore[union-attr]
    if channels_first:
        return values.flatten(2).mean(dim=2)
    return values if values.ndim == 2 else values.reshape(len(values), -1, values.shape[-1]).mean(dim=1)


def penultimate(calls: list[Call], logits: Tensor) -> Float[Tensor, "batch width"] | None:
    """The input of the layer whose output the logits are; else of the last layer with an output for every class.

    A dense model enlarges what its head gives, and may have an auxiliary head: of several the one nearest to the logits counts.
    """
    rows, classes = logits.shape[:2]
    fitting = [
        (given, output)
        for given, output in calls
        if len(output) == rows and classes in (output.shape[-1], output.shape[1])
    ]
    same = [given for given, output in fitting if output.data_ptr() == logits.data_ptr()]
    if not same and logits.ndim == 4:
        heads = [(given, output) for given, output in fitting if output.ndim == 4]
        same = [given for given, output in sorted(heads, key=lambda call: -distance(call[1], logits))]
    chosen = [*[given for given, _ in fitting[-1:]], *same[-1:]]
    return chosen[-1] if chosen else None


def distance(output: Float[Tensor, "batch class h w"], logits: Float[Tensor, "batch class height width"]) -> float:
    """Mean difference of a head's output, enlarged, and the logits."""
    enlarged = nn.functional.interpolate(output.float(), logits.shape[2:], mode="bilinear", align_corners=False)
    return float((enlarged - logits.float()).abs().mean())


def logits_with_features(
    model: nn.Module, images: Float[Tensor, "batch channel height width"], wanted: bool = True
) -> tuple[Float[Tensor, "batch class *pixels"], Float[Tensor, "batch width"] | None]:
    """One forward pass in the context that the caller is in, with the features beside the logits."""
    reader = PenultimateReader(model)
    with reader.listening(wanted):
        logits = logits_of(model(images))
    return logits, reader.features(logits) if wanted else None
