"""What one image's explanation came to, whichever method made it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from .. import statuses
from ..errors import TargetError
from .scoring.confidence import Score


@dataclass(eq=False)
class Explanation:
    """What one image's explanation came to. `map` and `layer_maps` are None unless `status` is `ok`."""

    status: str
    error: str | None
    prediction: int | None
    target: int | None
    score: float | None
    """Confidence in the target, in [0, 1]."""
    logit: float | None
    map: Float[Tensor, "height width"] | None = None
    """In [0, 1], float32; S / B of SISE."""
    layer_maps: Float[Tensor, "layer height width"] | None = None
    """Each V_l of SISE, min-maxed, low to high."""
    mask_counts: tuple[int, ...] = ()
    n_forwards: int = 1
    n_backwards: int = 0
    surrogate_error: float | None = None
    """Expected RMS error of the map, by the surrogate itself; None where every mask was scored."""
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    """What else the method gives, as it declares."""


@dataclass(frozen=True)
class Logits:
    """The unmasked image's output, on the host."""

    finite: bool
    prediction: int | None
    target: int | None
    score: float | None
    logit: float | None
    absent: bool = False
    """A dense model gives the target no pixel."""

    @classmethod
    def of(cls, logits: Float[Tensor, " class *pixels"], target: int | None, score: Score) -> Logits:
        """Read the output for one image.

        Raises:
            TargetError: When `target` is no class of the model.
        """
        check_target(target, len(logits))
        if not bool(logits.isfinite().all()):
            return cls(False, None, target, None, None)
        prediction = int(score.ranking(logits[None]).argmax())
        chosen = prediction if target is None else target
        labels = torch.tensor([chosen], device=logits.device)
        found, logit = score.value(logits[None], labels), score.logit(logits[None], labels)
        absent = score.scene is not None and not bool((score.scene(logits[None]) == chosen).any())
        return cls(True, prediction, chosen, float(found), float(logit), absent)

    @property
    def failure(self) -> tuple[str, str] | None:
        """Status and text, where there is nothing to explain."""
        if not self.finite:
            return statuses.NON_FINITE, "the model's output for the image is not finite"
        if self.absent:
            return statuses.NO_EVIDENCE, f"the model finds class {self.target} nowhere in the image"
        return None

    def explanation(self, status: str, error: str | None) -> Explanation:
        """An explanation of this image without a map yet."""
        return Explanation(status, error, self.prediction, self.target, self.score, self.logit)


def check_target(target: int | None, classes: int) -> None:
    """Refuse a class that there is not.

    Raises:
        TargetError: When `target` is no class of the model.
    """
    if target is not None and not 0 <= target < classes:
        raise TargetError(f"target must be a class index from 0 to {classes - 1}, got {target}")
