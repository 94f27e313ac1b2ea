"""What a hyper-parameter search looks at: confidence without a map's most, and without its least relevant pixels (ROAD's MoRF and LeRF)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...engine.layers.eval_mode import in_eval_mode
from ...engine.layers.outputs import logits_of
from ...engine.metrics.protocol import Subject
from ...engine.metrics.removal import IMPUTED, imputed


def removal_confidences(model: nn.Module, image: Tensor, relevance: Tensor, target: int) -> tuple[float, float]:
    """Mean softmax confidence of the target without 20, 40, 60, 80 % of the pixels, imputed.

    Args:
        model: The classifier.
        image: `(channel, height, width)`, network input.
        relevance: `(height, width)`; only the order of its pixels counts.
        target: A class.

    Returns:
        Most relevant removed first (lower is better), least relevant removed first (higher is better).
    """
    order = relevance.flatten().argsort(descending=True, stable=True)
    variants = imputed(Subject(image, relevance, order, target, target))
    filled = image.new_empty(IMPUTED.count, *image.shape)
    variants.fill(0, filled)
    with torch.no_grad(), in_eval_mode(model):
        confidences = logits_of(model(filled)).float().softmax(dim=1)[:, target]
    most, least = confidences.chunk(2)
    return float(most.mean()), float(least.mean())
