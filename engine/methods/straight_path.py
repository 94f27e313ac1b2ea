"""Gradients on the straight way from a start to an input: what Integrated Gradients, Expected Gradients and BEE are made of."""

from __future__ import annotations

from collections.abc import Callable

from ..lazy_torch import torch

Score = Callable[["torch.Tensor"], "torch.Tensor"]


def path_gradient(
    score: Score, start: torch.Tensor, way: torch.Tensor, place: float | torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradient of a score at `start + place * way`, in a context that records gradients; one forward and one backward pass.

    Args:
        score: Numbers made of the point, added up before the gradient is taken: each must depend on its own part of the point alone.
        start: Where the path begins.
        way: From there to its end; its shape and that of `place` broadcast with the start's.
        place: On the way, in [0, 1].

    Returns:
        The gradient and the point, of one shape.
    """
    point = (start + place * way).detach().requires_grad_()
    return torch.autograd.grad(score(point).sum(), point)[0], point.detach()
