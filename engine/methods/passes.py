"""Passes through the whole model, as methods make them: in eval mode, whatever context the caller is in, and nothing left behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from jaxtyping import Float

from ..layers.eval_mode import in_eval_mode
from ..layers.outputs import logits_of, wide
from ..lazy_torch import nn, torch


@contextmanager
def differentiable(model: nn.Module) -> Iterator[None]:
    """Record gradients, also under `torch.no_grad` or `torch.inference_mode`."""
    with in_eval_mode(model), torch.inference_mode(False), torch.enable_grad():
        yield


def plain(images: torch.Tensor) -> torch.Tensor:
    """The images as a tensor that may take part in gradients."""
    return images.clone() if images.is_inference() else images.detach()


def logits_without_graph(
    model: nn.Module, images: Float[torch.Tensor, "batch channel height width"]
) -> Float[torch.Tensor, "batch class *pixels"]:
    """One forward pass; float32 at least."""
    with in_eval_mode(model), torch.no_grad():
        return wide(logits_of(model(images)))
