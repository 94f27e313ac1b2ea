"""What "the model's confidence in the target" means; the selection gradient and the scoring of masks share it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Score:
    """One meaning of confidence, as the number that weighs a mask and as the quantity whose gradient selects maps."""

    name: str
    value: Callable[[Tensor, Tensor], Tensor]
    """(logits `(batch, class)`, targets `(batch,)`) -> Psi `(batch,)` in [0, 1], float32 or float64."""
    margin: Callable[[Tensor, Tensor], Tensor]
    """Like `value`, but an increasing function of it whose gradient does not vanish when Psi saturates."""


def softmax_probability(
    logits: Float[Tensor, "batch class"], targets: Int[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """Psi of the paper: softmax probability of the target, in [0, 1], in float32 at least."""
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return wide.softmax(dim=1).gather(1, targets[:, None]).squeeze(1)


def softmax_margin(logits: Float[Tensor, "batch class"], targets: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """`z_c - logsumexp(z_j, j != c)`: dPsi = Psi (1 - Psi) dmargin, so eq. 7 keeps the same maps, also where Psi rounds to 1."""
    others = logits.scatter(1, targets[:, None], float("-inf"))
    return logits.gather(1, targets[:, None]).squeeze(1) - others.logsumexp(dim=1)


SOFTMAX = Score("softmax", softmax_probability, softmax_margin)
