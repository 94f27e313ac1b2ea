"""What a model sees in one image, as one number per class: what rules that choose targets go by."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..layers.eval_mode import untouched
from ..layers.outputs import logits_of
from .confidence import Confidence


def rank_classes(
    model: nn.Module, confidence: Confidence, image: Float[Tensor, "channel height width"]
) -> Float[Tensor, " class"]:
    """One plain forward pass in the model's own precision, alone in its batch.

    Args:
        model: Left as it came.
        confidence: Says what a class's rank is.
        image: In network-input space, on the model's device.
    """
    with untouched(model), torch.inference_mode():
        return confidence.ranking(logits_of(model(image[None])))
