"""A trained attention head as a method uses it: which layers it reads, and how its logits become a map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor

from .attention_head import AttentionHead
from .auxiliary import Auxiliary

Activation = Literal["min_max", "sigmoid"]


@dataclass(frozen=True, eq=False)
class TrainedHead:
    """A head and what it was trained on."""

    head: AttentionHead
    layers: tuple[str, ...]
    """Names of the modules that it reads."""
    activation: Activation = "min_max"
    """Of logits to a map: over their own range (T-TAME's inference), or the sigmoid (a student, whose teacher's values are absolute)."""
    auxiliary: Auxiliary | None = None
    """Whose layers they are, of P-TAME."""

    def values(
        self, features: Sequence[Float[Tensor, "batch _ _ _"]], targets: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch h w"]:
        """Of one class for each image at the head's resolution: logits, or with `sigmoid` maps in [0, 1]; float32."""
        self.head.eval().to(features[0].device)
        logits = self.head.rows(features, targets).float()
        return logits.sigmoid() if self.activation == "sigmoid" else logits
