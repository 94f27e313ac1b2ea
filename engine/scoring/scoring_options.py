"""How a method's passes run and what its scores mean: what every method has beside its own settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ...errors import SettingsError
from .budget import EXACT, Budget, check_budget
from .confidence import SOFTMAX, Confidence
from .precision import PRECISIONS

ForwardKind = Literal["eager", "fold_bn", "compile", "cuda_graph"]
FORWARDS: tuple[ForwardKind, ...] = ("eager", "fold_bn", "compile", "cuda_graph")


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """Batch, number format and meaning of confidence.

    Raises:
        SettingsError: When a value is out of its range.
    """

    batch_size: int = 64
    """Masked inputs per forward, at least 1."""
    images: int | None = None
    """Most images that a method takes into one batch, where that is fewer than it would, at least 1."""
    precision: str = "fp32"
    """Of `PRECISIONS`: "fp32", "bf16", "fp16" or "auto"; that of the masked forwards, and of all passes of a method that has none."""
    confidence: Confidence = SOFTMAX
    """What confidence in a class means."""
    forward: ForwardKind = "eager"
    """Of `FORWARDS`: how masks are scored, see `fast_forward`; `eager` where another is not possible."""
    budget: Budget = EXACT
    """Forwards per image of methods that can leave masks out: `exact` for all, `balanced` (25 %), `fast` (10 %), a number or a share
    in (0, 1]. The scores of masks that are left out are predicted."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise SettingsError(f"batch_size must be at least 1, got {self.batch_size}")
        if self.images is not None and self.images < 1:
            raise SettingsError(f"images must be at least 1, got {self.images}")
        if self.precision not in PRECISIONS:
            raise SettingsError(f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}")
        if self.forward not in FORWARDS:
            raise SettingsError(f"forward must be one of {', '.join(FORWARDS)}, got {self.forward!r}")
        check_budget(self.budget)
