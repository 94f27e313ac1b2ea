"""SISE and Ada-SISE as registered methods."""

from __future__ import annotations

from torch import nn

from ..scoring.scoring_options import Scoring
from ..sise.sise import SISE
from .one_by_one import packed_method
from .packed_settings import AdaSiseSettings, SiseSettings


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
        baseline=settings.baseline, fill=settings.fill, gate=settings.gate,
    )  # fmt: skip


@packed_method(
    name="ada_sise",
    summary="SISE with fewer masks: of each layer those above Otsu's threshold of the gradients",
    source="Sudhakar et al., ICASSP 2021, arXiv 2102.07799",
    architecture="cnn",
    settings=AdaSiseSettings,
    cost=lambda settings: None,
    gradients=True,
)
def pack_adaptive(model: nn.Module, settings: AdaSiseSettings, scoring: Scoring) -> SISE:
    return SISE(
        model, layers=settings.layers, mu=None, batch_size=scoring.batch_size, precision=scoring.precision,
        fold_bn=scoring.fold_bn, compile=scoring.compile, budget=scoring.budget, score=scoring.score,
        baseline=settings.baseline, fill=settings.fill, gate=settings.gate,
    )  # fmt: skip
