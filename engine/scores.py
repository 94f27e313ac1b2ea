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
    ranking: Callable[[Tensor], Tensor]
    """Output for one image -> one number per class `(class,)`, the larger the more the model sees of it; the largest is predicted."""


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


def sigmoid_probability(
    logits: Float[Tensor, "batch class"], targets: Int[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """Probability of the target in a model whose classes do not exclude each other, in [0, 1], in float32 at least."""
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return wide.gather(1, targets[:, None]).squeeze(1).sigmoid()


def target_logit(logits: Float[Tensor, "batch class"], targets: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """`z_c`, which is the sigmoid's margin: dPsi = Psi (1 - Psi) dz_c."""
    return logits.gather(1, targets[:, None]).squeeze(1)


def own_logits(logits: Float[Tensor, "1 class"]) -> Float[Tensor, " class"]:
    """A classifier's ranking: its logits, which rank as the probabilities do."""
    return logits[0]


SOFTMAX = Score("softmax", softmax_probability, softmax_margin, own_logits)
SIGMOID = Score("sigmoid", sigmoid_probability, target_logit, own_logits)
SCORES = {score.name: score for score in (SOFTMAX, SIGMOID)}
