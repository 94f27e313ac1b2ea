"""How masked inputs are scored: what every method on the packed scorer shares."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ...errors import SettingsError
from .budget import EXACT, Budget
from .confidence import SOFTMAX, Score
from .masked_scorer import Scorer
from .precision import PRECISIONS


@dataclass(frozen=True)
class Scoring:
    """Batch, number format and meaning of scores.

    Raises:
        SettingsError: When a value is out of its range.
    """

    batch_size: int = 64
    """Masked inputs per forward, at least 1."""
    images: int | None = None
    """Most images that a batch method is given at once, where that is fewer than it takes, at least 1."""
    precision: str = "fp32"
    """Of `PRECISIONS`; that of the masked forwards, and of all passes of a method that has none."""
    score: Score = SOFTMAX
    fold_bn: bool = False
    compile: bool = False
    budget: Budget = EXACT
    """Of methods that can leave masks out."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise SettingsError(f"batch_size must be at least 1, got {self.batch_size}")
        if self.images is not None and self.images < 1:
            raise SettingsError(f"images must be at least 1, got {self.images}")
        if self.precision not in PRECISIONS:
            raise SettingsError(f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}")

    def scorer(self, model: nn.Module) -> Scorer:
        """A scorer over a model."""
        return Scorer(
            model, batch_size=self.batch_size, precision=self.precision, score=self.score, fold_bn=self.fold_bn, compile=self.compile,
        )  # fmt: skip
