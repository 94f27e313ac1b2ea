"""SISE as a registered method."""

from __future__ import annotations

from torch import nn

from ..scoring import Scoring
from ..sise import SISE
from .one_by_one import packed_method
from .packed_settings import SiseSettings


@packed_method(
    name="sise",
    summary="feature maps of every block as masks, counted by the score that each leaves, fused by a cascade of gates",
    source="Sattarzadeh et al., AAAI 2021, eqs. 1-12",
    architecture="cnn",
    settings=SiseSettings,
    cost=lambda settings: None,
    gradients=True,
)
def pack(model: nn.Module, settings: SiseSettings, scoring: Scoring) -> SISE:
    return SISE(
        model, layers=settings.layers, mu=settings.mu, batch_size=scoring.batch_size, precision=scoring.precision,
        fold_bn=scoring.fold_bn, compile=scoring.compile, budget=scoring.budget, score=scoring.score,
    )  # fmt: skip
