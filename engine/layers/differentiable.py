"""Whether a model can be differentiated at all: programs and quantised models may not be."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .eval_mode import in_eval_mode
from .outputs import logits_of


def gradients_flow(model: nn.Module, image: Float[Tensor, "channel height width"]) -> bool:
    """One forward pass: whether its output depends on the image in a way that autograd can follow.

    Raises:
        Exception: Whatever the model raises for this image.
    """
    with in_eval_mode(model), torch.inference_mode(False), torch.enable_grad():
        source = image.detach().clone()[None].requires_grad_()
        return logits_of(model(source)).requires_grad
