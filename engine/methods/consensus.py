"""Consensus: several methods' maps as ranks, averaged; and how much they disagree, since the hardest images are where they do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..metrics.ranking import average_ranks, correlation
from .batch_settings import ConsensusSettings
from .protocol import Cost, ExplainFunction, Method, MethodMaps, method
from .registry import find_method


class Consensus:
    """Runs the methods one after another on the same batch."""

    def __init__(self, members: Mapping[str, ExplainFunction]):
        self._members = members

    def explain(
        self,
        images: Float[Tensor, "batch channel height width"],
        targets: Int[Tensor, " batch"],
        seeds: Sequence[int],
    ) -> MethodMaps:
        """The mean rank of every pixel, in [0, 1]; NaN where a method breaks, constant where none says anything."""
        found = [member.explain(images, targets, seeds) for member in self._members.values()]
        ranks = torch.stack([pixel_ranks(one.maps) for one in found])
        mean = ranks.mean(dim=0).unflatten(1, (images.shape[2], images.shape[3]))
        passes = Cost(sum(one.cost.forwards for one in found), sum(one.cost.backwards for one in found))
        return MethodMaps(mean.float(), passes, {"disagreement": disagreement(ranks).float()})

    def extra_shapes(self, image: Float[Tensor, "channel height width"]) -> dict[str, tuple[int, ...]]:
        """One number."""
        return {"disagreement": ()}


def pixel_ranks(maps: Float[Tensor, "batch height width"]) -> Float[Tensor, "batch pixel"]:
    """Ranks in [0, 1], equal values sharing the mean of their places; NaN for a map that is not finite."""
    flat = maps.flatten(1)
    ranks = (average_ranks(flat) - 1) / max(flat.shape[1] - 1, 1)
    return torch.where(flat.isfinite().all(dim=1, keepdim=True), ranks, torch.nan)


def disagreement(ranks: Float[Tensor, "method batch pixel"]) -> Float[Tensor, " batch"]:
    """1 less the mean of Spearman's correlation over all pairs of methods: 0 where all rank alike, above 1 where they rank against
    each other. A method whose map is constant agrees with none: its correlations are 0."""
    pairs = torch.stack([correlation(ranks[one], ranks[two]) for one, two in combinations(range(len(ranks)), 2)])
    return 1 - pairs.nan_to_num(0).mean(dim=0)


def members_of(settings: ConsensusSettings) -> dict[str, Method]:
    """The methods that it asks for.

    Raises:
        SettingsError: When there is none of a name.
    """
    return {name: find_method(name) for name in settings.of}


def cost(settings: ConsensusSettings) -> Cost | None:
    """The sum over its methods; None where one's depends on the image."""
    costs: list[Any] = [one.cost(one.settings()) for one in members_of(settings).values()]
    if None in costs:
        return None
    return Cost(sum(one.forwards for one in costs), sum(one.backwards for one in costs))


@method(
    name="consensus",
    summary="mean rank of several methods' maps, and how much they disagree",
    source="rank average; no paper",
    architecture="cnn",
    settings=ConsensusSettings,
    cost=cost,
    gradients=True,
    resolution="input",
    extras={"disagreement": "1 less the mean Spearman correlation over pairs of the methods; 0 where all agree"},
)
def build(model: nn.Module, settings: ConsensusSettings) -> Consensus:
    return Consensus({name: one.build(model, one.settings()) for name, one in members_of(settings).items()})
