"""Confidence that says whether the class is predicted, too: so that one scored number tells both."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from ..scoring.confidence import Confidence
from ..scoring.masked_scorer import Scorer
from ..scoring.scoring_options import Scoring


def signed_confidence(confidence: Confidence) -> Confidence:
    """The same confidence, its sign negative where another class has a larger logit. A confidence of 0 is not predicted.

    Args:
        confidence: Of a classifier: one row of logits per image.
    """

    def value(logits: Tensor, targets: Tensor, scenes: None = None) -> Tensor:
        unsigned = confidence.value(logits, targets, scenes)
        predicted = logits.gather(1, targets[:, None]).squeeze(1) >= logits.amax(dim=1)
        return torch.where(predicted, unsigned, -unsigned)

    return replace(confidence, name=f"signed {confidence.name}", value=value)


def intervention_scorer(
    model: nn.Module, confidence: Confidence, *, batch_size: int = 64, precision: str = "fp32"
) -> Scorer:
    """The packed scorer with signed confidences, as the functions of `effects` need it.

    Args:
        model: A classifier; used in eval mode and given back as it was.
        confidence: `SOFTMAX` or `SIGMOID`.
        batch_size: Inputs per forward.
        precision: As `Scoring`.
    """
    return Scorer(model, Scoring(batch_size=batch_size, precision=precision, confidence=signed_confidence(confidence)))
